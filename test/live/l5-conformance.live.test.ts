// The conformance suite of all adapters on the L5 server of a real Polaris, behind a proxy that can cut the link; instances are made
// through its console API.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { systemClock } from '../../src/kernel/clock.ts';
import { describeAdapter, type Harness } from '../conformance/adapter.ts';
import { type PolarisServer, polarisBinary, startPolaris } from '../registries/polaris.ts';
import { startFaultProxy } from '../support/fault-proxy.ts';
import { Console, key, makeAdapter, SKIPS } from './l5-support.ts';

let sids = 0;

const { path, how } = await polarisBinary(true);
if (path === null) {
  const missing = process.env['CI'] === undefined ? { skip: `no Polaris: ${how}` } : {};
  it('conformance on the L5 server of Polaris', missing, () => assert.fail(`Polaris is missing in CI: ${how}`));
} else {
  describe('real L5 server', () => {
    let server: PolarisServer;
    before(async () => {
      server = await startPolaris();
    });
    after(() => server.stop());
    for (const by of ['sids', 'names'] as const) {
      describeAdapter({ name: `l5, server Polaris 1.18.1, ${by}`, make: () => harness(server, by), skip: SKIPS });
    }
  });
}

/** `names`: every service is asked for by its L5 name. */
async function harness(server: PolarisServer, by: 'sids' | 'names'): Promise<Harness> {
  const proxy = await startFaultProxy(server.l5);
  const native = new Console(server);
  const all = Array.from({ length: 4 }, () => `1001:${++sids}`);
  const names = all.map((sid) => `name-${sid.replace(':', '-')}`);
  const sidOf = (name: string): string => all[names.indexOf(name)] ?? name;
  const config = by === 'sids' ? { sids: all } : { names, aliases: true };
  const made = makeAdapter([proxy.endpoint], config);
  const adapters = [made.adapter];
  const keys = new Map<string, string>();
  return {
    adapter: made.adapter,
    clock: systemClock,
    registry: {
      async put({ name }, instances) {
        await native.service(sidOf(name), by === 'names' ? name : '');
        await native.put(sidOf(name), instances);
      },
      async remove({ name }, ids) {
        const addresses = ids.map((id) => id.slice(id.indexOf('/') + 1));
        await native.remove(sidOf(name), addresses);
      },
      async spoil({ name }) {
        await native.put(sidOf(name), [{ host: '192.0.2.99', port: 0 }]);
      },
      async cut() {
        proxy.cut();
      },
    },
    async another() {
      const other = makeAdapter([server.l5], config).adapter;
      adapters.push(other);
      return other;
    },
    key(name) {
      const known = keys.get(name) ?? (by === 'sids' ? all : names)[keys.size] ?? assert.fail('too few SIDs');
      keys.set(name, known);
      return key(known);
    },
    advance: (ms) => systemClock.sleep(ms),
    logs: () => made.lines.join('\n'),
    async close() {
      for (const adapter of adapters) await adapter.close();
      await proxy.close();
    },
  };
}
