// R2 by the vectors of catalog-rules §7 and the traps of its text, through the whole catalog on a fake clock.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { addresses, CatalogFixture, instance, source } from '../../test/support/catalog-fixture.ts';
import { DEFAULT_SERVICE_POLICY } from '../model/policy.ts';
import { markersOf } from './copies.ts';

const S = 'default/one';

/** Services that make a source big, so that one service's loss is no source-wide one. */
function surround(fixture: CatalogFixture, services = 20, size = 10): void {
  for (let i = 0; i < services; i++) fixture.say('a', `default/other-${i}`, addresses(size, 100 + i));
}

describe('shrink guard: sizes of services', () => {
  const cases: readonly (readonly [size: number, lost: number, outcome: 'held' | 'applied'])[] = [
    [1, 1, 'held'],
    [2, 1, 'applied'],
    [2, 2, 'held'],
    [3, 1, 'applied'],
    [3, 2, 'held'],
    [10, 5, 'applied'],
    [10, 6, 'held'],
  ];
  for (const [size, lost, outcome] of cases) {
    it(`a service of ${size} losing ${lost} is ${outcome}`, () => {
      const fixture = new CatalogFixture();
      surround(fixture);
      const all = addresses(size);
      fixture.say('a', S, all);
      fixture.say('a', S, all.slice(lost));
      assert.equal(fixture.size(S), outcome === 'held' ? size : size - lost);
      assert.equal(fixture.heldIn(S), outcome === 'held' ? lost : 0);
    });
  }

  it('copies that a mirror put back at once do not make the loss of the natives look small', () => {
    const fixture = new CatalogFixture();
    surround(fixture);
    const copies = addresses(8, 7).map((address) =>
      instance(address, { id: `copy-${address}`, metadata: new Map(markersOf({ origin: 'b', migration: 'm1' })) }),
    );
    fixture.say('a', S, ['10.0.0.1:80', '10.0.0.2:80', ...copies]);
    fixture.say('a', S, copies);
    assert.equal(fixture.heldIn(S), 2);
    assert.equal(fixture.size(S), 10);
  });

  it('a service that the list lost and names again, with half of its instances: the other half stays held', () => {
    const fixture = new CatalogFixture();
    surround(fixture);
    const others = Array.from({ length: 20 }, (_, i) => `default/other-${i}`);
    fixture.say('a', S, addresses(4));
    fixture.list('a', [S, ...others]);
    fixture.list('a', others);
    assert.equal(fixture.heldIn(S), 4);
    // A wiped registry that fills up: the list is first, the service follows.
    fixture.list('a', [S, ...others]);
    assert.deepEqual([fixture.size(S), fixture.heldIn(S)], [4, 0]);
    fixture.say('a', S, addresses(2));
    assert.deepEqual([fixture.size(S), fixture.heldIn(S)], [4, 2]);
    fixture.say('a', S, addresses(4));
    assert.deepEqual([fixture.size(S), fixture.heldIn(S)], [4, 0]);
    // From then on a loss is judged by its own size.
    fixture.say('a', S, addresses(2));
    assert.deepEqual([fixture.size(S), fixture.heldIn(S)], [2, 0]);
  });

  it('an absent answer holds everything, and hold: false removes at once', () => {
    const fixture = new CatalogFixture();
    surround(fixture);
    fixture.policies.set('default/blind', {
      ...DEFAULT_SERVICE_POLICY,
      hold: { ...DEFAULT_SERVICE_POLICY.hold, enabled: false },
    });
    for (const [i, service] of [S, 'default/blind'].entries()) {
      fixture.say('a', service, addresses(3, i));
      fixture.absent('a', service);
    }
    assert.equal(fixture.heldIn(S), 3);
    assert.equal(fixture.catalog.get('default/blind'), undefined);
  });

  it('additions and changed fields of a held answer are applied at once', () => {
    const fixture = new CatalogFixture();
    surround(fixture);
    const [first = '', ...others] = addresses(10);
    fixture.say('a', S, [first, ...others]);
    fixture.say('a', S, [instance(first, { weight: 7 }), '10.9.9.9:80']);
    const view = fixture.catalog.get(S);
    assert.equal(view?.instances.length, 11);
    assert.equal(view?.instances.find((one) => one.host === '10.0.0.1')?.weight, 7);
    assert.equal(fixture.heldIn(S), 9);
  });

  it('a small removal while a hold stands is applied at once', () => {
    const fixture = new CatalogFixture();
    surround(fixture);
    const fresh = addresses(10, 1);
    fixture.say('a', S, addresses(10));
    fixture.say('a', S, fresh);
    fixture.say('a', S, fresh.slice(1));
    assert.equal(fixture.size(S), 19);
  });
});

