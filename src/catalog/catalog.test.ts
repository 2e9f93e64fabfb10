// The catalog as a whole on a fake clock: states and ages (R1, R4), publication (R5), listings, limits, config, scorecard rows.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { addresses, CatalogFixture, dialWith, instance, key, source } from '../../test/support/catalog-fixture.ts';
import { FakeClock, settle } from '../../test/support/fake-clock.ts';
import { silentLog } from '../kernel/log.ts';
import type { Instance } from '../model/instance.ts';
import { DEFAULT_SERVICE_POLICY } from '../model/policy.ts';
import { Catalog } from './catalog.ts';
import { NO_EVIDENCE, NO_OVERLAY } from './evidence.ts';

const S = 'default/one';
const state = (fixture: CatalogFixture, service = S) => fixture.catalog.serviceStates(service)[0];

describe('catalog: states and ages (R1, R4)', () => {
  it('connecting → live → stale → live, with cause and ages', async () => {
    const fixture = new CatalogFixture();
    fixture.list('a', [S]);
    assert.deepEqual([state(fixture)?.state, state(fixture)?.presence, state(fixture)?.ageMs], ['connecting', 'neverSeen', null]);
    assert.equal(fixture.catalog.get(S), undefined, 'listed, not answered');
    fixture.say('a', S, addresses(2));
    assert.equal(state(fixture)?.state, 'live');
    await fixture.clock.advance(5_000);
    fixture.lose('a', S);
    await fixture.clock.advance(5_000);
    const stale = state(fixture);
    assert.deepEqual(
      [stale?.state, stale?.cause, stale?.ageMs, stale?.contactAgeMs, stale?.instances],
      ['stale', 'lost', 10_000, 10_000, 2],
    );
    fixture.catalog.unchanged('a', key(S));
    assert.deepEqual([state(fixture)?.state, state(fixture)?.ageMs, state(fixture)?.cause], ['live', 0, undefined]);
    assert.deepEqual(fixture.eventTypes(), ['source_live', 'source_stale', 'source_live']);
  });

  it('never seen and refused is failed; never seen and unreachable keeps connecting', () => {
    const fixture = new CatalogFixture({ sources: [source('a'), source('b')] });
    fixture.lose('a', null, 'denied');
    fixture.lose('b');
    assert.deepEqual(
      [fixture.catalog.sourceSummary('a')?.state, fixture.catalog.sourceSummary('b')?.state],
      ['failed', 'connecting'],
    );
    assert.equal(fixture.catalog.sourceSummary('a')?.cause, 'denied');
  });

  it('every failure removes nothing: lost, denied for an hour, malformed, limit', async () => {
    const fixture = new CatalogFixture();
    fixture.say('a', S, addresses(4));
    for (const cause of ['lost', 'denied', 'malformed', 'limit'] as const) {
      fixture.lose('a', S, cause);
      fixture.lose('a', null, cause);
      await fixture.clock.advance(3_600_000);
      assert.equal(fixture.size(S), 4);
      assert.deepEqual([state(fixture)?.state, state(fixture)?.cause], ['stale', cause]);
      fixture.list('a', [S]);
      fixture.say('a', S, addresses(4));
      assert.equal(state(fixture)?.state, 'live');
    }
  });

  it('a list that is incomplete, or could not read a name, says nothing about absent names', () => {
    const fixture = new CatalogFixture();
    fixture.list('a', [S, 'default/two']);
    fixture.say('a', S, addresses(2));
    fixture.say('a', 'default/two', addresses(2, 1));
    fixture.list('a', [], { complete: false });
    fixture.list('a', ['default/two'], { failed: [S] });
    assert.deepEqual([fixture.heldIn(S), fixture.heldIn('default/two')], [0, 0]);
  });

  it('a complete list without a known name is an absent answer: held; the name again ends the hold though its watch says nothing', () => {
    const fixture = new CatalogFixture();
    fixture.list('a', [S, 'default/two', 'default/three']);
    for (const [i, name] of [S, 'default/two', 'default/three'].entries()) fixture.say('a', name, addresses(3, i));
    fixture.list('a', ['default/two', 'default/three']);
    assert.equal(fixture.heldIn(S), 3);
    assert.equal(state(fixture)?.presence, 'absent');
    assert.equal(fixture.catalog.isHeld('a', key(S)), true);
    fixture.list('a', [S, 'default/two', 'default/three']);
    assert.deepEqual([fixture.heldIn(S), fixture.size(S), state(fixture)?.presence], [0, 3, 'present']);
  });

  it('a list that leaves out 500 services at once is judged in slices, and their watches are kept from the start', async () => {
    const fixture = new CatalogFixture();
    const names = Array.from({ length: 500 }, (_, i) => `default/s${i}`);
    fixture.list('a', names);
    for (const [i, name] of names.entries()) fixture.say('a', name, addresses(2, i % 200));
    const told: string[] = [];
    fixture.catalog.onHeld((_id, { name }, held) => told.push(`${name} ${held}`));
    fixture.list('a', []);
    assert.equal(told.length, 500, 'told before the supervisor may end the watches');
    fixture.say('a', 'default/s499', addresses(2, 99));
    await settle(50);
    assert.equal(fixture.heldIn('default/s499'), 0, 'its watch spoke after the list');
    for (const name of names.slice(0, 499)) assert.equal(fixture.heldIn(name), 2);
    assert.deepEqual(told.slice(500), ['s499 false']);
    assert.equal(fixture.catalog.isHeld('a', key('default/s499')), false);
    await fixture.clock.advance(500);
    assert.equal(fixture.clock.pending, 1, 'the time of the holds is looked at');
    fixture.list('a', names);
    await settle();
    assert.equal(fixture.catalog.holds().length, 0);
  });

  it('a name that was listed, never answered and is not listed any more leaves the catalog', () => {
    const fixture = new CatalogFixture();
    fixture.list('a', [S, 'default/two']);
    fixture.list('a', [S]);
    assert.deepEqual(fixture.catalog.names({ limit: 10 }).names, [S]);
  });

  it('known but empty is a view without instances; confirmed absence leaves the catalog', () => {
    const fixture = new CatalogFixture();
    fixture.say('a', S, []);
    assert.deepEqual(fixture.catalog.get(S)?.instances, []);
    fixture.absent('a', S);
    assert.equal(fixture.catalog.get(S), undefined);
    assert.equal(fixture.catalog.size, 0);
    assert.equal(fixture.views.at(-1)?.view, undefined);
  });

  it('the list of a source that was lost as a whole makes the words of unharmed watches live again', async () => {
    const fixture = new CatalogFixture();
    fixture.list('a', [S, 'default/two']);
    fixture.say('a', S, addresses(2));
    fixture.say('a', 'default/two', addresses(2, 1));
    fixture.lose('a');
    assert.equal(state(fixture)?.state, 'stale');
    fixture.say('a', 'default/two', addresses(2, 1));
    assert.deepEqual([state(fixture)?.state, state(fixture, 'default/two')?.state], ['stale', 'live']);
    await settle();
    assert.equal(fixture.catalog.get(S)?.instances[0]?.registryHealth, 'unknown');
    fixture.list('a', [S, 'default/two']);
    await settle();
    assert.equal(state(fixture)?.state, 'live');
    assert.equal(fixture.catalog.get(S)?.instances[0]?.registryHealth, 'healthy');
  });

  it('a new epoch is told once per source and answers are judged as ever', () => {
    const fixture = new CatalogFixture();
    fixture.say('a', S, addresses(2));
    fixture.say('a', 'default/two', addresses(2, 1));
    fixture.say('a', S, addresses(2), { epoch: 'e2' });
    fixture.say('a', 'default/two', addresses(2, 1), { epoch: 'e2' });
    assert.equal(fixture.eventTypes().filter((type) => type === 'epoch_changed').length, 1);
  });

  it('is ready when every source gave its first complete list, or its first answer where it cannot list', () => {
    const fixture = new CatalogFixture({ sources: [source('a'), source('l5', { lists: false })] });
    fixture.say('a', S, addresses(1));
    fixture.list('a', [S], { complete: false });
    assert.deepEqual([fixture.catalog.hasFirstAnswer('a'), fixture.catalog.everySourceAnswered()], [false, false]);
    fixture.list('a', [S]);
    assert.equal(fixture.catalog.hasFirstAnswer('l5'), false);
    fixture.absent('l5', S);
    assert.equal(fixture.catalog.everySourceAnswered(), true);
  });

  it('an on-demand watch that ended leaves its last word, stale, and the source as live as it was', () => {
    const fixture = new CatalogFixture({ sources: [source('l5', { lists: false })] });
    fixture.say('l5', S, addresses(2));
    fixture.catalog.unwatched('l5', key(S));
    assert.deepEqual([state(fixture)?.state, state(fixture)?.cause, fixture.size(S)], ['stale', 'unwatched', 2]);
    assert.equal(fixture.catalog.sourceSummary('l5')?.state, 'live');
    fixture.say('l5', S, addresses(2));
    assert.equal(state(fixture)?.state, 'live');
    fixture.catalog.unwatched('l5', key('default/never'));
    assert.equal(fixture.catalog.size, 1);
  });
});

