// The engine as its callers see it, in a world of two embedded registries on a fake clock: what is refused when and with which words,
// what goes on meanwhile, and what every restart keeps.
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { clusterUpdate } from '../../src/health/cluster-message.ts';
import { WeirError } from '../../src/kernel/errors.ts';
import type { Phase } from '../../src/migrate/migration.ts';
import type { Step } from '../../src/migrate/phases.ts';
import { DEFAULT_SERVICE_POLICY } from '../../src/model/policy.ts';
import { mirrored, nothingLeft, quiet, sameMembers, viewsAre } from './checker.ts';
import type { DialectName } from './plain-registry.ts';
import { type Sidecar, World, type WorldOptions } from './world.ts';

const S = 'default/a';

interface Rig {
  readonly world: World;
  readonly weir: Sidecar;
}

/** A world with three providers in `from`, one sidecar, and what the body does. */
async function rig(options: WorldOptions, body: (rig: Rig) => Promise<void>): Promise<void> {
  const world = new World(options);
  try {
    for (const port of [1, 2, 3]) join_(world, 'from', port);
    const weir = await world.sidecar('weir-1');
    await world.run(3_000);
    await body({ world, weir });
  } finally {
    await world.close();
  }
}

function join_(world: World, side: 'from' | 'to', port: number, service = S): void {
  world[side].provide(service, `10.0.0.1:${port}`);
  world.live(service, `10.0.0.1:${port}`);
}

const START: Step = { kind: 'start' };
const CUTOVER: Step = { kind: 'cutover' };
const ROLLBACK: Step = { kind: 'rollback' };
const shift = (weight: number): Step => ({ kind: 'shift', weight });
const finish = (keepCopies = false): Step => ({ kind: 'finish', keepCopies });
const abort = (force = false): Step => ({ kind: 'abort', force });

/** Brings m1 to a phase by the rules. */
async function bring({ world, weir }: Rig, phase: Phase): Promise<void> {
  const { migrations } = weir;
  await migrations.create(world.spec());
  if (phase === 'plan') return;
  await migrations.step('m1', START);
  await world.run(3_000);
  await migrations.verify('m1');
  if (phase === 'mirror') return;
  if (phase === 'aborting' || phase === 'aborted') {
    if (phase === 'aborting') world.to.down = true;
    await migrations.step('m1', abort());
    return void (await world.run(3_000));
  }
  await migrations.step('m1', shift(100));
  await world.run(2_000);
  if (phase === 'shift') return;
  await migrations.step('m1', CUTOVER);
  await world.run(2_000);
  if (phase === 'cutover') return;
  await migrations.step('m1', finish(true));
  await world.run(5_000);
}

async function refused(work: Promise<unknown>, code: string, words: RegExp): Promise<WeirError> {
  try {
    await work;
  } catch (thrown) {
    assert.ok(thrown instanceof WeirError, String(thrown));
    assert.equal(thrown.code, code, thrown.message);
    assert.match(`${thrown.message} ${JSON.stringify(thrown.details)}`, words);
    return thrown;
  }
  assert.fail(`it was taken, ${code} was due`);
}

const phaseOf = ({ migrations }: Sidecar, id = 'm1'): Phase | undefined => migrations.status(id).doc?.phase;
const writes = (world: World): number => world.from.carried.length + world.to.carried.length;