describe('shrink guard: loss of a source', () => {
  const hundred = (fixture: CatalogFixture): string[][] => {
    const lists = Array.from({ length: 2 }, (_, i) => addresses(50, i));
    for (const [i, list] of lists.entries()) fixture.say('a', `default/s${i}`, list);
    return lists;
  };
  const total = (fixture: CatalogFixture): number => fixture.size('default/s0') + fixture.size('default/s1');

  it('of 100 instances 21 lost one by one in 8 s: 20 are applied, the 21st and later are held', () => {
    const fixture = new CatalogFixture();
    const [list = []] = hundred(fixture);
    for (let gone = 1; gone <= 21; gone++) {
      fixture.clock.advanceSync(8_000 / 21);
      fixture.say('a', 'default/s0', list.slice(gone));
      assert.equal(total(fixture), 100 - Math.min(gone, 20), `after ${gone}`);
    }
    assert.equal(fixture.heldIn('default/s0'), 1);
    fixture.say('a', 'default/s0', list.slice(22));
    assert.equal(fixture.heldIn('default/s0'), 2);
    assert.deepEqual(
      fixture.catalog.holds().map((hold) => [hold.kind, hold.confirmsInMs]),
      [['sourceWide', null]],
    );
  });

  it('of 100 instances 21 lost in one answer: 21 are held', () => {
    const fixture = new CatalogFixture();
    const [list = []] = hundred(fixture);
    fixture.say('a', 'default/s0', list.slice(21));
    assert.equal(total(fixture), 100);
    assert.equal(fixture.heldIn('default/s0'), 21);
  });

  it('of 30 instances 9 lost are applied: the floor is 10', () => {
    const fixture = new CatalogFixture();
    const list = addresses(30);
    fixture.say('a', S, list);
    fixture.say('a', S, list.slice(9));
    assert.equal(fixture.size(S), 21);
  });

  it('slow losses, each window below 20 %, are all applied', () => {
    const fixture = new CatalogFixture();
    const [list = []] = hundred(fixture);
    for (let gone = 1; gone <= 25; gone++) {
      fixture.clock.advanceSync(2_000);
      fixture.say('a', 'default/s0', list.slice(gone));
    }
    assert.equal(fixture.size('default/s0'), 25);
  });

  it('instances that come back do not count as lost: a flap of 15 of 100 every second is never source-wide', () => {
    const fixture = new CatalogFixture();
    const [list = []] = hundred(fixture);
    const other = addresses(3, 9);
    fixture.say('a', 'default/small', other);
    for (let i = 0; i < 8; i++) {
      fixture.clock.advanceSync(500);
      fixture.say('a', 'default/small', []);
      fixture.clock.advanceSync(500);
      fixture.say('a', 'default/small', other);
    }
    assert.equal(fixture.heldIn('default/small'), 0);
    fixture.say('a', 'default/s0', list.slice(15));
    assert.equal(fixture.size('default/s0'), 35);
  });

  it('a whole source emptied with good probes is held until it returns, is released, or its probes fail; never by time', async () => {
    const fixture = new CatalogFixture();
    const names = Array.from({ length: 10 }, (_, i) => `default/s${i}`);
    for (const [i, name] of names.entries()) fixture.say('a', name, addresses(3, i));
    for (const name of names) fixture.absent('a', name);
    await fixture.clock.advance(24 * 3_600_000);
    assert.equal(names.filter((name) => fixture.heldIn(name) === 3).length, 10);
    // Also those that were held before the loss showed itself as source-wide.
    assert.deepEqual(new Set(fixture.catalog.holds().map((hold) => hold.kind)), new Set(['sourceWide']));
    fixture.say('a', 'default/s0', addresses(3, 0));
    assert.equal(fixture.heldIn('default/s0'), 0);
    assert.equal(fixture.catalog.releaseHolds({ service: 'default/s1' }), 3);
    assert.equal(fixture.catalog.get('default/s1'), undefined);
    assert.equal(fixture.heldIn('default/s2'), 3);
    assert.equal(fixture.catalog.releaseHolds({ source: 'nobody' }), 0);
    assert.equal(fixture.catalog.releaseHolds({ source: 'a' }), 24);
  });
});

