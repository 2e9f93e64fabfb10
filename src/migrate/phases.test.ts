import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { doc, spec } from '../../test/migrate/docs.ts';
import type { MigrationDoc, Phase, VerifyOutcome } from './migration.ts';
import { type Step, type StepFacts, take } from './phases.ts';

const NOW = 10_000_000;

function facts(changes: Partial<StepFacts> = {}): StepFacts {
  return { now: NOW, behind: [], planErrors: [], copiesLeft: [], onlyInTo: [], onlyInFrom: [], blind: null, ...changes };
}

function verified(outcome: VerifyOutcome): MigrationDoc['lastVerify'] {
  return { outcome, at: NOW, services: 1, missing: 0, extra: 0, differing: 0, unreachable: 0 };
}

const ready: Partial<MigrationDoc> = { lastVerify: verified('ok'), okSince: NOW - 600_000, startedAt: 1_000 };

function after(step: Step, from: Partial<MigrationDoc>, what: Partial<StepFacts> = {}): MigrationDoc {
  const result = take(step, doc(from), facts(what));
  assert.ok(result.ok, result.ok ? '' : result.missing.join('; '));
  return result.doc;
}

function refusal(step: Step, from: Partial<MigrationDoc>, what: Partial<StepFacts> = {}): { code: string; missing: string } {
  const result = take(step, doc(from), facts(what));
  assert.ok(!result.ok, 'the step was allowed');
  return { code: result.code, missing: result.missing.join('; ') };
}

