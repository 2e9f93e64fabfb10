// Random histories of several sources against the whole catalog: what must hold after every step and at the end, whatever happened.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { addresses, CatalogFixture, instance, source } from '../../test/support/catalog-fixture.ts';
import { settle } from '../../test/support/fake-clock.ts';
import { hostPort } from '../kernel/address.ts';
import { seededRandom } from '../kernel/random.ts';
import { markersOf } from './copies.ts';
import { compareIdentity } from './merge.ts';

const SERVICES = ['default/s0', 'default/s1', 'default/s2', 'game/s3'];
const SOURCES = ['a', 'b', 'c'];

interface Life {
  readonly fixture: CatalogFixture;
  readonly below: (n: number) => number;
  /** What each source answered last, by `source service`; absent when it never did. */
  readonly said: Map<string, Set<string>>;
  readonly lists: Map<string, Set<string>>;
}

function pick<T>(life: Life, list: readonly T[]): T {
  const found = list[life.below(list.length)];
  if (found === undefined) throw new RangeError('empty list');
  return found;
}

/** One random event. Answers the addresses that it may remove legitimately: only a complete answer names any. */
async function step(life: Life): Promise<'answer' | 'other'> {
  const { fixture, below } = life;
  const [id, service] = [pick(life, SOURCES), pick(life, SERVICES)];
  const what = below(20);
  if (what < 9) {
    const pool = addresses(12, SERVICES.indexOf(service));
    const given = pool.filter(() => below(3) > 0);
    const rejected = below(6) === 0 ? [{ nativeId: `id-${pick(life, pool)}`, reason: 'made bad' }] : [];
    const origin = pick(life, SOURCES);
    const instances = given.map((address) => {
      const copied = below(8) === 0 && origin !== id;
      return instance(address, {
        weight: below(3) * 50,
        health: pick(life, ['healthy', 'unhealthy', 'unknown'] as const),
        isolated: below(10) === 0,
        ...(copied ? { metadata: new Map(markersOf({ origin, migration: 'm' })) } : {}),
      });
    });
    fixture.say(id, service, instances, { rejected, epoch: `e${below(2)}` });
    life.said.set(`${id} ${service}`, new Set(given));
    return 'answer';
  }
  if (what === 9 || what === 10) {
    fixture.absent(id, service);
    life.said.set(`${id} ${service}`, new Set());
    return 'answer';
  }
  if (what === 11) {
    const names = SERVICES.filter(() => below(4) > 0);
    fixture.list(id, names, { complete: below(3) > 0 });
    return 'answer';
  }
  if (what === 12) {
    fixture.fail(addresses(12, below(4)), below(5));
    fixture.catalog.touch(service);
    return 'answer';
  }
  if (what === 13) {
    fixture.catalog.releaseHolds(below(2) === 0 ? { service } : { source: id });
    return 'answer';
  }
  if (what === 14) fixture.lose(id, null, pick(life, ['lost', 'denied', 'malformed', 'limit'] as const));
  else if (what === 15) fixture.lose(id, service, pick(life, ['lost', 'denied'] as const));
  else if (what === 16)
    fixture.catalog.unchanged(id, { namespace: service.split('/')[0] ?? '', name: service.split('/')[1] ?? '' });
  else {
    await fixture.clock.advance(pick(life, [10, 150, 1_000, 12_000]));
    // Time confirms holds, too.
    return 'answer';
  }
  return 'other';
}

