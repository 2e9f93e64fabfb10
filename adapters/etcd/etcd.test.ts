// The etcd adapter keeps the contract on the fake of both versions. The same suite runs on real servers: test/live/etcd-conformance.live.test.ts.
import type { AdapterDeps, SourceOptions } from '../../src/adapter/contract.ts';
import { hostPort } from '../../src/kernel/address.ts';
import { dialPolicy } from '../../src/kernel/dial.ts';
import { seededRandom } from '../../src/kernel/random.ts';
import { CANARY, describeAdapter, type Harness } from '../../test/conformance/adapter.ts';
import { GRPC, type NativeLayout, SKYDNS } from '../../test/support/etcd-native.ts';
import { eventually } from '../../test/support/eventually.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { type FakeVersion, startFakeEtcd } from './fake.ts';
import { factory } from './index.ts';

for (const version of ['3.4.23', '3.6.16'] as const) {
  for (const layout of [GRPC, SKYDNS]) {
    const make = () => harness(version, layout);
    describeAdapter({ name: `etcd, layout ${layout.name}, fake ${version}`, make, skip: layout.skip ?? [] });
  }
}

async function harness(version: FakeVersion, layout: NativeLayout): Promise<Harness> {
  const clock = new FakeClock();
  const serverClock = new FakeClock();
  const fake = await startFakeEtcd(version, serverClock);
  fake.auth = new Map([['weir', CANARY]]);
  const lines: string[] = [];
  const options: SourceOptions = { auth: { username: 'weir', password: CANARY }, tls: null, timeout: 10_000, normalWeight: null };
  const create = () =>
    factory.create({ endpoints: [`http://${fake.endpoint}`], layout: layout.name }, options, deps(clock, lines));
  const adapter = create();
  const others = [adapter];
  return {
    adapter,
    clock,
    registry: {
      async put({ name }, instances) {
        for (const instance of instances) {
          const key = Buffer.from(layout.key(name, hostPort(instance.host, instance.port)));
          fake.store.put({ key, value: Buffer.from(layout.value(instance)) });
        }
      },
      async remove({ name }, ids) {
        for (const id of ids) fake.store.deleteRange({ key: Buffer.from(layout.key(name, id)) });
      },
      async spoil({ name }) {
        fake.store.put({ key: Buffer.from(layout.key(name, 'spoilt')), value: Buffer.from('{"Addr":') });
      },
      async cut() {
        // The first snapshot comes from the list; the watch has a connection of its own, a moment later.
        await eventually(() => fake.openWatches > 0);
        fake.cut();
      },
      async wipe() {
        fake.wipe();
      },
    },
    async another() {
      const other = create();
      others.push(other);
      return other;
    },
    key: (name) => ({ namespace: 'default', name }),
    async advance(ms) {
      await serverClock.advance(ms);
      await clock.advance(ms);
    },
    logs: () => lines.join('\n'),
    timersLeft: () => clock.pending,
    async close() {
      for (const other of others) await other.close();
      await fake.close();
    },
  };
}

function deps(clock: FakeClock, lines: string[]): AdapterDeps {
  const write = (fields: object, message: string): void => void lines.push(`${message} ${JSON.stringify(fields)}`);
  const log = { debug: write, info: write, warn: write, error: write, child: () => log };
  const dial = dialPolicy({ allowLoopback: true, allowNames: false, cidrs: [], ports: [] }, () => []);
  return { sourceId: 'test', clock, random: seededRandom(1), dial, log, count: () => {} };
}
