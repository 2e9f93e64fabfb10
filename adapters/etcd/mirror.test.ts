// The mirror never shows a state that the store did not have, however lists and events interleave.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { randomBelow, seededRandom } from '../../src/kernel/random.ts';
import { Epochs, type KeyEvent, keyText, type Listing, Mirror } from './mirror.ts';
import type { KeyValue } from './protocol.ts';

function kv(key: string, modRevision: number, value = `v${modRevision}`, createRevision = modRevision): KeyValue {
  return {
    key: Buffer.from(key),
    createRevision: String(createRevision),
    modRevision: String(modRevision),
    version: '1',
    value: Buffer.from(value),
    lease: '0',
  };
}

function list(revision: number, ...kvs: KeyValue[]): Listing {
  return { header: { clusterId: '7', memberId: '1', revision: String(revision), raftTerm: '2' }, kvs };
}

const put = (key: string, revision: number, create = revision): KeyEvent => ({
  kind: 'put',
  kv: kv(key, revision, `v${revision}`, create),
});
const del = (key: string, revision: number): KeyEvent => ({
  kind: 'delete',
  kv: { ...kv(key, revision, ''), createRevision: '0' },
});

function mirror(): Mirror<string> {
  return new Mirror((_key, { value }) => value.toString());
}

function shown(m: Mirror<string>): Record<string, string> {
  return Object.fromEntries([...m.entries()].map(([key, { record }]) => [key, record]).sort());
}

describe('a list', () => {
  it('replaces nothing that is equal and tells what was added, changed and removed', () => {
    const m = mirror();
    m.applyList(list(5, kv('a', 2), kv('b', 3), kv('c', 4)), 0);
    assert.equal(m.next, 6n);
    const changes = m.applyList(list(9, kv('a', 2), kv('b', 8, 'new', 3), kv('d', 9)), 0);
    assert.deepEqual(
      changes.map(({ key, before, after, revision }) => [key, before?.record ?? null, after?.record ?? null, revision]),
      [
        ['b', 'v3', 'new', 8n],
        ['d', null, 'v9', 9n],
        ['c', 'v4', null, 9n],
      ],
    );
    assert.equal(m.next, 10n);
  });

  it('that is older than an event keeps the event: put, change and delete alike', () => {
    const m = mirror();
    m.applyList(list(5, kv('a', 2), kv('b', 3)), 0);
    m.beginList();
    m.applyEvents([put('a', 7, 2), del('b', 8), put('c', 9)]);
    m.applyList(list(6, kv('a', 2), kv('b', 3)), 0);
    assert.deepEqual(shown(m), { a: 'v7', c: 'v9' });
    assert.equal(m.next, 10n);
  });

  it('does not let a delete of an earlier list protect a key for ever', () => {
    const m = mirror();
    m.applyList(list(5, kv('a', 2)), 0);
    m.applyEvents([del('a', 6)]);
    m.beginList();
    m.applyList(list(9, kv('a', 8)), 0);
    assert.deepEqual(shown(m), { a: 'v8' });
  });

  it('of a new epoch replaces everything, also by lower revisions, and takes nothing as known', () => {
    const m = mirror();
    m.applyList(list(100, kv('a', 90), kv('b', 100)), 0);
    const changes = m.applyList(list(11, kv('a', 90, 'other'), kv('c', 11)), 1);
    assert.deepEqual(shown(m), { a: 'other', c: 'v11' });
    assert.equal(m.next, 12n);
    assert.deepEqual(changes.map(({ key }) => key).sort(), ['a', 'b', 'c']);
  });

  it('contradicts what we hold when a key is older, or another at the same revision, than by its own history', () => {
    const m = mirror();
    m.applyList(list(10, kv('a', 5), kv('b', 9)), 0);
    m.applyEvents([put('c', 20)]);
    assert.equal(m.contradicts(list(12, kv('a', 5), kv('b', 9))), false);
    assert.equal(m.contradicts(list(12, kv('a', 11, 'x', 5), kv('b', 9))), false);
    assert.equal(m.contradicts(list(12, kv('a', 4), kv('b', 9))), true, 'older than ours');
    assert.equal(m.contradicts(list(12, kv('a', 5, 'other'), kv('b', 9))), true, 'another value');
    assert.equal(m.contradicts(list(12, kv('a', 5, 'v5', 4), kv('b', 9))), true, 'another create revision');
    assert.equal(m.contradicts(list(12, kv('c', 3))), false, 'ours is newer than the list itself');
  });
});

