// Random histories of a real etcd against a model: what the adapter showed was once true, in order, whole, and is true again within 5 s.
// WEIR_HISTORIES sets how many (20), WEIR_SEED the first seed; a failure names its seed.
import assert from 'node:assert/strict';
import { describe } from 'node:test';
import { type Random, randomBelow, seededRandom } from '../../src/kernel/random.ts';
import type { Snapshot } from '../../src/model/snapshot.ts';
import type { EtcdVersion } from '../registries/etcd.ts';
import { type EtcdServer, startEtcd } from '../registries/start.ts';
import { eventually } from '../support/eventually.ts';
import { type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts';
import { assertOrdered, assertSameState, expected, Follower, itPerVersion, makeAdapter, Raw, value } from './etcd-support.ts';

const HISTORIES = Number(process.env['WEIR_HISTORIES'] ?? 20);
const FIRST_SEED = Number(process.env['WEIR_SEED'] ?? 1);
const STEPS = 30;
const CONVERGE_MS = 5_000;
const SERVICES = ['a', 'b', 'c', 'd'];
/** Never deleted by a step: only a wipe or a restore may take it from a snapshot. */
const STABLE = 'stable';

interface History {
  readonly random: Random;
  readonly server: EtcdServer;
  readonly proxy: FaultProxy;
  readonly raw: Raw;
  readonly follower: Follower;
  /** `service id port weight` of everything that was ever put. */
  readonly written: Set<string>;
  readonly steps: string[];
  hasCopy: boolean;
  /** Data were replaced: revisions start anew, and what was stable may be gone. */
  replaced: boolean;
  writes: number;
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function putSome(h: History): Promise<void> {
  for (let n = randomBelow(h.random, 8); n >= 0; n--) {
    const service = SERVICES[randomBelow(h.random, SERVICES.length)] ?? 'a';
    const id = `i${randomBelow(h.random, 12)}`;
    await put(h, service, id, '0');
  }
}

async function put(h: History, service: string, id: string, lease: string): Promise<void> {
  const weight = ++h.writes;
  // One address once: of two records with one address only the newer one is shown.
  const port = 1_000 + (weight % 60_000);
  h.written.add(`${service} ${id} ${port} ${weight}`);
  await h.raw.put(service, id, value(port, weight), lease);
}

async function removeSome(h: History): Promise<void> {
  for (let n = randomBelow(h.random, 8); n >= 0; n--) {
    await h.raw.remove(SERVICES[randomBelow(h.random, SERVICES.length)] ?? 'a', `i${randomBelow(h.random, 12)}`);
  }
}

async function putLeased(h: History): Promise<void> {
  const lease = await h.raw.grant(2);
  for (let n = 0; n < 3; n++) await put(h, SERVICES[n] ?? 'a', `l${n}`, lease);
}

async function putStable(h: History): Promise<void> {
  for (const service of SERVICES) await put(h, service, STABLE, '0');
}

/** Twice in a row is refused by the server and is no fault of ours. */
function allowCompacted(thrown: unknown): void {
  if (!String(thrown).includes('has been compacted')) throw thrown;
}

const STEPS_TABLE: readonly (readonly [weight: number, name: string, run: (h: History) => Promise<void>])[] = [
  [30, 'put', putSome],
  [20, 'delete', removeSome],
  [8, 'lease', putLeased],
  [8, 'compact', async (h) => h.raw.compact(await h.raw.revision()).catch(allowCompacted)],
  [10, 'cut', async (h) => h.proxy.cut()],
  [8, 'part', async (h) => h.proxy.refuse()],
  [8, 'join', async (h) => h.proxy.accept()],
  [
    4,
    'kill',
    async (h) => {
      await h.server.kill('SIGKILL');
      await h.server.restart();
    },
  ],
  [
    2,
    'wipe',
    async (h) => {
      h.replaced = true;
      await h.server.wipe();
      await putStable(h);
    },
  ],
  [
    2,
    'copy',
    async (h) => {
      await h.server.snapshotData();
      h.hasCopy = true;
    },
  ],
  [
    3,
    'restore',
    async (h) => {
      if (!h.hasCopy) return;
      h.replaced = true;
      await h.server.restoreData();
    },
  ],
];

function drawStep(random: Random): (typeof STEPS_TABLE)[number] {
  let at = random() * STEPS_TABLE.reduce((sum, [weight]) => sum + weight, 0);
  for (const step of STEPS_TABLE) {
    at -= step[0];
    if (at < 0) return step;
  }
  return STEPS_TABLE[0] ?? assert.fail('no steps');
}

/** Runs one history; the text of a violation, or null. */
async function run(version: EtcdVersion, seed: number): Promise<string | null> {
  const random = seededRandom(seed);
  const server = await startEtcd({ version });
  const proxy = await startFaultProxy(server.endpoint, seed);
  const raw = new Raw(server.endpoint);
  const { adapter, counts } = makeAdapter([proxy.endpoint]);
  const follower = new Follower(adapter, SERVICES);
  const h: History = {
    random,
    server,
    proxy,
    raw,
    follower,
    written: new Set(),
    steps: [],
    hasCopy: false,
    replaced: false,
    writes: 0,
  };
  const violations: string[] = [];
  follower.onSnapshot = (service, now, before) => violations.push(...judge(h, service, now, before));
  try {
    await putStable(h);
    await eventually(() => follower.complete, 10_000);
    await eventually(() => follower.state().size === SERVICES.length, 10_000);
    for (let step = 0; step < STEPS; step++) {
      const [, name, act] = drawStep(random);
      h.steps.push(name);
      await act(h);
      if (random() < 0.4) await pause(random() * 150);
    }
    await proxy.accept();
    const recovered = performance.now();
    // Leases may still end meanwhile: the truth is asked anew in each round.
    await eventually(async () => assertSameState(follower.state(), expected(await raw.truth())), CONVERGE_MS, 50);
    assert.ok(performance.now() - recovered <= CONVERGE_MS + 500);
    assertOrdered(follower);
    if (!h.replaced) assert.equal(counts.get('watch.missedEvents') ?? 0, 0, 'events were missed by the stream');
    assert.deepEqual(violations, []);
    return null;
  } catch (thrown) {
    return `seed ${seed}, steps ${h.steps.join(' ')}: ${thrown instanceof Error ? thrown.message : thrown}`;
  } finally {
    await follower.stop();
    await adapter.close();
    raw.close();
    await proxy.close();
    await server.stop();
  }
}

/** What every single snapshot must keep. */
function judge(h: History, service: string, now: Snapshot, before: Snapshot | undefined): string[] {
  const found: string[] = [];
  const instances = now.kind === 'present' ? now.instances : [];
  for (const { id, port, weight } of instances) {
    if (!h.written.has(`${service} ${id} ${port} ${weight}`)) found.push(`invented: ${service} ${id} ${port} ${weight}`);
  }
  const had = before?.kind === 'present' && before.instances.some(({ id }) => id === STABLE);
  const has = instances.some(({ id }) => id === STABLE);
  if (had && !has && !h.replaced) found.push(`${service}: a snapshot lacks what was never deleted`);
  if (before !== undefined && before.epoch !== now.epoch && !h.replaced) found.push(`${service}: a new epoch without cause`);
  return found;
}

describe('random histories of a real etcd', () => {
  itPerVersion(`${HISTORIES} histories of ${STEPS} steps: no violation, converged within 5 s`, 3_600_000, async (version) => {
    const failed: string[] = [];
    // Half of them on each version: the seeds differ, so that both see different histories.
    const share = Math.ceil(HISTORIES / 2);
    const first = FIRST_SEED + (version === '3.4' ? 0 : share);
    for (let seed = first; seed < first + share; seed++) {
      const violation = await run(version, seed);
      if (violation !== null) failed.push(violation);
    }
    assert.deepEqual(failed, []);
  });
});