describe('a step', () => {
  const STEPS = {
    start: START,
    shift: shift(50),
    cutover: CUTOVER,
    rollback: ROLLBACK,
    finish: finish(),
    abort: abort(),
  } as const;
  const ALLOWED: Readonly<Record<Phase, readonly (keyof typeof STEPS)[]>> = {
    plan: ['start', 'abort'],
    mirror: ['shift', 'abort'],
    shift: ['shift', 'cutover', 'rollback', 'abort'],
    cutover: ['rollback'],
    finished: [],
    aborting: [],
    aborted: [],
  };
  const phases: readonly Phase[] = ['plan', 'mirror', 'shift', 'cutover', 'finished', 'aborting', 'aborted'];
  for (const phase of phases) {
    it(`in ${phase} is taken where the page allows it, and else refused with nothing changed`, async () => {
      for (const kind of Object.keys(STEPS) as (keyof typeof STEPS)[]) {
        await rig({}, async (at) => {
          await bring(at, phase);
          const before = [at.weir.view(S)];
          if (ALLOWED[phase].includes(kind)) await at.weir.migrations.step('m1', STEPS[kind]);
          else {
            // A finish in cutover is asked for in the right phase: the copies that are left forbid it.
            await refused(
              at.weir.migrations.step('m1', STEPS[kind]),
              'MIGRATION_PHASE',
              /finish|allowed|roll|use abort|is a copy|the migration is/,
            );
            assert.equal(phaseOf(at.weir), phase, `${kind} in ${phase}`);
          }
          if (phase !== 'finished') sameMembers(before, [{ ...at.weir.view(S) }], kind);
        });
      }
    });
  }

  it('to collect is refused while the migration runs, and forgets an ended one', () =>
    rig({}, async (at) => {
      await bring(at, 'mirror');
      await refused(at.weir.migrations.collect('m1'), 'MIGRATION_PHASE', /must have ended/);
      await at.weir.migrations.step('m1', abort());
      assert.ok(await at.world.until(() => phaseOf(at.weir) === 'aborted'));
      const collecting = at.weir.migrations.collect('m1');
      await at.world.run(2_000);
      await collecting;
      await refused(
        Promise.resolve().then(() => at.weir.migrations.status('m1')),
        'MIGRATION_NOT_FOUND',
        /m1/,
      );
    }));
});

describe('an order', () => {
  it('that overlaps a running one is refused with both patterns; after its end it is taken', () =>
    rig({}, async (at) => {
      await bring(at, 'mirror');
      const before = writes(at.world);
      await refused(
        at.weir.migrations.create(at.world.spec({ id: 'm2', services: ['x/*', '*/a'] })),
        'MIGRATION_CONFLICT',
        /\*\/a.*default\/\*/,
      );
      await refused(at.weir.migrations.create(at.world.spec()), 'MIGRATION_CONFLICT', /m1/);
      assert.equal(writes(at.world), before, 'nothing is written');
      assert.equal(phaseOf(at.weir), 'mirror', 'what ran goes on');
      await at.weir.migrations.step('m1', abort());
      assert.ok(await at.world.until(() => phaseOf(at.weir) === 'aborted'));
      await at.weir.migrations.create(at.world.spec({ id: 'm2' }));
    }));

  it('that sends two services to one name is refused with both', () =>
    rig({}, async ({ world, weir }) => {
      join_(world, 'from', 9, 'default/b');
      await world.run(1_000);
      await refused(weir.migrations.create(world.spec({ mapping: { name: 'one' } })), 'MIGRATION_INVALID', /one/);
      assert.equal(writes(world), 0);
    }));

  it('to a source that cannot register, or that is not configured, is refused', async () => {
    await rig({ from: 'embedded', to: 'readOnly' }, async ({ world, weir }) => {
      await refused(weir.migrations.create(world.spec()), 'MIGRATION_INVALID', /cannot register: it can be `from` only/);
      await refused(weir.migrations.create(world.spec({ to: 'nowhere' })), 'SOURCE_NOT_FOUND', /nowhere.*old.*new/);
      assert.deepEqual(weir.migrations.list(), []);
    });
    await rig({ from: 'readOnly' }, async ({ world, weir }) => {
      await refused(weir.migrations.create(world.spec({ direction: 'twoWay' })), 'MIGRATION_INVALID', /twoWay/);
    });
  });

  it('for a target that is not there warns, and is not settled before it has come', async () => {
    const world = new World();
    try {
      for (const port of [1, 2, 3]) join_(world, 'from', port);
      world.to.down = true;
      const weir = await world.sidecar('weir-1');
      await world.run(3_000);
      await weir.migrations.create(world.spec());
      assert.match((await weir.migrations.plan('m1')).warnings.join(), /new is connecting: nothing is written before it is live/);
      await weir.migrations.step('m1', START);
      await world.run(10_000);
      const worker = () => weir.migrations.status('m1').worker ?? assert.fail('no worker');
      assert.equal(worker().settled, false);
      assert.match(worker().waiting.join(), /new, which is connecting/);
      world.to.down = false;
      assert.ok(await world.until(() => world.to.records().length === 3 && worker().settled));
    } finally {
      await world.close();
    }
  });

  it('for a target whose token may not write, writes nothing, says so, and goes on once it may', () =>
    rig({}, async ({ world, weir }) => {
      world.to.denied = true;
      await weir.migrations.create(world.spec());
      await weir.migrations.step('m1', START);
      await world.run(10_000);
      assert.match(JSON.stringify(weir.migrations.status('m1').worker?.errors), /denied: the token may not write/);
      await weir.migrations.verify('m1');
      await refused(weir.migrations.step('m1', shift(10)), 'MIGRATION_PHASE', /unsafe/);
      assert.equal(world.to.records().length, 0);
      world.to.denied = false;
      assert.ok(await world.until(() => world.to.records().length === 3));
    }));
});