describe('catalog: publication (R5, M9)', () => {
  it('the first change goes at once, later ones within 200 ms as one view, the last word always arrives', async () => {
    const fixture = new CatalogFixture();
    fixture.say('a', S, addresses(1));
    assert.equal(fixture.views.length, 1);
    for (let n = 2; n <= 50; n++) {
      fixture.clock.advanceSync(10);
      fixture.say('a', S, addresses(n));
    }
    await fixture.clock.advance(300);
    assert.ok(fixture.views.length >= 3 && fixture.views.length <= 5, `${fixture.views.length} views in 0.5 s`);
    assert.equal(fixture.views.at(-1)?.view?.instances.length, 50);
    const gaps = fixture.views.slice(1).map((one, i) => one.at - (fixture.views[i]?.at ?? 0));
    assert.ok(
      gaps.every((gap) => gap >= 190),
      gaps.join(),
    );
    assert.equal(fixture.clock.pending, 0, 'no timer is left');
  });

  it('S8: 1 of 10 deregistered is out of the published view at once, also inside the 200 ms', () => {
    const fixture = new CatalogFixture();
    fixture.say('a', S, addresses(10));
    fixture.say('a', S, addresses(9, 0, 2));
    assert.equal(fixture.views.at(-1)?.view?.instances.length, 9);
    assert.equal(fixture.views.at(-1)?.at, fixture.views[0]?.at);
  });

  it('revisions rise strictly, start above clock and file, and stay safe integers', () => {
    const fixture = new CatalogFixture({ lastIndex: 2 ** 52 });
    fixture.say('a', S, addresses(1));
    assert.equal(fixture.catalog.get(S)?.revision, 2 ** 52 + 2);
    const clocked = new CatalogFixture();
    assert.equal(clocked.catalog.index, 1_700_000_000 * 2 ** 20);
    assert.ok(Number.isSafeInteger(clocked.catalog.takeIndex()));
    const far = new CatalogFixture({ clock: new FakeClock(0, 4e12) });
    assert.ok(Number.isSafeInteger(far.catalog.index));
  });

  it('a listener that throws hurts neither the others nor the source', () => {
    const fixture = new CatalogFixture();
    const seen: string[] = [];
    fixture.catalog.subscribe(() => {
      throw new Error('listener');
    });
    fixture.catalog.subscribe((service) => seen.push(service));
    fixture.say('a', S, addresses(1));
    assert.deepEqual(seen, [S]);
  });

  it('nothing is told when nothing changed, and unsubscribed listeners are not called', async () => {
    const fixture = new CatalogFixture();
    let calls = 0;
    const end = fixture.catalog.subscribe(() => calls++);
    fixture.say('a', S, addresses(2));
    await fixture.clock.advance(1_000);
    fixture.say('a', S, addresses(2));
    fixture.catalog.unchanged('a', key(S));
    fixture.catalog.touch(S);
    await fixture.clock.advance(1_000);
    assert.equal(calls, 1);
    end();
    fixture.say('a', S, addresses(3));
    await fixture.clock.advance(1_000);
    assert.equal(calls, 1);
  });

  it('A9: 10,000 changes of one service in a second cost about six views', async () => {
    const fixture = new CatalogFixture();
    for (let i = 0; i < 10_000; i++) {
      if (i % 10 === 0) fixture.clock.advanceSync(1);
      fixture.say('a', S, [instance('10.0.0.1:80', { weight: i })]);
    }
    await fixture.clock.advance(300);
    assert.ok(fixture.views.length <= 8, `${fixture.views.length}`);
    assert.equal(fixture.views.at(-1)?.view?.instances[0]?.weight, 9_999);
  });

  it('one change among 2,000 services publishes one service and touches no other', () => {
    const fixture = new CatalogFixture();
    for (let i = 0; i < 2_000; i++) fixture.say('a', `default/s${i}`, addresses(2, i % 200));
    const before = fixture.catalog.get('default/s7');
    fixture.views.length = 0;
    fixture.clock.advanceSync(1_000);
    fixture.say('a', 'default/s8', addresses(3, 8));
    assert.deepEqual(
      fixture.views.map((one) => one.service),
      ['default/s8'],
    );
    assert.equal(fixture.catalog.get('default/s7'), before);
  });
});