describe('events', () => {
  it('below next are dropped, and applying a response twice changes nothing', () => {
    const m = mirror();
    m.applyList(list(6, kv('a', 6)), 0);
    assert.deepEqual(m.applyEvents([put('a', 6)]), []);
    assert.equal(m.next, 7n);
    assert.equal(m.applyEvents([put('a', 7), put('b', 7)]).length, 2);
    assert.deepEqual(m.applyEvents([put('a', 7), put('b', 7)]), []);
    assert.equal(m.next, 8n);
  });

  it('of keys that are no text, or too long, advance the revision and are otherwise ignored', () => {
    const m = mirror();
    m.applyList(list(1), 0);
    const odd = { ...kv('x', 2), key: Buffer.from([0xff, 0xfe]) };
    assert.deepEqual(m.applyEvents([{ kind: 'put', kv: odd }, put('k'.repeat(1_025), 3)]), []);
    assert.equal(m.next, 4n);
    assert.equal(keyText(Buffer.from([0xc3, 0x28])), null);
    assert.equal(keyText(Buffer.from('ключ')), 'ключ');
  });

  it('whose value stops being a key for us remove it', () => {
    const m = new Mirror<string>((_key, { value }) => (value.toString() === 'v9' ? null : value.toString()));
    m.applyList(list(2, kv('a', 2)), 0);
    const [change] = m.applyEvents([put('a', 9, 2)]);
    assert.equal(change?.after, null);
    assert.equal(m.size, 0);
  });

  it('advance never goes back', () => {
    const m = mirror();
    m.applyList(list(9), 0);
    m.advance(7n);
    assert.equal(m.next, 10n);
    m.advance(12n);
    assert.equal(m.next, 13n);
  });
});

describe('an epoch', () => {
  const header = (revision: number, clusterId = '7', raftTerm = '2') => ({
    clusterId,
    memberId: '1',
    revision: String(revision),
    raftTerm,
  });

  for (const [name, now] of [
    ['a lower revision', header(8)],
    ['another cluster', header(20, '8')],
    ['an older term', header(20, '7', '1')],
  ] as const) {
    it(`begins with ${name} than a list could have`, () => {
      const epochs = new Epochs();
      epochs.judge(null, header(9));
      const before = epochs.text;
      assert.equal(epochs.judge(epochs.mark(), now), true);
      assert.notEqual(epochs.text, before);
      assert.equal(epochs.judge(epochs.mark(), now), false, 'and goes on from there');
    });
  }

  it('does not begin when something newer was seen only while the list was under way', () => {
    const epochs = new Epochs();
    epochs.judge(null, header(9));
    const mark = epochs.mark();
    epochs.note('7', 30n, 2n);
    assert.equal(epochs.judge(mark, header(12)), false);
    assert.equal(epochs.mark()?.revision, 30n);
  });

  it('begins once when two reads find it at the same time', () => {
    const epochs = new Epochs();
    epochs.judge(null, header(90));
    const mark = epochs.mark();
    assert.equal(epochs.judge(mark, header(8)), true);
    assert.equal(epochs.judge(mark, header(8)), false);
    assert.equal(epochs.number, 1);
  });
});

it('1,000 random interleavings of events and lists of one history end in its state, and every step was one of its states', () => {
  for (let seed = 1; seed <= 1_000; seed++) {
    const random = seededRandom(seed);
    const states: Map<string, KeyValue>[] = [new Map()];
    const events: KeyEvent[] = [];
    for (let revision = 1; revision <= 40; revision++) {
      const state = new Map(states.at(-1));
      const key = `k${randomBelow(random, 6)}`;
      const held = state.get(key);
      if (held !== undefined && random() < 0.4) {
        state.delete(key);
        events.push(del(key, revision));
      } else {
        const event = put(key, revision, held === undefined ? revision : Number(held.createRevision));
        state.set(key, event.kv);
        events.push(event);
      }
      states.push(state);
    }
    const m = mirror();
    let applied = 0;
    let pending: number | null = null;
    m.applyList(list(0), 0);
    while (applied < 40 || pending !== null) {
      if (pending === null && random() < 0.2) {
        m.beginList();
        // A linearizable list is never older than what was known when it was asked for.
        pending = Math.min(40, Math.max(applied, Number(m.next) - 1) + randomBelow(random, 4));
      } else if (pending !== null && (random() < 0.3 || applied === 40)) {
        const found = list(pending, ...(states[pending]?.values() ?? []));
        assert.equal(m.contradicts(found), false, `seed ${seed}`);
        m.applyList(found, 0);
        pending = null;
      } else if (applied < 40) {
        applied = Math.min(40, applied + 1 + randomBelow(random, 3));
        m.applyEvents(events.slice(Math.max(0, applied - 5), applied));
      }
      const at = Number(m.next) - 1;
      const want = Object.fromEntries([...(states[at] ?? [])].map(([key, one]) => [key, one.value.toString()]).sort());
      assert.deepEqual(shown(m), want, `seed ${seed} at revision ${at}`);
    }
  }
});
