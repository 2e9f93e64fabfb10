// The Consul adapter keeps the contract on a real server. Each test has its own services; the server is shared.
import assert from 'node:assert/strict';
import { after, before, describe } from 'node:test';
import { systemClock } from '../../src/kernel/clock.ts';
import { CANARY, describeAdapter, type Harness } from '../conformance/adapter.ts';
import { type ConsulServer, consulBinary, startConsul } from '../registries/consul.ts';
import { type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts';
import { makeAdapter, nativeRegistry, PLAIN, Raw, SKIPS } from './consul-support.ts';

let server: ConsulServer;
let proxy: FaultProxy;
let round = 0;

const { path, how } = await consulBinary(true);

describe('Consul, real server', { skip: path === null && process.env['CI'] === undefined ? `no Consul: ${how}` : false }, () => {
  before(async () => {
    assert.notEqual(path, null, `Consul is missing in CI: ${how}`);
    server = await startConsul({ rootToken: CANARY });
    proxy = await startFaultProxy(server.endpoint);
  });
  after(async () => {
    await proxy?.close();
    await server?.stop();
  });
  for (const maxWatches of [98, 1]) {
    const name = `consul, real ${maxWatches === 1 ? 'mostly by the firehose' : 'one query per service'}`;
    describeAdapter({ name, make: () => harness(maxWatches), skip: SKIPS });
  }
});

async function harness(maxWatches: number): Promise<Harness> {
  const run = ++round;
  const raw = new Raw(server.address, CANARY);
  const options = { ...PLAIN, auth: { token: CANARY } };
  const create = () => makeAdapter(`http://${proxy.endpoint}`, options, { maxWatches });
  const made = create();
  const others = [made.adapter];
  const used = new Set<string>();
  return {
    adapter: made.adapter,
    clock: systemClock,
    registry: nativeRegistry(raw, {
      async cut() {
        proxy.cut();
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