describe('shrink guard: confirmation', () => {
  it('10 replaced by 10 new addresses: view 20 with 10 suspect, 10 after failing probes and a second read at 15 s', async () => {
    const fixture = new CatalogFixture();
    const [old, fresh] = [addresses(10), addresses(10, 1)];
    fixture.say('a', S, old);
    fixture.say('a', S, fresh);
    assert.equal(fixture.size(S), 20);
    assert.equal(fixture.catalog.get(S)?.instances.filter((one) => one.suspect).length, 10);
    fixture.fail(old);
    fixture.catalog.touch(S);
    assert.equal(fixture.size(S), 20, 'failing probes alone confirm nothing');
    await fixture.clock.advance(14_000);
    fixture.say('a', S, fresh);
    assert.equal(fixture.size(S), 20, 'a read before 15 s is no second read');
    await fixture.clock.advance(2_000);
    assert.deepEqual(
      fixture.reads.map((read) => [read.source, read.key]),
      [['a', { namespace: 'default', name: 'one' }]],
    );
    fixture.say('a', S, fresh);
    assert.deepEqual(new Set(fixture.view(S)), new Set(fresh));
    assert.ok(fixture.eventTypes().includes('hold_confirmed'));
  });

  it('a second read with good probes confirms nothing until the probes fail', async () => {
    const fixture = new CatalogFixture();
    surround(fixture);
    fixture.say('a', S, addresses(2));
    fixture.say('a', S, []);
    await fixture.clock.advance(16_000);
    fixture.say('a', S, []);
    assert.equal(fixture.size(S), 2);
    fixture.fail(addresses(2), 2);
    fixture.catalog.touch(S);
    assert.equal(fixture.size(S), 2, 'two failures are not three');
    fixture.fail(addresses(1));
    fixture.catalog.touch(S);
    assert.deepEqual(fixture.view(S), ['!10.0.0.2:80']);
  });

  it('empty at 0 s and full at 9 s never shrinks and tells nothing but start and release', () => {
    const fixture = new CatalogFixture();
    surround(fixture);
    fixture.say('a', S, addresses(4));
    const before = fixture.eventTypes().length;
    fixture.say('a', S, []);
    assert.equal(fixture.size(S), 4);
    fixture.clock.advanceSync(9_000);
    assert.equal(fixture.size(S), 4);
    fixture.say('a', S, addresses(4));
    assert.deepEqual(fixture.view(S), addresses(4));
    assert.deepEqual(fixture.eventTypes().slice(before), ['hold_started', 'hold_released']);
  });

  it('one service of many, empty with good probes, is removed at 5 min and not before', async () => {
    const fixture = new CatalogFixture();
    surround(fixture);
    fixture.say('a', S, addresses(4));
    fixture.say('a', S, []);
    await fixture.clock.advance(299_000);
    assert.equal(fixture.size(S), 4);
    await fixture.clock.advance(2_000);
    assert.equal(fixture.size(S), 0);
    assert.equal(fixture.views.at(-1)?.view?.instances.length, 0);
  });

  it('while the source is lost the clock of the hold stands still', async () => {
    const fixture = new CatalogFixture();
    surround(fixture);
    fixture.say('a', S, addresses(4));
    fixture.say('a', S, []);
    await fixture.clock.advance(200_000);
    fixture.lose('a', S);
    await fixture.clock.advance(3_600_000);
    assert.equal(fixture.size(S), 4);
    assert.match(fixture.catalog.holds(S)[0]?.missing ?? '', /stands still/);
    fixture.say('a', S, []);
    await fixture.clock.advance(98_000);
    assert.equal(fixture.size(S), 4);
    await fixture.clock.advance(3_000);
    assert.equal(fixture.size(S), 0);
  });

  it('the loss of the source as a whole stops the clock too, its list starts it again', async () => {
    const fixture = new CatalogFixture();
    surround(fixture);
    fixture.say('a', S, addresses(4));
    fixture.say('a', S, []);
    fixture.lose('a');
    await fixture.clock.advance(600_000);
    assert.equal(fixture.size(S), 4);
    fixture.list('a', [S, ...Array.from({ length: 20 }, (_, i) => `default/other-${i}`)]);
    await fixture.clock.advance(298_000);
    assert.equal(fixture.size(S), 4);
    await fixture.clock.advance(4_000);
    assert.equal(fixture.size(S), 0);
  });

  it('an explicit deregistration removes at once where the adapter declares it, and is ignored elsewhere', () => {
    const fixture = new CatalogFixture({ sources: [source('a', { tellsDeregistration: true }), source('b')] });
    for (const id of ['a', 'b']) {
      fixture.say(id, `default/${id}`, addresses(2));
      fixture.say(id, `default/${id}`, [], { deregistered: addresses(2).map((one) => `id-${one}`) });
    }
    assert.equal(fixture.size('default/a'), 0);
    assert.equal(fixture.heldIn('default/b'), 2);
  });

  it('an explicit deregistration confirms what is held already', () => {
    const fixture = new CatalogFixture({ sources: [source('a', { tellsDeregistration: true })] });
    fixture.say('a', S, addresses(2));
    fixture.say('a', S, []);
    assert.equal(fixture.heldIn(S), 2);
    fixture.say('a', S, [], { deregistered: ['id-10.0.0.1:80'] });
    assert.deepEqual(fixture.view(S), ['!10.0.0.2:80']);
  });

  it('a held address that newly appears natively under another service is dropped at once; a copy of it proves nothing', () => {
    const fixture = new CatalogFixture();
    surround(fixture);
    fixture.say('a', S, addresses(2));
    fixture.say('a', 'default/neighbour', ['10.0.0.2:80']);
    fixture.say('a', S, []);
    assert.equal(fixture.heldIn(S), 2);
    fixture.say('a', 'default/neighbour', ['10.0.0.2:80', '10.7.7.7:80']);
    assert.equal(fixture.heldIn(S), 2, 'it stood there before the hold began');
    const markers = new Map([
      ['weir-origin', 'x'],
      ['weir-migration', 'm'],
      ['weir-hops', '1'],
    ]);
    fixture.say('a', 'default/copied', [instance('10.0.0.1:80', { metadata: markers })]);
    assert.equal(fixture.heldIn(S), 2);
    fixture.say('a', 'default/new', ['10.0.0.1:80']);
    assert.deepEqual(fixture.view(S), ['!10.0.0.2:80']);
  });

  it('alternating answers of a split brain are a union for the time of the hold, without oscillation', () => {
    const fixture = new CatalogFixture();
    surround(fixture);
    const [a, b] = [addresses(5), addresses(5, 1)];
    fixture.say('a', S, a);
    for (let i = 0; i < 20; i++) {
      fixture.clock.advanceSync(1_000);
      fixture.say('a', S, i % 2 === 0 ? b : a);
      assert.equal(fixture.size(S), 10);
    }
  });

  it('holds of a migrating service are never confirmed by time', async () => {
    const overlay = {
      overlayOf: (service: string) =>
        service === S ? { merge: { kind: 'union' } as const, migration: 'm', holdsByTime: false } : null,
      copyOrigin: () => null,
    };
    const fixture = new CatalogFixture({ overlay });
    surround(fixture);
    fixture.say('a', S, addresses(4));
    fixture.say('a', S, []);
    await fixture.clock.advance(3_600_000);
    assert.equal(fixture.size(S), 4);
    assert.equal(fixture.catalog.holds(S)[0]?.confirmsInMs, null);
  });

  it('reads that confirm are asked again while they fail, and paced when a whole registry is wiped', async () => {
    const fixture = new CatalogFixture();
    const names = Array.from({ length: 100 }, (_, i) => `default/s${i}`);
    for (const [i, name] of names.entries()) fixture.say('a', name, addresses(2, i));
    for (const name of names) fixture.absent('a', name);
    await fixture.clock.advance(60_000);
    assert.equal(fixture.reads.length, 0, 'a source-wide hold with good probes has no use for a read');
    for (let i = 0; i < 100; i++) fixture.fail(addresses(2, i));
    await fixture.clock.advance(1_000);
    assert.equal(fixture.reads.length, 20);
    await fixture.clock.advance(9_000);
    assert.equal(new Set(fixture.reads.map((read) => read.key.name)).size, 100);
  });
});