describe('a journal', () => {
  for (const damage of ['cut short', 'of another version'] as const) {
    it(`that is ${damage} makes its migration broken and keeps what it says of reading; the others go on`, async () => {
      const directory = await mkdtemp(join(tmpdir(), 'weir-engine-'));
      try {
        await rig({ directory }, async ({ world, weir }) => {
          join_(world, 'from', 9, 'other/b');
          await world.run(1_000);
          await weir.migrations.create(world.spec());
          await weir.migrations.create(world.spec({ id: 'm2', services: ['other/*'] }));
          for (const id of ['m1', 'm2']) await weir.migrations.step(id, START);
          await world.run(3_000);
          await weir.migrations.verify('m1');
          await weir.migrations.step('m1', shift(50));
          await world.run(1_000);
          weir.kill();
          await world.clock.settle();
          const path = join(directory, 'm1.json');
          const text = await readFile(path, 'utf8');
          if (damage === 'cut short') await truncate(path, Math.floor(text.length / 2));
          else await writeFile(path, text.replace('"version":1', '"version":7'));
          const before = writes(world);
          const next = await world.sidecar('weir-1');
          await world.run(5_000);
          assert.match(
            next.migrations.status('m1').broken ?? '',
            damage === 'cut short' ? /m1\.json:1: no migration document/ : /version 7/,
          );
          await refused(next.migrations.step('m1', ROLLBACK), 'MIGRATION_JOURNAL', /m1\.json/);
          await refused(next.migrations.create(world.spec({ services: ['new/*'] })), 'MIGRATION_CONFLICT', /m1/);
          assert.match(next.view(S).merge, /weighted/, 'what was read last stays in force');
          join_(world, 'from', 10, 'other/b');
          join_(world, 'from', 4);
          await world.run(5_000);
          assert.equal(world.to.records('other/b').length, 2, 'the other one goes on');
          assert.equal(world.to.records(S).length, 3, 'nothing is written for the broken one');
          assert.equal(writes(world), before + 1);
        });
      } finally {
        await rm(directory, { recursive: true, force: true });
      }
    });
  }
});

describe('the gates of a shift', () => {
  const sides = (requests: number, failed: number, slow = false) => {
    const latency = new Float64Array(64);
    latency[slow ? 30 : 2] = requests;
    return { requests, failed, latency };
  };

  it('stop it when the new side fails more than allowed; less weight is taken, and clears the stop', () =>
    rig({}, async ({ world, weir }) => {
      await weir.migrations.create(world.spec({ gates: { maxErrorRate: 0.01 } }));
      await weir.migrations.step('m1', START);
      await world.run(3_000);
      await weir.migrations.verify('m1');
      await weir.migrations.step('m1', shift(10));
      world.traffic.set('new', sides(0, 0));
      await world.run(2_000);
      world.traffic.set('new', sides(1_000, 50));
      await world.run(2_000);
      assert.match(
        weir.migrations.status('m1').doc?.stopped?.reason ?? '',
        /5\.0 % of 1000 requests over new failed, maxErrorRate is 1\.0 %/,
      );
      assert.equal(phaseOf(weir), 'shift');
      await refused(weir.migrations.step('m1', shift(50)), 'MIGRATION_PHASE', /stopped.*lower the weight/);
      await refused(weir.migrations.step('m1', CUTOVER), 'MIGRATION_PHASE', /stopped/);
      await weir.migrations.step('m1', shift(5));
      assert.equal(weir.migrations.status('m1').doc?.stopped, null);
    }));

  it('roll it back where asked: within 2 s every request is drawn as before, and members stay', () =>
    rig({}, async ({ world, weir }) => {
      await weir.migrations.create(world.spec({ gates: { maxP99Ratio: 2, onBreach: 'rollback' } }));
      await weir.migrations.step('m1', START);
      await world.run(3_000);
      await weir.migrations.verify('m1');
      await weir.migrations.step('m1', shift(50));
      for (const id of ['old', 'new']) world.traffic.set(id, sides(0, 0));
      await world.run(2_000);
      const before = [weir.view(S)];
      world.traffic.set('old', sides(500, 0));
      world.traffic.set('new', sides(500, 0, true));
      await world.run(2_000);
      assert.equal(phaseOf(weir), 'mirror');
      assert.match(weir.migrations.status('m1').doc?.stopped?.reason ?? '', /p99 over new/);
      assert.match(weir.view(S).merge, /"prefer","order":\["old","new"\]/);
      sameMembers(before, [weir.view(S)], 'the automatic rollback');
      assert.ok(weir.events.recent(100).some(({ type }) => type === 'migration_stopped'));
      assert.ok(world.audit.some(({ what }) => what === 'migration-auto-rollback'));
    }));

  it('of the soak want verify to say ok, and nothing else, for the whole time; verify runs by itself', () =>
    rig({}, async ({ world, weir }) => {
      await weir.migrations.create(world.spec({ gates: { soak: '3m' } }));
      await weir.migrations.step('m1', START);
      await refused(weir.migrations.step('m1', shift(10)), 'MIGRATION_PHASE', /no verify has run yet/);
      await world.run(60_000);
      assert.equal(weir.migrations.status('m1').doc?.lastVerify?.outcome, 'ok');
      await refused(weir.migrations.step('m1', shift(10)), 'MIGRATION_PHASE', /1\d\d s more \(gates\.soak\)/);
      world.die(S, '10.0.0.1:3');
      await world.run(70_000);
      await refused(weir.migrations.step('m1', shift(10)), 'MIGRATION_PHASE', /the last verify said drift/);
      world.live(S, '10.0.0.1:3');
      await world.run(80_000);
      await refused(weir.migrations.step('m1', shift(10)), 'MIGRATION_PHASE', /s more \(gates\.soak\)/);
      world.clock.jumpWall(86_400_000);
      await refused(weir.migrations.step('m1', shift(10)), 'MIGRATION_PHASE', /s more \(gates\.soak\)/);
      await world.run(200_000);
      await weir.migrations.step('m1', shift(10));
    }));
});

