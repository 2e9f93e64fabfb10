// The Consul adapter keeps the contract on the fake, with streaming and without, by queries of its own and by the firehose.
// The same suite runs on a real server: test/live/consul-conformance.live.test.ts.
import { CANARY, describeAdapter, type Harness } from '../../test/conformance/adapter.ts';
import { makeAdapter, nativeRegistry, PLAIN, Raw, SKIPS } from '../../test/live/consul-support.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { startFakeConsul } from './fake.ts';

for (const [name, streaming, maxWatches] of [
  ['streaming', true, 98],
  ['plain queries', false, 98],
  ['mostly by the firehose', true, 1],
] as const) {
  describeAdapter({ name: `consul, fake, ${name}`, make: () => harness(streaming, maxWatches), skip: SKIPS });
}

async function harness(streaming: boolean, maxWatches: number): Promise<Harness> {
  const clock = new FakeClock();
  const serverClock = new FakeClock();
  const fake = await startFakeConsul(serverClock);
  fake.streaming = streaming;
  fake.acl = new Map([[CANARY, () => true]]);
  const create = () => makeAdapter(fake.address, { ...PLAIN, auth: { token: CANARY } }, { maxWatches }, clock);
  const made = create();
  const others = [made.adapter];
  return {
    adapter: made.adapter,
    clock,
    registry: nativeRegistry(new Raw(fake.address, CANARY), {
      async cut() {
        fake.cut();
      },
      async wipe() {
        fake.wipe();
      },
    }),
    async another() {
      const other = create().adapter;
      others.push(other);
      return other;
    },
    key: (name) => ({ namespace: 'default', name }),
    async advance(ms) {
      await serverClock.advance(ms);
      await clock.advance(ms);
    },
    logs: () => made.lines.join('\n'),
    timersLeft: () => clock.pending,
    async close() {
      for (const other of others) await other.close();
      await fake.close();
    },
  };
}