describe('catalog: scorecard rows on the fake clock', () => {
  it('S1: every registry dead for 10 min: all reads answer, age rises, nothing is removed', async () => {
    const fixture = new CatalogFixture({ sources: [source('a'), source('b')] });
    for (let i = 0; i < 20; i++) {
      fixture.say('a', `default/s${i}`, addresses(5, i));
      fixture.say('b', `default/s${i}`, addresses(3, i));
    }
    for (const id of ['a', 'b']) {
      for (let i = 0; i < 20; i++) fixture.lose(id, `default/s${i}`);
      fixture.lose(id);
    }
    let age = -1;
    for (let minute = 0; minute < 10; minute++) {
      await fixture.clock.advance(60_000);
      for (let i = 0; i < 20; i++) assert.equal(fixture.size(`default/s${i}`), 5);
      const now = fixture.catalog.serviceStates('default/s0').map((one) => one.ageMs ?? 0);
      assert.ok(now.every((one) => one > age));
      age = Math.min(...now);
    }
    assert.deepEqual(
      fixture.catalog.sourceIds.map((id) => fixture.catalog.sourceSummary(id)?.state),
      ['stale', 'stale'],
    );
    assert.equal(fixture.clock.pending, 0);
  });

  it('S5: a registry that restarts empty removes nothing; after re-registration in any order all is as before', async () => {
    const fixture = new CatalogFixture();
    const names = Array.from({ length: 30 }, (_, i) => `default/s${i}`);
    fixture.list('a', names);
    for (const [i, name] of names.entries()) fixture.say('a', name, addresses(4, i));
    fixture.lose('a');
    fixture.list('a', []);
    for (const name of names) fixture.absent('a', name, 'e2');
    await fixture.clock.advance(30_000);
    for (const name of names) assert.equal(fixture.size(name), 4);
    for (const [i, name] of names.entries()) {
      for (let n = 1; n <= 4; n++) {
        fixture.say('a', name, addresses(n, i), { epoch: 'e2' });
        assert.equal(fixture.size(name), 4);
      }
    }
    for (const name of names) assert.equal(fixture.heldIn(name), 0);
    assert.equal(fixture.catalog.sourceSummary('a')?.held, 0);
    assert.equal(fixture.catalog.holds().length, 0);
  });

  it('S33: names and values that poison objects, and 5,000 random answers, neither throw nor pollute nor lose the catalog', () => {
    const fixture = new CatalogFixture({ sources: [source('a'), source('b')] });
    const words = ['__proto__', 'constructor', 'prototype', 'toString', 'hasOwnProperty', 'weir-origin', '\u202eabc', '😀', ''];
    let seed = 99;
    const below = (n: number): number => {
      seed = (seed * 48_271) % 2_147_483_647;
      return seed % n;
    };
    const word = (): string => words[below(words.length)] ?? '';
    const hosts = [
      '10.0.0.1',
      '0.0.0.0',
      '127.1',
      '169.254.169.254',
      '::ffff:127.0.0.1',
      'Node.',
      '%31',
      '',
      '224.0.0.1',
      '::1',
      'a'.repeat(300),
      '0x7f.1',
    ];
    const odd = [Number.NaN, -1, 0, 65_536, 1.5, Number.POSITIVE_INFINITY, 80, 81];
    fixture.say('a', 'default/steady', addresses(3));
    for (let round = 0; round < 5_000; round++) {
      const instances: Instance[] = Array.from({ length: below(6) }, () => ({
        id: word(),
        host: hosts[below(hosts.length)] ?? '',
        port: odd[below(odd.length)] ?? 80,
        transport: 'tcp',
        weight: odd[below(odd.length)] ?? 1,
        health: 'healthy',
        isolated: below(2) === 0,
        metadata: new Map([[word(), word()]]),
      }));
      const service = { namespace: word(), name: word() };
      const base = { epoch: word(), sourceRevision: word() };
      if (below(5) === 0) fixture.catalog.snapshot('a', service, { kind: 'absent', ...base });
      else
        fixture.catalog.snapshot('a', service, {
          kind: 'present',
          ...base,
          instances,
          rejected: [{ nativeId: word(), reason: word() }],
        });
      if (below(10) === 0) fixture.catalog.list('b', { keys: [service], failed: [], complete: below(2) === 0 });
      fixture.clock.advanceSync(below(300));
    }
    assert.deepEqual(fixture.view('default/steady'), addresses(3));
    assert.equal(Object.keys(Object.prototype).length, 0);
    for (const name of fixture.catalog.names({ limit: 1_000 }).names) {
      for (const one of fixture.catalog.get(name)?.instances ?? []) {
        assert.ok(['10.0.0.1', 'node'].includes(one.host) || name === 'default/steady', one.host);
        assert.ok(one.port === 80 || one.port === 81);
      }
    }
    assert.ok(fixture.catalog.recentRejected('a').length <= 100);
  });

  it('A15: flapping instances leave no holds, timers or entries behind', async () => {
    const fixture = new CatalogFixture();
    fixture.say('a', 'default/base', addresses(200, 50));
    for (let round = 0; round < 60; round++) {
      fixture.say('a', S, round % 2 === 0 ? addresses(10) : addresses(2));
      await fixture.clock.advance(500);
    }
    fixture.say('a', S, addresses(10));
    await fixture.clock.advance(2_000);
    assert.deepEqual([fixture.heldIn(S), fixture.catalog.holds().length, fixture.clock.pending], [0, 0, 0]);
  });
});

