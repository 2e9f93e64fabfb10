// The conformance suite of all adapters on real etcd servers of both versions, each behind a proxy that can cut the link.
// WEIR_TEST_ETCD=<host:port> runs it on a server that is running already (then without wiping it).
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { hostPort } from '../../src/kernel/address.ts';
import { systemClock } from '../../src/kernel/clock.ts';
import { describeAdapter, type Harness } from '../conformance/adapter.ts';
import { etcdBinary } from '../registries/etcd.ts';
import { type EtcdServer, startEtcd } from '../registries/start.ts';
import { GRPC, type NativeLayout, SKYDNS } from '../support/etcd-native.ts';
import { eventually } from '../support/eventually.ts';
import { startFaultProxy } from '../support/fault-proxy.ts';
import { makeAdapter, never, PLAIN, Raw, VERSIONS } from './etcd-support.ts';

const GIVEN = process.env['WEIR_TEST_ETCD'];
let harnesses = 0;

for (const version of GIVEN === undefined ? VERSIONS : (['given'] as const)) {
  const found = version === 'given' ? { path: GIVEN, how: '' } : await etcdBinary(version, true);
  if (found.path === null) {
    const missing = process.env['CI'] === undefined ? { skip: `no etcd ${version}: ${found.how}` } : {};
    it(`conformance on etcd ${version}`, missing, () => assert.fail(`etcd ${version} is missing in CI: ${found.how}`));
    continue;
  }
  describe(`real etcd ${version}`, () => {
    let server: EtcdServer | null = null;
    before(async () => {
      if (version !== 'given') server = await startEtcd({ version });
    });
    after(() => server?.stop());
    for (const layout of [GRPC, SKYDNS]) {
      const make = () => harness(server, layout);
      describeAdapter({ name: `etcd, layout ${layout.name}, server ${version}`, make, skip: layout.skip ?? [] });
    }
  });
}

async function harness(server: EtcdServer | null, layout: NativeLayout): Promise<Harness> {
  const endpoint = server?.endpoint ?? GIVEN ?? assert.fail('no server');
  const proxy = await startFaultProxy(endpoint);
  const raw = new Raw(endpoint);
  const made = makeAdapter([proxy.endpoint], PLAIN, { layout: layout.name });
  const adapters = [made.adapter];
  const run = ++harnesses;
  const put = (name: string, id: string, value: string): Promise<unknown> =>
    raw.client.call('Put', { key: Buffer.from(layout.key(name, id)), value: Buffer.from(value) }, never());
  return {
    adapter: made.adapter,
    clock: systemClock,
    registry: {
      async put({ name }, instances) {
        for (const instance of instances) await put(name, hostPort(instance.host, instance.port), layout.value(instance));
      },
      async remove({ name }, ids) {
        for (const id of ids) await raw.client.call('DeleteRange', { key: Buffer.from(layout.key(name, id)) }, never());
      },
      async spoil({ name }) {
        await put(name, 'spoilt', '{"Addr":');
      },
      async cut() {
        // The first snapshot comes from the list; the watch has a connection of its own, a moment later.
        await eventually(() => proxy.open >= 2);
        proxy.cut();
      },
      ...(server === null
        ? {}
        : {
            async wipe() {
              await server.wipe();
              await eventually(() => raw.revision(), 10_000);
            },
          }),
    },
    async another() {
      const other = makeAdapter([endpoint], PLAIN, { layout: layout.name }).adapter;
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