describe('shrink guard: records and keepers', () => {
  it('a malformed record keeps the last good one of the same id as suspect; once it is gone it is removed by R2', () => {
    const fixture = new CatalogFixture();
    surround(fixture);
    const all = addresses(3);
    fixture.say('a', S, all);
    fixture.say('a', S, all.slice(1), { rejected: [{ nativeId: 'id-10.0.0.1:80', reason: 'port is NaN' }] });
    const view = fixture.catalog.get(S);
    assert.deepEqual(
      view?.instances.map((one) => [one.host, one.held, one.suspect]),
      [
        ['10.0.0.1', false, true],
        ['10.0.0.2', false, false],
        ['10.0.0.3', false, false],
      ],
    );
    fixture.say('a', S, all.slice(1));
    assert.deepEqual(fixture.view(S), all.slice(1));
  });

  it('an operator sees what a hold waits for', async () => {
    const fixture = new CatalogFixture();
    surround(fixture);
    fixture.say('a', S, addresses(4));
    fixture.say('a', S, []);
    await fixture.clock.advance(100_000);
    const [hold] = fixture.catalog.holds(S);
    assert.ok(hold !== undefined);
    const { missing, ...rest } = hold;
    assert.deepEqual(rest, {
      service: S,
      source: 'a',
      kind: 'service',
      addresses: addresses(4),
      sinceMs: 100_000,
      confirmsInMs: 200_000,
    });
    assert.match(missing, /second full read.*3 failed probes in a row \(0 of 4/);
    fixture.fail(addresses(1));
    fixture.say('a', S, []);
    assert.equal(fixture.catalog.holds(S)[0]?.addresses.length, 3);
    assert.match(fixture.catalog.holds(S)[0]?.missing ?? '', /^3 failed probes in a row \(0 of 3/);
  });

  it('a held service keeps its watch, and its end is told', () => {
    const fixture = new CatalogFixture();
    surround(fixture);
    const told: string[] = [];
    fixture.catalog.onHeld((id, { name }, held) => told.push(`${id} ${name} ${held}`));
    fixture.say('a', S, addresses(2));
    fixture.say('a', S, []);
    assert.equal(fixture.catalog.isHeld('a', { namespace: 'default', name: 'one' }), true);
    fixture.say('a', S, addresses(2));
    assert.equal(fixture.catalog.isHeld('a', { namespace: 'default', name: 'one' }), false);
    assert.deepEqual(told, ['a one true', 'a one false']);
  });

  it('counts of held and known instances come back to zero when everything is gone', () => {
    const fixture = new CatalogFixture();
    for (let i = 0; i < 5; i++) fixture.say('a', `default/s${i}`, addresses(5, i));
    for (let i = 0; i < 5; i++) fixture.absent('a', `default/s${i}`);
    assert.equal(fixture.catalog.sourceSummary('a')?.held, 25);
    fixture.catalog.releaseHolds();
    assert.deepEqual(
      [fixture.catalog.sourceSummary('a')?.held, fixture.catalog.sourceSummary('a')?.instances, fixture.catalog.size],
      [0, 0, 0],
    );
    assert.deepEqual(fixture.catalog.names({ limit: 10 }).names, []);
  });
});

describe('shrink guard: a registry whose history began anew', () => {
  const HOUR = 3_600_000;

  it('never loses an instance to the passing of time, however small the loss was', async () => {
    const fixture = new CatalogFixture();
    surround(fixture);
    fixture.say('a', S, addresses(10));
    fixture.say('a', S, addresses(9), { epoch: 'e2' });
    assert.equal(fixture.size(S), 10);
    assert.equal(fixture.catalog.holds(S)[0]?.kind, 'sourceWide');
    await fixture.clock.advance(24 * HOUR);
    assert.equal(fixture.size(S), 10);
    fixture.catalog.releaseHolds({ service: S });
    assert.equal(fixture.size(S), 9);
  });

  it('widens a hold that its list began before its watch told of the new history', async () => {
    const fixture = new CatalogFixture();
    surround(fixture);
    fixture.say('a', S, addresses(2));
    fixture.absent('a', S);
    assert.equal(fixture.catalog.holds(S)[0]?.kind, 'service');
    fixture.absent('a', S, 'e2');
    assert.equal(fixture.catalog.holds(S)[0]?.kind, 'sourceWide');
    await fixture.clock.advance(24 * HOUR);
    assert.equal(fixture.size(S), 2);
  });

  it('takes additions at once, and a return ends the hold', () => {
    const fixture = new CatalogFixture();
    surround(fixture);
    fixture.say('a', S, addresses(2));
    fixture.say('a', S, ['10.9.9.9:80'], { epoch: 'e2' });
    assert.equal(fixture.size(S), 3);
    fixture.say('a', S, [...addresses(2), '10.9.9.9:80'], { epoch: 'e2' });
    assert.equal(fixture.heldIn(S), 0);
    assert.equal(fixture.size(S), 3);
  });
});