describe('catalog: listings', () => {
  const fixture = new CatalogFixture({ sources: [source('a'), source('b')] });
  for (let i = 0; i < 300; i++)
    fixture.say(i % 3 === 0 ? 'b' : 'a', `ns${i % 2}/svc-${String(i).padStart(3, '0')}`, addresses(1));

  it('pages by cursor give every name once, in order', () => {
    const all: string[] = [];
    let cursor: string | null = null;
    do {
      const page: { names: readonly string[]; next: string | null } = fixture.catalog.names({ limit: 7, cursor });
      all.push(...page.names);
      cursor = page.next;
    } while (cursor !== null);
    assert.equal(all.length, 300);
    assert.deepEqual(all, all.toSorted());
    assert.equal(new Set(all).size, 300);
  });

  it('filters by prefix, part and source', () => {
    assert.equal(fixture.catalog.names({ limit: 1_000, prefix: 'ns1/' }).names.length, 150);
    assert.deepEqual(fixture.catalog.names({ limit: 10, q: 'svc-12', prefix: 'ns0/' }).names, [
      'ns0/svc-120',
      'ns0/svc-122',
      'ns0/svc-124',
      'ns0/svc-126',
      'ns0/svc-128',
    ]);
    assert.equal(fixture.catalog.names({ limit: 1_000, source: 'b' }).names.length, 100);
    assert.deepEqual(fixture.catalog.names({ limit: 5, prefix: 'zz' }), { names: [], next: null });
  });

  it('a filter that finds nothing looks at a bounded number of names a page', () => {
    const big = new CatalogFixture();
    big.list(
      'a',
      Array.from({ length: 5_000 }, (_, i) => `default/s${i}`),
    );
    const page = big.catalog.names({ limit: 10, q: 'nothing' });
    assert.equal(page.names.length, 0);
    assert.notEqual(page.next, null);
  });

  it('names come and go', () => {
    const small = new CatalogFixture();
    for (const name of ['default/c', 'default/a', 'default/b']) small.say('a', name, []);
    assert.deepEqual(small.catalog.names({ limit: 9 }).names, ['default/a', 'default/b', 'default/c']);
    small.absent('a', 'default/b');
    small.say('a', 'default/aa', []);
    assert.deepEqual(small.catalog.names({ limit: 9 }).names, ['default/a', 'default/aa', 'default/c']);
  });
});