describe('a fleet', () => {
  it('shifts when every sidecar has reported the step before; a dead one is named until it is forgotten', () =>
    rig({ shared: true }, async ({ world, weir }) => {
      const other = await world.sidecar('weir-2');
      await weir.migrations.create(world.spec());
      await other.migrations.step('m1', START).catch((thrown: unknown) => assert.fail(String(thrown)));
      await world.run(5_000);
      await weir.migrations.verify('m1');
      await weir.migrations.step('m1', shift(10));
      await world.run(2_000);
      assert.deepEqual(other.migrations.status('m1').sidecars, ['weir-1', 'weir-2']);
      other.kill();
      await world.run(40_000);
      const error = await refused(weir.migrations.step('m1', shift(50)), 'MIGRATION_PHASE', /weir-2/);
      assert.match(error.message, /weir migrate forget/);
      await weir.migrations.step('m1', ROLLBACK);
      await refused(weir.migrations.step('m1', shift(50)), 'MIGRATION_PHASE', /weir-2/);
      await weir.migrations.forget('m1', 'weir-2');
      await weir.migrations.step('m1', shift(50));
      assert.equal(weir.migrations.status('m1').doc?.weight, 50);
    }));

  it('has one writer; when it dies another writes within 10 s, no copy is written twice and none expires', () =>
    rig({ shared: true }, async ({ world, weir }) => {
      const others = [await world.sidecar('weir-2'), await world.sidecar('weir-3')];
      await weir.migrations.create(world.spec());
      await weir.migrations.step('m1', START);
      await world.run(60_000);
      const owners = (): Sidecar[] =>
        world.sidecars.filter(({ caller, migrations }) => !caller.dead && migrations.status('m1').worker?.owner === true);
      const [first = assert.fail('nobody writes')] = owners();
      assert.equal(owners().length, 1);
      const done = world.to.carried.length;
      assert.deepEqual(new Set(world.to.carried.map(({ by }) => by)), new Set([first.caller.name]));
      first.kill();
      assert.ok(await world.until(() => owners().length === 1, 10_000), 'another one writes within 10 s');
      const [next = assert.fail('nobody writes')] = owners();
      join_(world, 'from', 4);
      assert.ok(await world.until(() => world.to.records().length === 4, 5_000));
      await world.run(300_000);
      assert.equal(world.to.records().length, 4, 'none expired');
      assert.ok(!world.to.changes.some(({ by }) => by === 'expiry'));
      // The epoch of the new owner is written into each copy once.
      assert.ok(world.to.carried.length - done <= 4, `${world.to.carried.length - done} writes after the change of owners`);
      assert.ok(others.length === 2 && world.to.carried.slice(done).every(({ by }) => by === next.caller.name));
    }));

  it('keeps the phase and the draw of its last word while the store is lost, also over a restart', () =>
    rig({ shared: true }, async (at) => {
      await bring(at, 'shift');
      at.world.store.setDown(true);
      await at.world.run(20_000);
      assert.match(at.weir.view(S).merge, /"old","share":0.*"new","share":100/);
      at.weir.kill();
      const next = await at.world.sidecar('weir-1');
      await at.world.run(3_000);
      assert.match(next.view(S).merge, /"old","share":0.*"new","share":100/);
      await refused(next.migrations.step('m1', ROLLBACK), 'MIGRATION_NOT_FOUND', /m1/);
      at.world.store.setDown(false);
      await at.world.run(15_000);
      await next.migrations.step('m1', ROLLBACK);
    }));
});

