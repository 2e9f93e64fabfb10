// The polaris adapter keeps the contract on the fake, over gRPC and over the HTTP fallback. The same suite runs on a real server:
// test/live/polaris-conformance.live.test.ts.
import type { Instance } from '../../src/model/instance.ts';
import { CANARY, describeAdapter, type Harness } from '../../test/conformance/adapter.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { startFakePolaris } from './fake.ts';
import { factory } from './index.ts';
import { nativeOf } from './mapping.ts';
import { TEST_MAPPING, testDeps } from './test-support.ts';

const SKIP = [
  {
    test: 'a lease that nobody renews ends: the record goes, renew says forgotten, remove still says true',
    reason: 'Polaris marks an instance without beats unhealthy and keeps it for ever',
  },
];

for (const over of ['gRPC', 'HTTP'] as const) {
  describeAdapter({ name: `polaris, fake, over ${over}`, make: () => harness(over), skip: SKIP });
}

async function harness(over: 'gRPC' | 'HTTP'): Promise<Harness> {
  const clock = new FakeClock();
  const serverClock = new FakeClock();
  const fake = await startFakePolaris(serverClock);
  fake.auth = 'strict';
  fake.token = CANARY;
  const lines: string[] = [];
  const servers = over === 'gRPC' ? [fake.grpc] : [`http://${fake.http}`];
  const options = { auth: { token: CANARY }, tls: null, timeout: 10_000, normalWeight: null };
  const create = () => factory.create({ servers }, options, testDeps(clock, lines));
  const adapter = create();
  const others = [adapter];
  return {
    adapter,
    clock,
    registry: {
      async put(key, instances) {
        for (const instance of instances) fake.store.force(key.namespace, key.name, wire(key, instance));
        await serverClock.advance(1_000);
      },
      async remove(_key, ids) {
        for (const id of ids) fake.store.deregister({ id: { value: id } });
      },
      async clear({ namespace, name }) {
        fake.store.removeAll(namespace, name);
      },
      async spoil({ namespace, name }) {
        fake.store.force(namespace, name, { id: { value: 'spoilt' }, host: { value: '' }, port: { value: 0 } });
      },
      ...(over === 'HTTP'
        ? {}
        : {
            async cut() {
              fake.cut();
            },
          }),
      async wipe() {
        fake.store.wipe();
        fake.cut();
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

/** As the console would write it: also what a register refuses. */
function wire(key: { namespace: string; name: string }, instance: Instance) {
  const native = nativeOf(
    { namespace: 'x', name: 'x' },
    { ...instance, metadata: new Map() },
    { ttl: null, sendIsolate: true },
    TEST_MAPPING,
  );
  if (typeof native === 'string') throw new Error(native);
  return {
    ...native,
    service: { value: key.name },
    namespace: { value: key.namespace },
    id: { value: instance.id },
    metadata: [...instance.metadata].map(([name, value]) => ({ key: name, value })),
  };
}