describe('catalog: addresses and limits', () => {
  it('addresses that the outbound policy refuses never enter a view, are counted by rule and shown', () => {
    const fixture = new CatalogFixture();
    fixture.say('a', S, ['10.0.0.1:80', '127.0.0.1:80', '169.254.169.254:80', '0.0.0.0:80', '10.0.0.2:0']);
    assert.deepEqual(fixture.view(S), ['10.0.0.1:80']);
    const count = (rule: string): number => fixture.metrics.counter('weir_addresses_refused_total', 'a', rule).value;
    assert.deepEqual(['loopback', 'linkLocal', 'unspecified', 'badPort'].map(count), [1, 1, 1, 1]);
    assert.equal(fixture.catalog.recentRejected('a').length, 4);
    assert.equal(state(fixture)?.rejected, 4);
  });

  it('M10: an instance that is one of our own listeners is dropped with an event, also when the listener comes later', async () => {
    const own: { host: string; port: number }[] = [];
    const config = source('a', { dial: dialWith(own) });
    const fixture = new CatalogFixture({ sources: [config] });
    fixture.say('a', S, ['10.0.0.1:7980', '10.0.0.2:80']);
    assert.equal(fixture.size(S), 2);
    own.push({ host: '10.0.0.1', port: 7980 });
    fixture.configure([config]);
    assert.deepEqual(fixture.view(S), ['10.0.0.2:80']);
    fixture.say('a', S, ['10.0.0.1:7980', '10.0.0.2:80']);
    assert.deepEqual(fixture.view(S), ['10.0.0.2:80']);
    assert.ok(fixture.eventTypes().includes('own_listener_dropped'));
    await fixture.clock.advance(1_000);
    assert.equal(fixture.views.at(-1)?.view?.instances.length, 1);
  });

  it('a record that moves to a refused address keeps its last good one as suspect', () => {
    const fixture = new CatalogFixture();
    fixture.say('a', S, [instance('10.0.0.1:80', { id: 'x' }), '10.0.0.2:80']);
    fixture.say('a', S, [instance('169.254.169.254:80', { id: 'x' }), '10.0.0.2:80']);
    assert.deepEqual(
      fixture.catalog.get(S)?.instances.map((one) => [one.host, one.suspect]),
      [
        ['10.0.0.1', true],
        ['10.0.0.2', false],
      ],
    );
  });

  it('over 200,000 instances (here 50) the last good list is kept, the service is stale(limit), and others go on', () => {
    const base = new CatalogFixture();
    const { clock, events, metrics } = base;
    const catalog = new Catalog({
      clock,
      log: silentLog,
      events,
      metrics,
      evidence: NO_EVIDENCE,
      overlay: NO_OVERLAY,
      lastIndex: 0,
      maxInstances: 50,
    });
    catalog.configure({ sources: [source('a')], names: [], policyOf: () => DEFAULT_SERVICE_POLICY });
    const say = (service: string, n: number): void =>
      catalog.snapshot('a', key(service), {
        kind: 'present',
        epoch: 'e',
        sourceRevision: '1',
        instances: addresses(n).map((one) => instance(one)),
        rejected: [],
      });
    say(S, 40);
    say(S, 51);
    assert.equal(catalog.get(S)?.instances.length, 40);
    assert.deepEqual(
      catalog.serviceStates(S).map((one) => [one.state, one.cause]),
      [['stale', 'limit']],
    );
    say('default/small', 5);
    assert.equal(catalog.get('default/small')?.instances.length, 5);
    assert.ok(events.recent(10).some((event) => event.type === 'source_stale' && event.details['cause'] === 'limit'));
  });

  it('names without a place are counted and shown, and make no entry', () => {
    const fixture = new CatalogFixture();
    fixture.catalog.snapshot('a', { namespace: 'a\nb', name: 'x' }, { kind: 'absent', epoch: '', sourceRevision: '' });
    fixture.list('a', []);
    assert.equal(fixture.catalog.size, 0);
    assert.match(fixture.catalog.recentRejected('a')[0]?.reason ?? '', /rules for names/);
  });
});