describe('the stop switch', () => {
  it('stops every write but the beats at once, and a restart keeps it', () =>
    rig({}, async (at) => {
      await bring(at, 'mirror');
      const { world } = at;
      await at.weir.migrations.freeze(true);
      const before = writes(world);
      join_(world, 'from', 4);
      world.from.leave(S, '10.0.0.1:1');
      world.die(S, '10.0.0.1:1');
      await world.run(600_000);
      at.weir.kill();
      const next = await world.sidecar('weir-1');
      await world.run(60_000);
      assert.equal(writes(world), before);
      assert.deepEqual(
        world.to
          .records()
          .map(({ address }) => address)
          .sort(),
        [1, 2, 3].map((n) => `10.0.0.1:${n}`),
        'no copy expired',
      );
      assert.match(JSON.stringify(next.migrations.status('m1').worker?.waiting), /frozen: nothing is written/);
      viewsAre([next.view(S)], world.lives, world.clock.now());
      await next.migrations.freeze(false);
      assert.ok(
        await world.until(
          () =>
            world.to
              .records()
              .map(({ address }) => address)
              .sort()
              .join() === '10.0.0.1:2,10.0.0.1:3,10.0.0.1:4',
        ),
      );
    }));

  it('of the configuration stops this sidecar whatever the documents say', () =>
    rig({}, async (at) => {
      await bring(at, 'mirror');
      at.weir.migrations.freezeHere(true);
      join_(at.world, 'from', 4);
      await at.world.run(10_000);
      assert.equal(at.world.to.records().length, 3);
      at.weir.migrations.freezeHere(false);
      assert.ok(await at.world.until(() => at.world.to.records().length === 4));
    }));
});

describe('a restart', () => {
  for (const phase of ['plan', 'mirror', 'shift', 'cutover', 'aborting', 'finished'] as const) {
    for (const files of [false, true]) {
      it(`in ${phase} goes on from the ${files ? 'files' : 'store'}: the same phase and draw, nothing written twice`, async () => {
        const directory = files ? await mkdtemp(join(tmpdir(), 'weir-engine-')) : null;
        try {
          await rig(directory === null ? {} : { directory }, async (at) => {
            await bring(at, phase);
            await at.world.run(90_000);
            const before = { writes: writes(at.world), view: at.weir.view(S), status: at.weir.migrations.status('m1').doc };
            at.weir.kill();
            await at.world.run(5_000);
            const next = await at.world.sidecar('weir-1');
            await at.world.run(30_000);
            assert.equal(phaseOf(next), phase);
            assert.equal(next.migrations.status('m1').doc?.weight, before.status?.weight);
            assert.equal(next.view(S).merge, before.view.merge);
            sameMembers([{ ...before.view, sidecar: '' }], [{ ...next.view(S), sidecar: '' }], 'the restart');
            assert.equal(writes(at.world), before.writes);
            if (phase !== 'aborting') return;
            at.world.to.down = false;
            assert.ok(await at.world.until(() => phaseOf(next) === 'aborted'));
            nothingLeft(at.world.to.records().map((one) => ({ registry: 'new', ...one })));
          });
        } finally {
          if (directory !== null) await rm(directory, { recursive: true, force: true });
        }
      });
    }
  }
});

