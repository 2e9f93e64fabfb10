// The Nacos adapter keeps the contract on the fake of several versions. The same suite runs on real servers: test/live/nacos-*.live.test.ts.
import type { Instance } from '../../src/model/instance.ts';
import type { ServiceKey } from '../../src/model/service.ts';
import { CANARY, describeAdapter, type Harness } from '../../test/conformance/adapter.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { type FakeVersion, startFakeNacos } from './fake.ts';
import type { FakeInstance } from './fake-store.ts';
import { makeAdapter } from './fake-support.ts';

describeAdapter({ name: 'nacos over gRPC, fake 3.0.3', make: () => harness('3.0.3', {}) });
describeAdapter({ name: 'nacos over gRPC, fake 3.0.3, names by fuzzy watch', make: () => harness('3.0.3', { list: 'fuzzy' }) });
describeAdapter({ name: 'nacos over gRPC, fake 2.1.1, no abilities', make: () => harness('2.1.1', {}) });
describeAdapter({
  name: 'nacos over HTTP, fake 1.4.6',
  make: () => harness('1.4.6', {}),
  skip: [
    {
      test: 'what is thrown when the registry is cut is a SourceError of cause lost',
      reason: 'between two polls there is no connection to cut',
    },
  ],
});

async function harness(version: FakeVersion, config: object): Promise<Harness> {
  const clock = new FakeClock();
  const serverClock = new FakeClock();
  const fake = await startFakeNacos(version, serverClock);
  fake.auth = new Map([['weir', CANARY]]);
  const lines: string[] = [];
  const create = () => {
    const options = { auth: { username: 'weir', password: CANARY }, tls: null, timeout: 10_000, normalWeight: null };
    return makeAdapter({ ...fake.config, ...config }, { clock, options, lines }).adapter;
  };
  const adapter = create();
  const others = [adapter];
  let turn: Promise<void> = Promise.resolve();
  const advance = (ms: number): Promise<void> => {
    turn = turn.then(async () => {
      await serverClock.advance(ms);
      await clock.advance(ms);
    });
    return turn;
  };
  // A server without abilities confirms nothing: the client waits 100 ms, also where the suite lets no time pass.
  const pump = fake.profile.abilities || !fake.profile.grpc ? null : setInterval(() => void advance(10), 5);
  const published = new Map<string, Map<string, FakeInstance>>();
  /** The records of one raw publisher, which has a connection of its own. */
  const publish = (key: ServiceKey, change: (all: Map<string, FakeInstance>) => void): void => {
    const id = `public@@DEFAULT_GROUP@@${key.name}`;
    const all = published.get(id) ?? new Map();
    published.set(id, all);
    change(all);
    fake.store.publish(id, 'raw', [...all.values()]);
  };
  return {
    adapter,
    clock,
    registry: {
      async put(key, instances) {
        publish(key, (all) => {
          for (const instance of instances) all.set(`${instance.host}#${instance.port}#DEFAULT`, nativeOf(instance));
        });
      },
      async remove(key, ids) {
        publish(key, (all) => {
          for (const id of ids) all.delete(id);
        });
      },
      async spoil(key) {
        publish(key, (all) => all.set('spoilt', { ...nativeOf(SPOILT), port: 0 }));
      },
      async cut() {
        fake.cut();
      },
      ...(version === '1.4.6'
        ? {}
        : {
            async wipe() {
              published.clear();
              fake.wipe();
            },
          }),
    },
    async another() {
      const other = create();
      others.push(other);
      return other;
    },
    key: (name) => ({ namespace: 'default', name }),
    advance,
    logs: () => lines.join('\n'),
    timersLeft: () => clock.pending,
    async close() {
      if (pump !== null) clearInterval(pump);
      for (const other of others) await other.close();
      await fake.close();
    },
  };
}

const SPOILT: Instance = {
  id: '',
  host: '192.0.2.99',
  port: 1,
  transport: 'tcp',
  weight: 100,
  health: 'healthy',
  isolated: false,
  metadata: new Map(),
};

/** What the server takes: at most 1,024 characters of metadata. */
function nativeOf(instance: Instance): FakeInstance {
  const { region, zone, campus } = instance.locality ?? {};
  const lifted = Object.entries({ version: instance.version, protocol: instance.protocol, region, zone, campus });
  const metadata = new Map<string, string>();
  let left = 1_024;
  for (const [key, value] of [...lifted, ...instance.metadata]) {
    if (value === undefined || key.length + value.length > left) continue;
    metadata.set(key, value);
    left -= key.length + value.length;
  }
  return {
    ip: instance.host,
    port: instance.port,
    weight: instance.weight / 100,
    healthy: instance.health !== 'unhealthy',
    enabled: !instance.isolated,
    ephemeral: true,
    clusterName: 'DEFAULT',
    metadata: Object.fromEntries(metadata),
  };
}
