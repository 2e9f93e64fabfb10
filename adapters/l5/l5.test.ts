// The L5 adapter keeps the contract on the fake. The same suite runs on a real server: test/live/l5-conformance.live.test.ts.
import type { AdapterDeps, SourceOptions } from '../../src/adapter/contract.ts';
import { dialPolicy } from '../../src/kernel/dial.ts';
import { seededRandom } from '../../src/kernel/random.ts';
import type { Instance } from '../../src/model/instance.ts';
import { describeAdapter, type Harness } from '../../test/conformance/adapter.ts';
import { SKIPS } from '../../test/live/l5-support.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { startFakeL5 } from './fake.ts';
import { factory } from './index.ts';

describeAdapter({ name: 'l5, fake, SIDs', make: () => harness('sids'), skip: SKIPS });
describeAdapter({ name: 'l5, fake, names', make: () => harness('names'), skip: SKIPS });

/** `names`: every service is asked for by its L5 name. */
async function harness(by: 'sids' | 'names'): Promise<Harness> {
  const clock = new FakeClock();
  const fake = await startFakeL5(clock);
  const lines: string[] = [];
  const options: SourceOptions = { auth: {}, tls: null, timeout: 10_000, normalWeight: null };
  const all = Array.from({ length: 12 }, (_, n) => `192002625:${n + 1}`);
  const names = all.map((_, n) => `name-${n}`);
  const config = by === 'sids' ? { sids: all } : { names, aliases: true };
  const create = () => factory.create({ servers: [fake.endpoint], ...config }, options, deps(clock, lines));
  const adapter = create();
  const others = [adapter];
  const keys = new Map<string, { namespace: string; name: string }>();
  /** A key that is a SID, or the SID behind a name. */
  const sidOf = (name: string): string => {
    if (/^\d+:\d+$/.test(name)) return name;
    const at = names.indexOf(name);
    return at < 0 ? `77:${Buffer.from(name).readUInt16LE(0)}` : (all[at] ?? '');
  };
  return {
    adapter,
    clock,
    registry: {
      async put({ name }, instances) {
        const sid = sidOf(name);
        fake.store.put(sid, instances.map(native), name === sid ? {} : { name });
      },
      async remove({ name }, ids) {
        for (const id of ids) fake.store.remove(sidOf(name), id.slice(id.indexOf('/') + 1));
      },
      async spoil({ name }) {
        fake.store.put(sidOf(name), [{ host: '192.0.2.99', port: 0, weight: 100 }]);
      },
      async cut() {
        fake.cut();
      },
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
    key(name) {
      const at = keys.size;
      const key = keys.get(name) ?? { namespace: 'default', name: (by === 'sids' ? all[at] : names[at]) ?? '' };
      keys.set(name, key);
      return key;
    },
    advance: (ms) => clock.advance(ms),
    logs: () => lines.join('\n'),
    timersLeft: () => clock.pending,
    async close() {
      for (const other of others) await other.close();
      await fake.stop();
    },
  };
}

function native({ host, port, weight, health, isolated }: Instance) {
  return { host, port, weight, healthy: health !== 'unhealthy', isolated };
}

function deps(clock: FakeClock, lines: string[]): AdapterDeps {
  const write = (fields: object, message: string): void => void lines.push(`${message} ${JSON.stringify(fields)}`);
  const log = { debug: write, info: write, warn: write, error: write, child: () => log };
  const dial = dialPolicy({ allowLoopback: true, allowNames: false, cidrs: [], ports: [] }, () => []);
  return { sourceId: 'test', clock, random: seededRandom(1), dial, log, count: () => {} };
}
