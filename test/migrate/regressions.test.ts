// What the random histories found in the engine, each as the shortest story that shows it. M1, M2, … are their ids.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { mergeKeys } from '../../adapters/etcd/merge.ts';
import type { Instance } from '../../src/model/instance.ts';
import { nothingLeft, viewsAre } from './checker.ts';
import type { Fields } from './plain-registry.ts';
import { type Sidecar, World, type WorldOptions } from './world.ts';

const S = 'default/a';
const at = (port: number): string => `10.0.0.1:${port}`;

/** A world with three providers in `from` and a migration that mirrors them. */
async function mirroring(
  options: WorldOptions,
  order: Record<string, unknown>,
  body: (world: World, weir: Sidecar) => Promise<void>,
): Promise<void> {
  const world = new World(options);
  try {
    for (const port of [1, 2, 3]) joins(world, 'from', port);
    const weir = await world.sidecar('weir-1');
    await world.run(3_000);
    await weir.migrations.create(world.spec(order));
    await weir.migrations.step('m1', { kind: 'start' });
    await world.run(15_000);
    await body(world, weir);
  } finally {
    await world.close();
  }
}

function joins(world: World, side: 'from' | 'to', port: number, fields: Fields = {}): void {
  world[side].provide(S, at(port), fields);
  world.live(S, at(port));
}

function shown(weir: Sidecar): string[] {
  return weir
    .view(S)
    .instances.map(({ address }) => address)
    .sort();
}

describe('found by random histories of migrations', () => {
  it('M1: a native beside our copy is no copy: it stays in the view when it leaves the origin, also while writes are frozen', () =>
    mirroring({ to: 'nodes' }, {}, async (world, weir) => {
      await weir.migrations.freeze(true);
      joins(world, 'to', 1);
      await world.run(5_000);
      world.from.leave(S, at(1));
      await world.run(5_000);
      assert.deepEqual(shown(weir), [at(1), at(2), at(3)]);
    }));

  it('M2: the copy of another migration is no extra of ours, and no copy that a finish waits for', () =>
    mirroring({}, {}, async (world, weir) => {
      const markers = [
        ['weir-origin', 'elsewhere'],
        ['weir-migration', 'another'],
        ['weir-hops', '1'],
      ] as const;
      world.to.provide(S, at(9), { metadata: new Map(markers) }, 'tool');
      await world.run(5_000);
      assert.equal((await weir.migrations.verify('m1')).outcome, 'ok');
      await weir.migrations.step('m1', { kind: 'shift', weight: 100 });
      await world.run(1_000);
      await weir.migrations.step('m1', { kind: 'cutover' });
      for (const port of [1, 2, 3]) world.to.provide(S, at(port));
      await world.run(10_000);
      await weir.migrations.step('m1', { kind: 'finish', keepCopies: false });
    }));

  it('M3: a registry that has no word for health is not held to it by verify', () =>
    mirroring({ to: 'keys' }, {}, async (world, weir) => {
      joins(world, 'to', 1);
      world.from.provide(S, at(1), { health: 'unhealthy' });
      await world.run(10_000);
      assert.equal((await weir.migrations.verify('m1')).outcome, 'ok');
    }));

  for (const jump of [-86_400_000, 86_400_000]) {
    it(`M4: a wall clock that jumps by ${jump / 3_600_000} h neither stretches the soak nor cuts it short`, () =>
      mirroring({}, { gates: { soak: '2m' } }, async (world, weir) => {
        await world.run(60_000);
        world.clock.jumpWall(jump);
        await assert.rejects(weir.migrations.step('m1', { kind: 'shift', weight: 10 }), /s more \(gates\.soak\)/);
        await world.run(100_000);
        await weir.migrations.step('m1', { kind: 'shift', weight: 10 });
      }));
  }

  it('M5: a cutover is judged by a verify of now, not by one of an outage long over', () =>
    mirroring({}, {}, async (world, weir) => {
      await weir.migrations.verify('m1');
      await weir.migrations.step('m1', { kind: 'shift', weight: 100 });
      world.to.down = true;
      world.to.cut();
      await world.run(2_000);
      assert.equal((await weir.migrations.verify('m1')).outcome, 'unsafe');
      world.to.down = false;
      await world.run(400_000);
      await weir.migrations.step('m1', { kind: 'cutover' });
    }));

  it('M6: a native that the target lost, and the catalog holds, does not keep its copy away, nor let a finish lose it', () =>
    mirroring({}, {}, async (world, weir) => {
      for (const port of [1, 2, 3]) world.to.provide(S, at(port));
      await world.run(10_000);
      world.to.lose(() => true);
      assert.ok(await world.until(() => world.to.records().length === 3, 30_000), 'copies stand in the place of what was lost');
      viewsAre([weir.view(S)], world.lives, world.clock.now());
    }));

  it('M7: of many lost copies all are put again at once, not one a minute', () =>
    mirroring({ to: 'nodes' }, { limits: { callsPerSecond: 5 } }, async (world) => {
      for (let port = 10; port < 22; port++) joins(world, 'from', port);
      await world.run(30_000);
      assert.equal(world.to.records().length, 15);
      world.to.lose(() => true);
      assert.ok(await world.until(() => world.to.records().length === 15, 30_000), `${world.to.records().length} of 15 are back`);
    }));

  it('M8: an early mover that has a return copy still forbids an abort: the abort takes that copy away', () =>
    mirroring({}, {}, async (world, weir) => {
      joins(world, 'to', 9);
      await world.run(10_000);
      assert.equal(world.from.records().filter(({ writer }) => writer === 'sidecar').length, 1);
      await assert.rejects(weir.migrations.step('m1', { kind: 'abort', force: false }), /10\.0\.0\.1:9 is only in new/);
    }));

  it('M9: an abort ends when the target shows no copy, not when it says yes: what goes on standing is removed again', () =>
    mirroring({ to: 'standalone' }, {}, async (world, weir) => {
      await world.run(60_000);
      await weir.migrations.step('m1', { kind: 'abort', force: false });
      assert.ok(await world.until(() => weir.migrations.status('m1').doc?.phase === 'aborted', 60_000));
      nothingLeft(world.to.records().map((one) => ({ registry: 'new', ...one })));
    }));

  it('M10: of a native and our copy under two keys of an etcd both are seen, whichever was written last', () => {
    const found = (id: string, metadata: readonly (readonly [string, string])[], modRevision: bigint) => {
      const at = { host: '10.0.0.1', port: 1, transport: 'tcp', weight: 100, health: 'unknown', isolated: false } as const;
      const instance: Instance = { id, ...at, metadata: new Map(metadata) };
      return { record: { instances: [instance], rejected: [], service: null }, modRevision };
    };
    const copy = [
      ['weir-origin', 'old'],
      ['weir-migration', 'm1'],
      ['weir-hops', '1'],
    ] as const;
    for (const newer of [1n, 9n]) {
      const { instances } = mergeKeys([found('native', [], 5n), found('old-1', copy, newer)]);
      assert.deepEqual(
        instances.map(({ id }) => id),
        ['native', 'old-1'],
      );
    }
    assert.equal(mergeKeys([found('a', [], 5n), found('b', [], 6n)]).instances.length, 1, 'two natives of one address are one');
  });
});