describe('catalog: configuration', () => {
  it('a reload that changes nothing merges nothing again', async () => {
    const sources = [source('a'), source('b')];
    const fixture = new CatalogFixture({ sources });
    for (let i = 0; i < 50; i++) fixture.say('a', `default/s${i}`, addresses(2, i));
    const views = Array.from({ length: 50 }, (_, i) => fixture.catalog.get(`default/s${i}`));
    const { index } = fixture.catalog;
    fixture.configure(sources);
    await settle();
    await fixture.clock.advance(1_000);
    assert.equal(fixture.catalog.index, index);
    for (let i = 0; i < 50; i++) assert.equal(fixture.catalog.get(`default/s${i}`), views[i]);
  });

  it('a changed merge policy or authority order is merged again and published without a change of the sources', async () => {
    const fixture = new CatalogFixture({ sources: [source('a'), source('b')] });
    fixture.say('a', S, [instance('10.0.0.1:80', { weight: 1 })]);
    fixture.say('b', S, [instance('10.0.0.1:80', { weight: 2 })]);
    const weight = (): number | undefined => fixture.views.at(-1)?.view?.instances[0]?.weight;
    await fixture.clock.advance(1_000);
    fixture.configure([source('b'), source('a')]);
    await settle();
    assert.equal(weight(), 2);
    await fixture.clock.advance(1_000);
    fixture.policies.set(S, { ...DEFAULT_SERVICE_POLICY, merge: { kind: 'prefer', order: ['a'] } });
    fixture.configure([source('b'), source('a')]);
    await settle();
    assert.equal(weight(), 1);
  });

  it('a source that leaves the config takes along all that it said, holds included, at once', () => {
    const fixture = new CatalogFixture({ sources: [source('a'), source('b')] });
    fixture.say('a', S, addresses(2));
    fixture.say('b', S, addresses(3));
    fixture.say('a', 'default/held', addresses(2, 1));
    fixture.say('a', 'default/held', []);
    const told: boolean[] = [];
    fixture.catalog.onHeld((_id, _key, held) => told.push(held));
    fixture.configure([source('b')]);
    assert.equal(fixture.size(S), 3);
    assert.equal(fixture.catalog.get('default/held'), undefined);
    assert.deepEqual([fixture.catalog.size, fixture.catalog.holds().length, told], [1, 0, [false]]);
    assert.equal(fixture.catalog.sourceSummary('a'), undefined);
    fixture.say('a', S, addresses(9));
    assert.equal(fixture.size(S), 3, 'a source that is not configured is not heard');
  });

  it('gauges are collected per source and go with it', () => {
    const fixture = new CatalogFixture({ sources: [source('a'), source('b')] });
    fixture.say('a', S, addresses(2));
    const text = (): string => [...fixture.metrics.render()].join('');
    assert.match(text(), /weir_source_state\{source="a",state="live"\} 1/);
    assert.match(text(), /weir_catalog_instances 2/);
    fixture.configure([source('b')]);
    assert.doesNotMatch(text(), /weir_source_state\{source="a"/);
  });

  it('after close nothing is heard and no timer is left', () => {
    const fixture = new CatalogFixture();
    fixture.say('a', S, addresses(2));
    fixture.say('a', S, []);
    fixture.say('a', S, addresses(4, 3));
    fixture.catalog.close();
    assert.equal(fixture.clock.pending, 0);
    fixture.say('a', 'default/two', addresses(1));
    fixture.lose('a');
    assert.deepEqual([fixture.size('default/two'), fixture.size(S), fixture.clock.pending], [-1, 6, 0]);
  });
});
