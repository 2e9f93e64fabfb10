// Registrations through the etcd adapter, on its fake: leases, kill -9, wiped server, foreign owner.
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { startFakeEtcd } from '../../adapters/etcd/fake.ts';
import { factory } from '../../adapters/etcd/index.ts';
import { eventually } from '../../test/support/eventually.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { dialPolicy } from '../kernel/dial.ts';
import { WeirError } from '../kernel/errors.ts';
import { silentLog } from '../kernel/log.ts';
import { seededRandom } from '../kernel/random.ts';
import { Metrics } from '../telemetry/metrics.ts';
import { Registrations } from './registrations.ts';

const service = { namespace: 'game', name: 'lobby' };
const native = { namespace: 'default', name: 'lobby' };

async function world() {
  const clock = new FakeClock();
  const serverClock = new FakeClock();
  const fake = await startFakeEtcd('3.6.16', serverClock);
  const directory = await mkdtemp(join(tmpdir(), 'weir-registrations-etcd-'));
  const dial = dialPolicy({ allowLoopback: true, allowNames: false, cidrs: [], ports: [] }, () => []);
  const client = () =>
    factory.create(
      { endpoints: [`http://${fake.endpoint}`] },
      { auth: {}, tls: null, timeout: 10_000, normalWeight: null },
      { sourceId: 'etcd', clock, random: seededRandom(1), dial, log: silentLog, count: () => {} },
    );
  const open = async (name: string) => {
    const adapter = client();
    const registrations = await Registrations.open({
      clock,
      random: seededRandom(5),
      log: silentLog,
      sources: () => [{ sourceId: 'etcd', adapter, registerByDefault: true, canRegister: true }],
      nativeKey: () => native,
      audit: () => {},
      metrics: new Metrics(),
      onLost: () => {},
      journalPath: join(directory, name),
      uid: null,
    });
    return { registrations, adapter };
  };
  const step = async (ms: number): Promise<void> => {
    await serverClock.advance(ms);
    await clock.advance(ms);
  };
  const during = async <T>(promise: Promise<T>): Promise<T> => {
    let over = false;
    promise.then(
      () => {
        over = true;
      },
      () => {
        over = true;
      },
    );
    await eventually(async () => {
      await step(10);
      return over;
    });
    return promise;
  };
  const reader = client();
  const seen = async () => {
    const snapshot = await reader.read(native, new AbortController().signal);
    return snapshot.kind === 'present' ? snapshot.instances : [];
  };
  const close = async (): Promise<void> => {
    await reader.close();
    await fake.close();
    await rm(directory, { recursive: true });
  };
  return { clock, fake, open, step, during, seen, close };
}

type World = Awaited<ReturnType<typeof world>>;

/** Seconds in steps, with real time for the sockets between them. */
async function pass(w: World, ms: number): Promise<void> {
  for (let done = 0; done < ms; done += 250) {
    await w.step(250);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

describe('registrations in etcd', () => {
  it('outlive kill -9 without a second put: the revision of the key does not move', async () => {
    const w = await world();
    const first = await w.open('journal');
    const view = await w.during(
      first.registrations.upsert({ service, id: 'l1', host: '10.0.0.5', port: 8000, metadata: new Map([['a', 'b']]) }),
    );
    assert.equal(view.targets.get('etcd')?.state, 'live');
    const [record] = await w.seen();
    assert.deepEqual([record?.host, record?.port, record?.metadata.get('a')], ['10.0.0.5', 8000, 'b']);
    const revision = w.fake.store.revision;
    await first.registrations.shutdown('keep');
    await first.adapter.close();
    const second = await w.open('journal');
    await pass(w, 40_000);
    assert.equal(second.registrations.list()[0]?.targets.get('etcd')?.state, 'live');
    assert.equal(w.fake.store.revision, revision);
    assert.equal((await w.seen()).length, 1);
    await w.during(second.registrations.shutdown('deregister'));
    assert.deepEqual(await w.seen(), []);
    await second.adapter.close();
    await w.close();
  });

  it('are put again after the server was wiped', async () => {
    const w = await world();
    const { registrations, adapter } = await w.open('journal');
    await w.during(registrations.upsert({ service, id: 'l1', host: '10.0.0.5', port: 8000 }));
    w.fake.wipe();
    await eventually(async () => {
      await w.step(250);
      return (await w.seen().catch(() => [])).length === 1;
    }, 20_000);
    await registrations.shutdown('keep');
    await adapter.close();
    await w.close();
  });

  it('an address that another sidecar holds is a conflict', async () => {
    const w = await world();
    const one = await w.open('journal-1');
    const two = await w.open('journal-2');
    await w.during(one.registrations.upsert({ service, id: 'l1', host: '10.0.0.5', port: 8000 }));
    await assert.rejects(
      w.during(two.registrations.upsert({ service, id: 'l1', host: '10.0.0.5', port: 8000 })),
      (thrown) => thrown instanceof WeirError && thrown.code === 'REGISTRATION_CONFLICT',
    );
    assert.equal((await w.seen()).length, 1);
    for (const { registrations, adapter } of [one, two]) {
      await registrations.shutdown('keep');
      await adapter.close();
    }
    await w.close();
  });
});
