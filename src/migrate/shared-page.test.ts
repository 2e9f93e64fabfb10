// How a ledger page stands in a shared store: bounded values, stable parts, and nothing put together that does not belong together.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ledgerEntry, ledgerPage } from '../../test/support/migration-fixture.ts';
import { WeirError } from '../kernel/errors.ts';
import type { LedgerPage } from './migration.ts';
import { keyPart, targetLockKey } from './shared-keys.ts';
import { MAX_VALUE_BYTES, type Plan, planPage, readLedger, type Shape, WHOLE } from './shared-page.ts';

const PREFIX = 'migrations/ledger/m/';
let generation = 0;
const next = (): string => `g${++generation}`;

function planned(page: LedgerPage, before: Shape = WHOLE): Plan {
  return planPage(page, PREFIX + keyPart(page.service), before, 'me', next);
}

function stored(page: LedgerPage, { parts, head }: Plan) {
  const values: readonly (readonly [string, string])[] = [...parts, [PREFIX + keyPart(page.service), head]];
  return values.map(([key, value]) => ({ key, value, revision: '1' }));
}

function read(entries: ReturnType<typeof stored>): ReturnType<typeof readLedger> {
  return readLedger('m', PREFIX, entries);
}

const ports = (count: number): number[] => Array.from({ length: count }, (_, n) => n + 1);
const byPort = (page: LedgerPage | undefined): number[] => (page?.entries ?? []).map(({ port }) => port).sort((a, b) => a - b);

describe('a page in a shared store', () => {
  it('stands whole in one value while it is small', () => {
    const page = ledgerPage('ns/größe/ a', [1, 2]);
    const plan = planned(page);
    assert.deepEqual([plan.shape, plan.parts], [WHOLE, []]);
    assert.deepEqual([...read(stored(page, plan)).pages], [[page.service, page]]);
  });

  it('of any size is split into values below the limit and read back whole', () => {
    for (const count of [1_000, 5_000, 20_000]) {
      const page = ledgerPage('ns/large', ports(count));
      const plan = planned(page);
      assert.ok(plan.shape.parts > 1);
      for (const { value } of stored(page, plan)) assert.ok(Buffer.byteLength(value) <= MAX_VALUE_BYTES);
      const back = read(stored(page, plan)).pages.get('ns/large');
      assert.deepEqual(byPort(back), ports(count));
      assert.deepEqual(back?.baseline, page.baseline);
    }
  });

  it('that is split keeps its parts: a change of one entry changes one value', () => {
    const page = ledgerPage('ns/large', ports(5_000));
    const first = planned(page);
    const changed = { ...page, entries: page.entries.map((entry) => (entry.port === 77 ? { ...entry, epoch: 9 } : entry)) };
    const second = planned(changed, first.shape);
    assert.deepEqual(second.shape, first.shape);
    assert.equal(second.head, first.head);
    const before = new Map(first.parts);
    assert.equal(second.parts.filter(([key, text]) => before.get(key) !== text).length, 1);
  });

  it('that has grown gets new parts beside the old ones, and comes together again only well below the limit', () => {
    const small = planned(ledgerPage('ns/large', ports(1_000)));
    const large = planned(ledgerPage('ns/large', ports(20_000)), small.shape);
    assert.ok(large.shape.parts > small.shape.parts);
    assert.notEqual(large.shape.generation, small.shape.generation);
    const fits = ledgerPage('ns/large', ports(600));
    assert.equal(planned(fits).shape.parts, 0);
    assert.ok(planned(fits, small.shape).shape.parts > 0, 'not yet');
    assert.equal(planned(ledgerPage('ns/large', ports(100)), small.shape).shape.parts, 0);
  });

  it('with a part missing, of another service or unreadable is damaged, and the key is named', () => {
    const page = ledgerPage('ns/large', ports(1_000));
    const whole = stored(page, planned(page));
    const damaged = (entries: typeof whole, reason: RegExp): void => {
      assert.throws(
        () => read(entries),
        (thrown: unknown) => thrown instanceof WeirError && thrown.code === 'MIGRATION_JOURNAL' && reason.test(thrown.message),
      );
    };
    damaged(whole.slice(1), /key migrations\/ledger\/m\/ns%2Flarge: part 1 of \d is missing/);
    const [first, ...rest] = whole;
    assert.ok(first !== undefined);
    damaged([{ ...first, value: first.value.slice(0, 100) }, ...rest], /no JSON/);
    damaged([{ ...first, value: first.value.replace('"version":1', '"version":2') }, ...rest], /version 2, this weir reads 1/);
    damaged([{ ...first, value: first.value.replace('"writer":"me"', '"writer":7') }, ...rest], /writer: expected/);
    const small = ledgerPage('ns/a', [1]);
    const [head] = stored(small, planned(small));
    assert.ok(head !== undefined);
    damaged([{ ...head, key: `${PREFIX}ns%2Fb` }], /the page of the service ns\/a/);
  });

  it('whose write was cut short leaves strays, which belong to no page', () => {
    const page = ledgerPage('ns/large', ports(1_000));
    const now = stored(page, planned(page));
    const cut = planned(page, { generation: 'old', parts: 0 });
    const strays = cut.parts.slice(0, 1).map(([key, value]) => ({ key, value, revision: '2' }));
    const found = read([...now, ...strays]);
    assert.deepEqual(found.strays, strays);
    assert.deepEqual(byPort(found.pages.get('ns/large')), ports(1_000));
  });
});

describe('keys in a shared store', () => {
  it('hold any name as one part of at most 200 characters or its digest', () => {
    const long = `ns/${'ü'.repeat(127)}`;
    assert.equal(keyPart('a/b c'), 'a%2Fb%20c');
    assert.match(keyPart(long), /^=[0-9a-f]{64}$/);
    assert.notEqual(keyPart(long), keyPart(`${long}x`));
    const page = { service: long, baseline: null, entries: [ledgerEntry(long, 80)] };
    assert.deepEqual(read(stored(page, planned(page))).pages.get(long), page);
  });

  it('of a lock in a target name the source, so that two sources on one server are two locks', () => {
    assert.notEqual(targetLockKey('m', 'a'), targetLockKey('m', 'b'));
  });
});
