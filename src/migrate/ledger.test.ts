// The ledger in memory: found by address, counted by state, nothing left behind.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { addressOf, Ledger } from './ledger.ts';
import type { LedgerEntry } from './migration.ts';

const S = 'default/web';

function entry(port: number, fields: Partial<LedgerEntry> = {}): LedgerEntry {
  const at = { host: '10.0.0.1', port, transport: 'tcp' as const };
  const key = { namespace: 'default', name: 'web' };
  return {
    target: 'b',
    origin: 'a',
    service: S,
    key,
    ...at,
    state: 'written',
    receipt: null,
    applied: '',
    health: 'healthy',
    at: 0,
    epoch: 1,
    ...fields,
  };
}

describe('ledger', () => {
  it('finds copies by target and address, and keeps both directions of a service apart', () => {
    const ledger = new Ledger(
      new Map([[S, { service: S, baseline: ['x'], entries: [entry(1), entry(2, { target: 'a', origin: 'b' })] }]]),
    );
    assert.equal(ledger.entry('b', S, '10.0.0.1', 1, 'tcp')?.origin, 'a');
    assert.equal(ledger.entry('b', S, '10.0.0.1', 1, 'udp'), undefined);
    assert.equal(ledger.entry('b', S, '10.0.0.1', 2, 'tcp'), undefined);
    assert.deepEqual([ledger.copyOrigin(S, 'b', '10.0.0.1', 1), ledger.copyOrigin(S, 'a', '10.0.0.1', 2)], ['a', 'b']);
    assert.deepEqual(
      ledger.entriesIn('b', S).map(({ port }) => port),
      [1],
    );
    assert.deepEqual(ledger.page(S)?.baseline, ['x']);
  });

  it('kept and withheld entries are no copies for readers', () => {
    const ledger = new Ledger();
    ledger.write(entry(1, { state: 'kept' }));
    ledger.write(entry(2, { state: 'withheld' }));
    assert.deepEqual([ledger.copyOrigin(S, 'b', '10.0.0.1', 1), ledger.copyOrigin(S, 'b', '10.0.0.1', 2)], [null, null]);
  });

  it('a record at the address of a copy, under another id than its receipt has, is no copy', () => {
    const ledger = new Ledger();
    const key = { namespace: 'default', name: 'web' };
    ledger.write(entry(1, { receipt: { service: key, nativeId: '77' } }));
    ledger.write(entry(2, { state: 'intent' }));
    const origins = (port: number, ids: readonly string[]) => ids.map((id) => ledger.copyOrigin(S, 'b', '10.0.0.1', port, id));
    assert.deepEqual(origins(1, ['77', '78']), ['a', null]);
    assert.deepEqual(origins(2, ['77', '78']), ['a', 'a'], 'no answer told the id yet');
  });

  it('counts by state through writes, strikes and replaced pages', () => {
    const ledger = new Ledger();
    ledger.write(entry(1, { state: 'intent' }));
    ledger.write(entry(1));
    ledger.write(entry(2));
    assert.deepEqual(ledger.counts().get('b'), { intent: 0, written: 2, withheld: 0, removing: 0, kept: 0 });
    ledger.put({ service: S, baseline: null, entries: [entry(3, { state: 'removing' })] });
    assert.deepEqual([ledger.counts().get('b')?.removing, ledger.size], [1, 1]);
    ledger.strike(entry(3));
    assert.deepEqual([ledger.size, ledger.page(S), [...ledger.pages()], ledger.counts().size], [0, undefined, [], 0]);
  });

  it('a page with a baseline alone stays', () => {
    const ledger = new Ledger();
    ledger.setBaseline(S, []);
    ledger.write(entry(1));
    ledger.strike(entry(1));
    assert.deepEqual(ledger.page(S), { service: S, baseline: [], entries: [] });
  });

  it('names from outside do no harm', () => {
    const ledger = new Ledger();
    for (const service of ['__proto__', 'constructor', 'default/toString']) ledger.write(entry(1, { service, target: service }));
    assert.equal(ledger.size, 3);
    assert.equal(ledger.entry('b', 'hasOwnProperty', 'x', 1, 'tcp'), undefined);
    assert.equal(addressOf({ host: '::1', port: 1, transport: 'udp' }), '::1:1/udp');
  });
});
