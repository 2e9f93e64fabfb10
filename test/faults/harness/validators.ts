// The claims of reliability.md §3 over a recorded history: what every client saw, what every upstream executed, what the catalog said.
// Pure; each throws an AssertionError that names the first violations.
import assert from 'node:assert/strict';
import type { Outcome } from './client.ts';

/** One read of a service's view. */
export interface CatalogRead {
  readonly at: number;
  readonly revision: number;
  /** `host:port`, sorted. */
  readonly addresses: readonly string[];
  readonly held: number;
  readonly stale: boolean;
}

const IDEMPOTENT = new Set(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE']);

export function isIdempotent({ method }: Pick<Outcome, 'method'>): boolean {
  return IDEMPOTENT.has(method);
}

/** Outcomes by verdict (and, of errors, by code). */
export function tally(outcomes: readonly Outcome[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { verdict, status, error } of outcomes) {
    const name = verdict === 'error' ? `error ${status} ${error}`.trim() : verdict;
    counts[name] = (counts[name] ?? 0) + 1;
  }
  return counts;
}

function show(outcomes: readonly Outcome[]): string {
  const first = outcomes.slice(0, 5).map((one) => JSON.stringify({ ...one, ms: Math.round(one.ms), at: Math.round(one.at) }));
  return `${JSON.stringify(tally(outcomes))}\n${first.join('\n')}`;
}

/** Every one of them was answered 200 and whole. */
export function noneFailed(outcomes: readonly Outcome[], what = 'requests'): void {
  const failed = outcomes.filter(({ verdict }) => verdict !== 'ok');
  assert.equal(failed.length, 0, `${failed.length} of ${outcomes.length} ${what} failed: ${show(failed)}`);
}

/** One outcome per id. */
export function exactlyOneOutcome(outcomes: readonly Outcome[], issued: number): void {
  assert.equal(outcomes.length, issued, 'every request has an outcome');
  assert.equal(new Set(outcomes.map(({ id }) => id)).size, issued, 'ids are unique');
}

/** No request that is not idempotent ran twice; returns how many of them ran. */
export function atMostOnce(outcomes: readonly Outcome[], executed: ReadonlyMap<string, number>): number {
  const unsafe = outcomes.filter((one) => !isIdempotent(one));
  const twice = unsafe.filter(({ id }) => (executed.get(id) ?? 0) > 1);
  assert.equal(twice.length, 0, `${twice.length} of ${unsafe.length} were executed twice: ${show(twice)}`);
  return unsafe.filter(({ id }) => executed.has(id)).length;
}

/** Whoever was told 200 was executed. */
export function nothingInvented(outcomes: readonly Outcome[], executed: ReadonlyMap<string, number>): void {
  const invented = outcomes.filter(({ verdict, id }) => verdict === 'ok' && !executed.has(id));
  assert.equal(invented.length, 0, `answered 200 without being executed: ${show(invented)}`);
}

/** Nothing cut, foreign or mixed was delivered as a whole answer. */
export function nothingWrongDelivered(outcomes: readonly Outcome[]): void {
  const wrong = outcomes.filter(({ verdict }) => verdict === 'wrong');
  assert.equal(wrong.length, 0, `delivered as complete, but not what was sent: ${show(wrong)}`);
}

/** Executions per client request; the retry budget keeps it at 1.20. */
export function amplification(outcomes: readonly Outcome[], executed: ReadonlyMap<string, number>): number {
  let sum = 0;
  for (const { id } of outcomes) sum += executed.get(id) ?? 0;
  return sum / outcomes.length;
}

/** Revisions never go back within one life of the process. */
export function revisionsMonotonic(reads: readonly CatalogRead[]): void {
  for (const [i, read] of reads.entries()) {
    const before = reads[i - 1];
    if (before === undefined) continue;
    assert.ok(read.revision >= before.revision, `revision ${read.revision} after ${before.revision}`);
  }
}

/** No read lacks one of these addresses. */
export function neverMissing(reads: readonly CatalogRead[], addresses: readonly string[]): void {
  assert.ok(reads.length > 0, 'the catalog was read');
  for (const { addresses: seen, at } of reads) {
    const missing = addresses.filter((address) => !seen.includes(address));
    assert.deepEqual(missing, [], `missing at ${Math.round(at)}; seen ${seen.join(' ') || 'none'}`);
  }
}

/** No read has an address that nobody registered. */
export function noPhantom(reads: readonly CatalogRead[], addresses: ReadonlySet<string>): void {
  const phantoms = new Set(reads.flatMap(({ addresses: seen }) => seen.filter((address) => !addresses.has(address))));
  assert.deepEqual([...phantoms], []);
}

/** The set of addresses changed at most `n` times. */
export function noOscillation(reads: readonly CatalogRead[], n: number): void {
  let changes = 0;
  for (const [i, read] of reads.entries()) {
    const before = reads[i - 1];
    if (before !== undefined && before.addresses.join() !== read.addresses.join()) changes++;
  }
  assert.ok(changes <= n, `the view changed ${changes} times, at most ${n} were due`);
}

/** Nobody was sent to the address after `from`. */
export function notRoutedAfter(outcomes: readonly Outcome[], address: string, from: number): void {
  const late = outcomes.filter(({ upstream, at }) => upstream === address && at > from);
  assert.equal(late.length, 0, `still sent to ${address}: ${show(late)}`);
}

/** Latency at a quantile, ms. */
export function quantile(outcomes: readonly Outcome[], q: number): number {
  const sorted = outcomes.map(({ ms }) => ms).sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? Number.NaN;
}
