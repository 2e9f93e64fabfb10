// The checker is worth what it finds: each claim against a history that breaks it, and against one that keeps it.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import * as claims from './checker.ts';

const S = 'default/a';
const view = (at: number, addresses: readonly string[], over: Partial<claims.ViewRead> = {}): claims.ViewRead => ({
  ...{ at, sidecar: 'weir#0', service: S, startedAt: 0, phase: 'mirror', weight: 0, merge: '', shares: null, sticky: null },
  instances: addresses.map((address) => ({
    address,
    weight: 100,
    health: 'healthy',
    isolated: false,
    held: false,
    groups: null,
  })),
  ...over,
});
const life = (address: string, since: number, until: number | null = null): claims.Life => ({
  service: S,
  address,
  since,
  until,
});
const record = (registry: string, address: string, over: Partial<claims.Standing> = {}): claims.Standing => ({
  ...{ registry, service: S, address, key: address, writer: 'provider', weight: 100, health: 'healthy', isolated: false },
  metadata: new Map(),
  ...over,
});
const marked = (registry: string, address: string, over: Partial<claims.Standing> = {}): claims.Standing =>
  record(registry, address, { writer: 'sidecar', metadata: new Map([['weir-origin', 'old']]), ...over });
const always = (): number => Number.NEGATIVE_INFINITY;
const all = { weight: true, health: true, isolated: true, metadata: true };
const mirror: claims.MirrorClaim = {
  ...{ from: 'old', to: 'new', twoWay: false, baseline: new Set() },
  ...{ speaks: { old: all, new: all }, registers: { old: true, new: true } },
};

describe('the checker finds', () => {
  it('an instance that leaves a view though it lives, and not one that died or came back', () => {
    const lives = [life('a', 0), life('b', 0, 15)];
    claims.noneLost([view(10, ['a', 'b']), view(20, ['a'])], lives);
    assert.throws(() => claims.noneLost([view(10, ['a', 'b']), view(12, ['a'])], lives), /b of default\/a left the view/);
    claims.noneLost([view(10, ['a']), view(20, [])], lives, () => true);
  });

  it('an instance that nobody provides, and one that stays for longer than the grace', () => {
    assert.throws(() => claims.noneInvented([view(10, ['x'])], [life('a', 0)], 1_000, always), /x of default\/a/);
    claims.noneInvented([view(900, ['a'])], [life('a', 0, 100)], 1_000, always);
    assert.throws(() => claims.noneInvented([view(1_200, ['a'])], [life('a', 0, 100)], 1_000, always), /dead since 100/);
  });

  it('a write of ours to a native, to a copy of a tool and to one of another migration', () => {
    const change = (before: claims.Standing): claims.Changed => ({ ...before, at: 1, by: 'weir#0', before, after: null });
    claims.nativesUntouched([change(marked('new', 'a'))], new Set(['m1']));
    assert.throws(() => claims.nativesUntouched([change(record('new', 'a'))], new Set(['m1'])), /not ours/);
    assert.throws(() => claims.nativesUntouched([change(record('new', 'a', { writer: 'tool' }))], new Set(['m1'])), /not ours/);
    const another = marked('new', 'a', { metadata: new Map([['weir-migration', 'm2']]) });
    assert.throws(() => claims.nativesUntouched([change(another)], new Set(['m1'])), /not ours/);
  });

  it('a copy of nothing, a missing copy, a copy beside a native, a field that is not carried, a missing marker', () => {
    claims.mirrored([record('old', 'a'), marked('new', 'a')], mirror);
    assert.throws(() => claims.mirrored([marked('new', 'a')], mirror), /has no origin/);
    assert.throws(() => claims.mirrored([record('old', 'a')], mirror), /0 copies in new, not 1/);
    assert.throws(
      () => claims.mirrored([record('old', 'a'), record('new', 'a'), marked('new', 'a', { key: 'b' })], mirror),
      /is native in new too/,
    );
    assert.throws(() => claims.mirrored([record('old', 'a'), marked('new', 'a', { weight: 7 })], mirror), /weight is 7/);
    assert.throws(
      () => claims.mirrored([record('old', 'a'), marked('new', 'a', { metadata: new Map() })], mirror),
      /origin is undefined/,
    );
    const drained = record('old', 'a', { isolated: true });
    const mute = { ...mirror, speaks: { old: all, new: { ...all, isolated: false } } };
    claims.mirrored([drained, marked('new', 'a', { weight: 0 })], mute);
    assert.throws(() => claims.mirrored([drained, marked('new', 'a')], mute), /weight is 100/);
  });

  it('what an end leaves behind', () => {
    claims.nothingLeft([record('new', 'a')]);
    assert.throws(() => claims.nothingLeft([marked('new', 'a')]), /left behind/);
    claims.finishedWell([marked('new', 'a', { metadata: new Map([['weir-kept', 'old']]) })], 'old', all);
    assert.throws(() => claims.finishedWell([marked('new', 'a')], 'old', all), /still marked/);
    assert.throws(() => claims.finishedWell([marked('old', 'a')], 'old', all), /return copies left/);
  });

  it('a write without its line, a line without its write, and a write of the dead', () => {
    const put: claims.CarriedOut = { at: 1, registry: 'new', service: S, address: 'a', by: 'weir#0', what: 'put', told: true };
    const line: claims.AuditSeen = { at: 1, by: 'weir#0', what: 'put', registry: 'new', service: S, instance: 'a', result: 'ok' };
    claims.everyWriteAudited([put], [line], new Map());
    assert.throws(() => claims.everyWriteAudited([put], [], new Map()), /1 writes, 0 lines/);
    assert.throws(() => claims.everyWriteAudited([], [line], new Map()), /1 lines say ok, 0 writes/);
    claims.everyWriteAudited([put], [], new Map([['weir#0', 1]]));
    const change: claims.Changed = {
      at: 9,
      registry: 'new',
      service: S,
      address: 'a',
      by: 'weir#0',
      before: null,
      after: marked('new', 'a'),
    };
    assert.throws(() => claims.deadWriteNothing([change], new Map([['weir#0', 5]]), 0), /are dead/);
    assert.throws(() => claims.quiet([put], 0), /nothing to do/);
  });

  it('members that change with a step', () => {
    claims.sameMembers([view(1, ['a', 'b'])], [view(2, ['b', 'a'])], 'shift');
    assert.throws(() => claims.sameMembers([view(1, ['a', 'b'])], [view(2, ['a'])], 'shift'), /members changed by shift/);
  });
});
