// The conformance suite of all adapters on a real Polaris behind a proxy that can cut the link.
// WEIR_TEST_POLARIS=<host:port of gRPC> runs it on a server that is running already (without the claims that need its console).
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { systemClock } from '../../src/kernel/clock.ts';
import type { Instance } from '../../src/model/instance.ts';
import { describeAdapter, type Harness } from '../conformance/adapter.ts';
import { type PolarisServer, polarisBinary, startPolaris } from '../registries/polaris.ts';
import { startFaultProxy } from '../support/fault-proxy.ts';
import { makeAdapter, Raw } from './polaris-support.ts';

const GIVEN = process.env['WEIR_TEST_POLARIS'];
const SKIP = [
  {
    test: 'a lease that nobody renews ends: the record goes, renew says forgotten, remove still says true',
    reason: 'Polaris marks an instance without beats unhealthy and keeps it for ever',
  },
];
/** On a server that others use, too. */
const SKIP_GIVEN = [
  {
    test: 'names like __proto__ and constructor are services like any other',
    reason: 'the names are the same in every run, and this server keeps those of the last one',
  },
];
let harnesses = 0;

const found = GIVEN === undefined ? await polarisBinary(true) : { path: GIVEN, how: '' };
if (found.path === null) {
  const missing = process.env['CI'] === undefined ? { skip: `no Polaris: ${found.how}` } : {};
  it('conformance on Polaris', missing, () => assert.fail(`Polaris is missing in CI: ${found.how}`));
} else {
  describe('real Polaris', () => {
    let server: PolarisServer | null = null;
    before(async () => {
      if (GIVEN === undefined) server = await startPolaris();
    });
    after(() => server?.stop());
    describeAdapter({
      name: 'polaris, server 1.18.1',
      make: () => harness(server),
      skip: GIVEN === undefined ? SKIP : [...SKIP, ...SKIP_GIVEN],
    });
  });
}

async function harness(server: PolarisServer | null): Promise<Harness> {
  const endpoint = server?.grpc ?? GIVEN ?? assert.fail('no server');
  const proxy = await startFaultProxy(endpoint);
  const raw = new Raw(endpoint);
  const made = makeAdapter([proxy.endpoint]);
  const adapters = [made.adapter];
  const run = ++harnesses;
  return {
    adapter: made.adapter,
    clock: systemClock,
    registry: {
      // No more metadata than the server takes: the rest of that claim is about what we cut ourselves.
      put: (key, instances) => raw.put(key, instances.map(withinLimits)),
      remove: (_key, ids) => raw.remove(ids),
      async clear(key) {
        await raw.remove((await raw.ids(key)) ?? []);
      },
      async cut() {
        proxy.cut();
      },
      ...(server === null ? {} : { wipe: () => server.wipe() }),
    },
    async another() {
      const other = makeAdapter([endpoint]).adapter;
      adapters.push(other);
      return other;
    },
    key: (name) => ({ namespace: 'default', name: `${name}-${process.pid}-${run}` }),
    advance: (ms) => systemClock.sleep(ms),
    logs: () => made.lines.join('\n'),
    async close() {
      for (const adapter of adapters) await adapter.close();
      raw.close();
      await proxy.close();
    },
  };
}

function withinLimits(instance: Instance): Instance {
  return { ...instance, metadata: new Map([...instance.metadata].slice(0, 64)) };
}