describe('steps of a migration', () => {
  it('goes plan → mirror → shift → cutover → finished, each with its time', () => {
    const mirror = after({ kind: 'start' }, {});
    assert.deepEqual([mirror.phase, mirror.startedAt, mirror.since], ['mirror', NOW, NOW]);
    const shift = after({ kind: 'shift', weight: 10 }, { ...ready, phase: 'mirror' });
    assert.deepEqual([shift.phase, shift.weight], ['shift', 10]);
    const cutover = after({ kind: 'cutover' }, { ...ready, phase: 'shift', weight: 100 });
    assert.deepEqual([cutover.phase, cutover.weight], ['cutover', 100]);
    const finished = after({ kind: 'finish', keepCopies: false }, { ...ready, phase: 'cutover', weight: 100 });
    assert.deepEqual([finished.phase, finished.keptCopies], ['finished', false]);
  });

  it('names the phases in which a step that is out of order would be allowed', () => {
    const steps: [Step, Phase][] = [
      [{ kind: 'start' }, 'mirror'],
      [{ kind: 'shift', weight: 1 }, 'plan'],
      [{ kind: 'shift', weight: 1 }, 'cutover'],
      [{ kind: 'cutover' }, 'mirror'],
      [{ kind: 'finish', keepCopies: true }, 'shift'],
      [{ kind: 'abort', force: true }, 'finished'],
      [{ kind: 'start' }, 'aborted'],
    ];
    for (const [step, phase] of steps) {
      const { code, missing } = refusal(step, { ...ready, phase });
      assert.equal(code, 'MIGRATION_PHASE');
      assert.match(missing, new RegExp(`is allowed in .*, the migration is in ${phase}`));
    }
  });

  it('does not start a plan that has errors, and lists all of them', () => {
    const { code, missing } = refusal({ kind: 'start' }, {}, { planErrors: ['a', 'b'] });
    assert.deepEqual([code, missing], ['MIGRATION_INVALID', 'a; b']);
  });

  it('shifts only after verify was ok for the soak time', () => {
    const shift: Step = { kind: 'shift', weight: 1 };
    assert.match(refusal(shift, { phase: 'mirror' }).missing, /no verify has run yet/);
    const drift = { phase: 'mirror' as const, lastVerify: verified('drift'), okSince: null };
    assert.match(refusal(shift, drift).missing, /the last verify said drift/);
    const early = { ...ready, phase: 'mirror' as const, okSince: NOW - 599_000 };
    assert.match(refusal(shift, early).missing, /1 s more/);
    assert.equal(after(shift, { ...early, spec: spec({ gates: { soak: '0ms' } }) }).phase, 'shift');
  });

  it('a stopped shift goes only down until it was lowered', () => {
    const stopped = { ...ready, phase: 'shift' as const, weight: 50, stopped: { at: 1, reason: 'errors' } };
    assert.match(refusal({ kind: 'shift', weight: 60 }, stopped).missing, /errors/);
    assert.match(refusal({ kind: 'cutover' }, { ...stopped, weight: 100 }).missing, /errors/);
    const lowered = after({ kind: 'shift', weight: 10 }, stopped);
    assert.deepEqual([lowered.weight, lowered.stopped], [10, null]);
    assert.equal(after({ kind: 'shift', weight: 60 }, { ...stopped, ...lowered }).weight, 60);
  });

  it('cuts over from weight 100 only, and never on an unsafe verify', () => {
    assert.match(refusal({ kind: 'cutover' }, { ...ready, phase: 'shift', weight: 99 }).missing, /shift to 100 first/);
    const unsafe = { ...ready, phase: 'shift' as const, weight: 100, lastVerify: verified('unsafe') };
    assert.match(refusal({ kind: 'cutover' }, unsafe).missing, /unsafe/);
  });

  it('rolls back one step whatever else is wrong, and keeps the weight of the shift', () => {
    const wrong = { behind: ['b'], blind: 'away', onlyInTo: ['x'], onlyInFrom: ['y'], copiesLeft: ['z'] };
    const back = after({ kind: 'rollback' }, { phase: 'cutover', weight: 70 }, wrong);
    assert.deepEqual([back.phase, back.weight], ['shift', 70]);
    const mirror = after({ kind: 'rollback' }, { phase: 'shift', weight: 70, stopped: { at: 1, reason: 'x' } }, wrong);
    assert.deepEqual([mirror.phase, mirror.weight, mirror.stopped], ['mirror', 0, null]);
    for (const phase of ['plan', 'mirror'] as const) assert.match(refusal({ kind: 'rollback' }, { phase }).missing, /use abort/);
  });

  it('finishes only when no copy stands in for a provider, unless copies are kept', () => {
    const cut = { ...ready, phase: 'cutover' as const, weight: 100 };
    const left = { copiesLeft: ['game/a 10.0.0.1:80'] };
    assert.match(refusal({ kind: 'finish', keepCopies: false }, cut, left).missing, /game\/a 10\.0\.0\.1:80 is a copy/);
    assert.equal(after({ kind: 'finish', keepCopies: true }, cut, left).keptCopies, true);
    const ephemeral = { ...left, keepsNone: true };
    assert.match(refusal({ kind: 'finish', keepCopies: true }, cut, ephemeral).missing, /new cannot keep copies/);
    assert.equal(after({ kind: 'finish', keepCopies: true }, cut, { keepsNone: true }).keptCopies, false);
    const gone = { onlyInFrom: ['game/a 10.0.0.2:80'] };
    assert.match(refusal({ kind: 'finish', keepCopies: true }, cut, gone).missing, /only in old/);
    assert.match(refusal({ kind: 'finish', keepCopies: true }, cut, { blind: 'new is away' }).missing, /new is away/);
  });

  it('aborts from plan at once, from mirror and shift through aborting, from cutover never', () => {
    assert.equal(after({ kind: 'abort', force: false }, {}).phase, 'aborted');
    for (const phase of ['mirror', 'shift'] as const)
      assert.equal(after({ kind: 'abort', force: false }, { phase }).phase, 'aborting');
    assert.match(refusal({ kind: 'abort', force: true }, { phase: 'cutover' }).missing, /roll back first/);
  });

  it('an abort that would hide an instance is unsafe, until it is forced', () => {
    for (const what of [{ onlyInTo: ['game/a 10.0.0.9:80'] }, { blind: 'old is away' }]) {
      assert.equal(refusal({ kind: 'abort', force: false }, { phase: 'mirror' }, what).code, 'MIGRATION_UNSAFE');
      assert.equal(after({ kind: 'abort', force: true }, { phase: 'mirror' }, what).phase, 'aborting');
    }
  });

  it('shift, cutover and finish wait for every sidecar and name it', () => {
    const steps: [Step, Partial<MigrationDoc>][] = [
      [
        { kind: 'shift', weight: 5 },
        { ...ready, phase: 'mirror' },
      ],
      [{ kind: 'cutover' }, { ...ready, phase: 'shift', weight: 100 }],
      [
        { kind: 'finish', keepCopies: true },
        { ...ready, phase: 'cutover', weight: 100 },
      ],
    ];
    for (const [step, from] of steps) assert.match(refusal(step, from, { behind: ['host-3'] }).missing, /sidecar host-3/);
  });
});
