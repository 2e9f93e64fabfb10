// The Consul adapter keeps the contract on a real server. Each test has its own services; the server is shared.
import assert from 'node:assert/strict';
import { after, before, describe } from 'node:test';
import { systemClock } from '../../src/kernel/clock.ts';
import { CANARY, describeAdapter, type Harness } from '../conformance/adapter.ts';
import { type ConsulServer, consulBinary, startConsul } from '../registries/consul.ts';
import { type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts';
import { type Certificates, makeCertificates } from './consul-certificates.ts';
import { makeAdapter, nativeRegistry, PLAIN, Raw, SKIPS } from './consul-support.ts';

let certificates: Certificates;
let server: ConsulServer;
let proxy: FaultProxy;
let secure: FaultProxy;
let round = 0;

const { path, how } = await consulBinary(true);

describe('Consul, real server', { skip: path === null && process.env['CI'] === undefined ? `no Consul: ${how}` : false }, () => {
  before(async () => {
    assert.notEqual(path, null, `Consul is missing in CI: ${how}`);
    certificates = await makeCertificates();
    server = await startConsul({ rootToken: CANARY, tls: certificates });
    proxy = await startFaultProxy(server.plainAddress.replace('http://', ''));
    secure = await startFaultProxy(server.endpoint);
  });
  after(async () => {
    await proxy?.close();
    await secure?.close();
    await server?.stop();
    await certificates?.remove();
  });
  for (const maxWatches of [98, 1]) {
    const name = `consul, real ${maxWatches === 1 ? 'mostly by the firehose' : 'one query per service'}`;
    describeAdapter({ name, make: () => harness(maxWatches, false), skip: SKIPS });
  }
  describeAdapter({ name: 'consul, real over TLS and HTTP/2', make: () => harness(98, true), skip: SKIPS });
});

async function harness(maxWatches: number, tls: boolean): Promise<Harness> {
  const run = ++round;
  const raw = new Raw(server.plainAddress, CANARY);
  const options = { ...PLAIN, auth: { token: CANARY }, tls: tls ? { ca: certificates.ca } : null };
  const address = tls ? `https://${secure.endpoint}` : `http://${proxy.endpoint}`;
  const create = () => makeAdapter(address, options, { maxWatches });
  const made = create();
  const others = [made.adapter];
  const used = new Set<string>();
  return {
    adapter: made.adapter,
    clock: systemClock,
    registry: nativeRegistry(raw, {
      async cut() {
        proxy.cut();
        secure.cut();
      },
      async wipe() {
        await server.wipe();
      },
    }),
    async another() {
      const other = create().adapter;
      others.push(other);
      return other;
    },
    key(name) {
      used.add(`${name}-${run}`);
      return { namespace: 'default', name: `${name}-${run}` };
    },
    advance: (ms) => systemClock.sleep(ms),
    logs: () => made.lines.join('\n'),
    async close() {
      for (const other of others) await other.close();
    },
  };
}
