// Copies are kept alive by one call per target, apart from everything else.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import type { Adapter, RenewResult } from '../adapter/contract.ts';
import { silentLog } from '../kernel/log.ts';
import { seededRandom } from '../kernel/random.ts';
import { SourceError } from '../model/snapshot.ts';
import { Beats } from './beats.ts';
import type { LedgerEntry } from './migration.ts';

function entry(port: number): LedgerEntry {
  const key = { namespace: 'default', name: 'web' };
  const receipt = { service: key, nativeId: `n${port}` };
  const at = { host: '10.0.0.1', port, transport: 'tcp' as const };
  return {
    target: 'b',
    origin: 'a',
    service: 'default/web',
    key,
    ...at,
    state: 'written',
    receipt,
    applied: '',
    health: 'healthy',
    at: 0,
    epoch: 1,
  };
}

function bench(heartbeat: 'none' | 'core' | 'server' = 'core') {
  const clock = new FakeClock();
  const state = { answer: (): RenewResult => ({ kind: 'renewed', leaseMs: 90_000 }), may: true, there: true };
  const times: number[] = [];
  const forgotten: number[] = [];
  const fenced: SourceError[] = [];
  const adapter: Adapter = {
    kind: 'fake',
    capabilities: {
      watch: 'push',
      list: true,
      register: true,
      heartbeat,
      reads: new Set(),
      keeps: new Set(),
      tellsDeregistration: false,
      tellsAbsent: false,
    },
    async *watch() {},
    read: () => Promise.reject(new SourceError('lost', 'never')),
    async renew(receipts) {
      times.push(clock.now());
      return receipts.map(() => state.answer());
    },
    async close() {},
  };
  const entries = Array.from({ length: 500 }, (_, n) => entry(n + 1));
  const beats = new Beats({
    clock,
    random: seededRandom(3),
    log: silentLog,
    target: 'b',
    ttl: 90_000,
    adapter: () => (state.there ? adapter : null),
    mayRenew: () => state.may,
    entries: () => entries,
    onForgotten: ({ port }) => void forgotten.push(port),
    onFenced: (error) => void fenced.push(error),
  });
  beats.start();
  return { clock, state, times, forgotten, fenced, beats };
}

describe('beats', () => {
  it('come within a second, then every third of the ttl ± 10 %, by one timer', async () => {
    const { clock, times, beats } = bench();
    assert.equal(clock.pending, 1);
    await clock.advance(1_000);
    assert.equal(times.length, 1);
    await clock.advance(600_000);
    for (const [n, at] of times.entries()) {
      const gap = at - (times[n - 1] ?? at - 30_000);
      assert.ok(gap >= 27_000 && gap <= 33_000, `${gap} ms`);
    }
    assert.equal(clock.pending, 1);
    await beats.close();
    assert.equal(clock.pending, 0);
  });

  it('are none where the registry says none', async () => {
    const { clock, times, beats } = bench('none');
    await clock.advance(120_000);
    assert.equal(times.length, 0);
    await beats.close();
  });

  it('come where records of our own live by the connection: copies do not', async () => {
    const { clock, times, beats } = bench('server');
    await clock.advance(60_000);
    assert.ok(times.length >= 2, `${times.length} beats`);
    await beats.close();
  });

  it('that fail are tried again within seconds, and go on when the source returns', async () => {
    const { clock, times, state, beats } = bench();
    await clock.advance(1_000);
    state.answer = () => {
      throw new SourceError('lost', 'no route');
    };
    await clock.advance(90_000);
    const failing = times.length;
    assert.ok(failing >= 10, `${failing} tries`);
    assert.match(beats.lastError?.message ?? '', /no route/);
    state.answer = () => ({ kind: 'renewed', leaseMs: 90_000 });
    await clock.advance(10_000);
    assert.equal(beats.lastError, null);
    state.there = false;
    await clock.advance(90_000);
    state.there = true;
    const before = times.length;
    await clock.advance(34_000);
    assert.ok(times.length > before);
    await beats.close();
  });

  it('tell of forgotten leases and of a fence, and stop without the right to write', async () => {
    const { clock, times, state, forgotten, fenced, beats } = bench();
    state.answer = () => ({ kind: 'forgotten' });
    await clock.advance(1_000);
    assert.equal(forgotten.length, 500);
    state.answer = () => new SourceError('fenced', 'stale');
    await clock.advance(40_000);
    assert.ok(fenced.length > 0);
    state.may = false;
    const before = times.length;
    await clock.advance(100_000);
    assert.equal(times.length, before);
    await beats.close();
  });
});