function check(life: Life, seed: number, at: number): void {
  const { fixture } = life;
  const where = `seed ${seed}, step ${at}`;
  for (const service of SERVICES) {
    const view = fixture.catalog.get(service);
    if (view === undefined) continue;
    for (let i = 1; i < view.instances.length; i++) {
      const [one, two] = [view.instances[i - 1], view.instances[i]];
      assert.ok(one !== undefined && two !== undefined && compareIdentity(one, two) < 0, `${where}: not sorted, or twice`);
    }
    for (const one of view.instances) {
      assert.ok(one.provenance.length > 0, `${where}: an instance without provenance`);
      assert.ok(!one.held || one.provenance.some((p) => p.held), `${where}: held by nobody`);
      assert.ok(Number.isInteger(one.weight) && (!one.isolated || one.weight === 0), `${where}: weight`);
    }
    assert.ok(view.revision <= fixture.catalog.index);
  }
  for (const id of SOURCES) {
    const summary = fixture.catalog.sourceSummary(id);
    const states = SERVICES.flatMap((service) => fixture.catalog.serviceStates(service).filter((one) => one.source === id));
    const sum = (field: 'instances' | 'held'): number => states.reduce((total, one) => total + one[field], 0);
    assert.deepEqual([summary?.instances, summary?.held], [sum('instances'), sum('held')], `${where}: counts of ${id}`);
  }
  const held = fixture.catalog.holds().reduce((total, hold) => total + hold.addresses.length, 0);
  const counted = SOURCES.reduce((total, id) => total + (fixture.catalog.sourceSummary(id)?.held ?? 0), 0);
  assert.equal(held, counted, `${where}: the book of holds`);
}

/** What sources listed last is in the view, unless it is a copy whose origin says otherwise. */
function checkPresence(life: Life, seed: number): void {
  for (const service of SERVICES) {
    const shown = new Set(life.fixture.catalog.get(service)?.instances.map((one) => hostPort(one.host, one.port)));
    for (const id of SOURCES) {
      for (const address of life.said.get(`${id} ${service}`) ?? [])
        assert.ok(shown.has(address), `seed ${seed}: ${id} ${service} ${address}`);
    }
  }
}

describe('catalog: random histories', () => {
  it('100 histories of 120 events: sorted, counted, never shrunk by a failure, converged at the end, nothing left behind', async () => {
    for (let seed = 1; seed <= 100; seed++) {
      const random = seededRandom(seed);
      const fixture = new CatalogFixture({ sources: SOURCES.map((id) => source(id)) });
      const life: Life = { fixture, below: (n) => Math.floor(random() * n), said: new Map(), lists: new Map() };
      let lastIndex = 0;
      for (let at = 0; at < 120; at++) {
        const sizes = SERVICES.map((service) => fixture.size(service));
        const kind = await step(life);
        if (kind === 'other') {
          assert.deepEqual(
            SERVICES.map((service) => fixture.size(service)),
            sizes,
            `seed ${seed}, step ${at}: a failure changed members`,
          );
        }
        check(life, seed, at);
        assert.ok(fixture.catalog.index >= lastIndex);
        lastIndex = fixture.catalog.index;
      }
      await converge(life, seed);
    }
  });
});

/** All sources come back whole and native, probes pass, the operator lets go: the view is the plain union and no hold is left. */
async function converge(life: Life, seed: number): Promise<void> {
  const { fixture } = life;
  fixture.failing.clear();
  for (const id of SOURCES) {
    fixture.list(id, SERVICES);
    for (const [i, service] of SERVICES.entries()) {
      const given = addresses(12, i).filter((_, n) => (n + id.length) % 2 === 0 || id === 'a');
      fixture.say(id, service, given);
      life.said.set(`${id} ${service}`, new Set(given));
    }
  }
  fixture.catalog.releaseHolds();
  await settle();
  await fixture.clock.advance(2_000);
  checkPresence(life, seed);
  for (const [i, service] of SERVICES.entries()) {
    assert.deepEqual(new Set(fixture.view(service)), new Set(addresses(12, i)), `seed ${seed}`);
    const told = fixture.views.findLast((one) => one.service === service);
    assert.equal(told?.view, fixture.catalog.get(service), `seed ${seed}: the last view was told`);
  }
  assert.deepEqual([fixture.catalog.holds().length, fixture.clock.pending], [0, 0], `seed ${seed}`);
  for (const service of SERVICES) {
    const revisions = fixture.views.flatMap((one) =>
      one.service === service && one.view !== undefined ? [one.view.revision] : [],
    );
    for (let i = 1; i < revisions.length; i++)
      assert.ok((revisions[i] ?? 0) > (revisions[i - 1] ?? 0), `seed ${seed}: revisions`);
  }
}