describe('an end', () => {
  it('that keeps copies leaves ordinary records that need no weir, and collect takes them away', () =>
    rig({}, async (at) => {
      const { world, weir } = at;
      await bring(at, 'finished');
      const kept = world.to.records();
      assert.equal(kept.length, 3);
      for (const { metadata, lease } of kept) {
        assert.equal(metadata.get('weir-kept'), 'old');
        assert.ok(!metadata.has('weir-origin'));
        assert.equal(lease, null, 'nobody has to beat for it');
      }
      world.from.leave(S, '10.0.0.1:1');
      await world.run(600_000);
      assert.equal(world.to.records().length, 3, 'the mirror has ended for them');
      viewsAre([weir.view(S)], world.lives, world.clock.now());
      const collecting = weir.migrations.collect('m1');
      await world.run(10_000);
      await collecting;
      nothingLeft(world.to.records().map((one) => ({ registry: 'new', ...one })));
    }));

  it('by abort waits for a target that is away, over restarts, and then leaves nothing; an early mover forbids it unless forced', () =>
    rig({}, async (at) => {
      const { world, weir } = at;
      await bring(at, 'mirror');
      join_(world, 'to', 9);
      await world.run(5_000);
      assert.equal(world.from.records().filter(({ writer }) => writer === 'sidecar').length, 1, 'a return copy');
      await refused(weir.migrations.step('m1', abort()), 'MIGRATION_UNSAFE', /10\.0\.0\.1:9 is only in new|9/);
      world.from.down = true;
      world.from.cut();
      await weir.migrations.step('m1', abort(true));
      await world.run(30_000);
      assert.equal(phaseOf(weir), 'aborting');
      await refused(weir.migrations.create(world.spec({ id: 'm2' })), 'MIGRATION_CONFLICT', /aborting/);
      weir.kill();
      const next = await world.sidecar('weir-1');
      await world.run(30_000);
      assert.equal(phaseOf(next), 'aborting');
      world.from.down = false;
      assert.ok(await world.until(() => phaseOf(next) === 'aborted', 120_000));
      nothingLeft(world.registries.flatMap((one) => one.records().map((record) => ({ registry: one.id, ...record }))));
    }));
});

describe('two ways', () => {
  const pairs: readonly (readonly [DialectName, DialectName])[] = [
    ['embedded', 'embedded'],
    ['keys', 'central'],
    ['nodes', 'keys'],
  ];
  for (const [from, to] of pairs) {
    it(`coexist for three hours without a ping-pong: ${from} and ${to}`, () =>
      rig({ from, to }, async ({ world, weir }) => {
        for (const port of [11, 12]) join_(world, 'to', port);
        await world.run(3_000);
        await weir.migrations.create(world.spec({ direction: 'twoWay' }));
        await weir.migrations.step('m1', START);
        await world.run(60_000);
        const settled = world.clock.now();
        await world.run(10_800_000, 60_000);
        for (const registry of world.registries) quiet(registry.carried, settled);
        const speaks = { weight: true, health: false, isolated: false, metadata: true };
        mirrored(
          world.registries.flatMap((one) => one.records().map((record) => ({ registry: one.id, ...record }))),
          {
            from: 'old',
            to: 'new',
            twoWay: true,
            baseline: new Set(),
            speaks: { old: speaks, new: speaks },
            registers: { old: true, new: true },
          },
        );
        viewsAre([weir.view(S)], world.lives, world.clock.now());
      }));
  }
});

describe('a sticky header', () => {
  it('goes with the shift into the message for the data plane, and with the cutover out of it', () =>
    rig({}, async ({ world, weir }) => {
      await weir.migrations.create(world.spec({ sticky: { header: 'X-User' } }));
      await weir.migrations.step('m1', START);
      await world.run(3_000);
      await weir.migrations.verify('m1');
      const message = () => {
        const view = weir.catalog.get(S) ?? assert.fail('no view');
        const words = view.instances.map(() => ({ verdict: 'healthy' as const, recoveredAt: null }));
        return clusterUpdate(view, words, DEFAULT_SERVICE_POLICY.cluster, view.revision);
      };
      assert.equal(message().sticky, undefined);
      await weir.migrations.step('m1', shift(30));
      await world.run(1_000);
      assert.equal(message().sticky, 'x-user');
      assert.deepEqual(message().groups, [
        { id: 'old', share: 70 },
        { id: 'new', share: 30 },
      ]);
      await weir.migrations.step('m1', shift(100));
      await world.run(1_000);
      await weir.migrations.verify('m1');
      await weir.migrations.step('m1', CUTOVER);
      await world.run(1_000);
      assert.equal(message().sticky, undefined);
      assert.equal(message().groups, undefined);
    }));
});
