// Owns the steps of a migration: which one is allowed when, what is missing for it, and what the document is after it (migration.md
// "Phases"). Pure: facts in, document out. Called by migrations.ts; must never write or read anything.
import type { MigrationDoc, Phase } from './migration.ts';

export type Step =
  | { readonly kind: 'start' }
  | { readonly kind: 'shift'; readonly weight: number }
  | { readonly kind: 'cutover' }
  | { readonly kind: 'rollback' }
  | { readonly kind: 'finish'; readonly keepCopies: boolean }
  | { readonly kind: 'abort'; readonly force: boolean };

/** What must be known to judge a step; lists are for people and bounded by who makes them. */
export interface StepFacts {
  /** Wall ms. */
  readonly now: number;
  /** Sidecars that have not reported the present phase and weight. */
  readonly behind: readonly string[];
  /** Faults of the plan. */
  readonly planErrors: readonly string[];
  /** Copies in `to` that still stand in for a provider of `from`. */
  readonly copiesLeft: readonly string[];
  /** Native in `to` and not in `from`; a return copy there does not count, the abort takes it away. */
  readonly onlyInTo: readonly string[];
  /** Native in `from` and in `to` neither natively nor as a copy. */
  readonly onlyInFrom: readonly string[];
  /** Why the facts above cannot be trusted now (a source is away); null: they can. */
  readonly blind: string | null;
  /** True where copies in `to` cannot become ordinary records; default: they can. */
  readonly keepsNone?: boolean;
}

export type StepResult =
  | { readonly ok: true; readonly doc: MigrationDoc }
  | {
      readonly ok: false;
      readonly code: 'MIGRATION_PHASE' | 'MIGRATION_UNSAFE' | 'MIGRATION_INVALID';
      readonly missing: readonly string[];
    };

/** The document after the step, or everything that is missing for it. */
export function take(step: Step, doc: MigrationDoc, facts: StepFacts): StepResult {
  switch (step.kind) {
    case 'start':
      return start(doc, facts);
    case 'shift':
      return shift(doc, step.weight, facts);
    case 'cutover':
      return cutover(doc, facts);
    case 'rollback':
      return rollback(doc, facts);
    case 'finish':
      return finish(doc, step.keepCopies, facts);
    case 'abort':
      return abort(doc, step.force, facts);
  }
}

function start(doc: MigrationDoc, facts: StepFacts): StepResult {
  if (doc.phase !== 'plan') return wrongPhase('start', doc, ['plan']);
  if (facts.planErrors.length > 0) return refused('MIGRATION_INVALID', facts.planErrors);
  return to(doc, 'mirror', 0, facts, { startedAt: facts.now });
}

function shift(doc: MigrationDoc, weight: number, facts: StepFacts): StepResult {
  if (doc.phase !== 'mirror' && doc.phase !== 'shift') return wrongPhase('shift', doc, ['mirror', 'shift']);
  const missing = behind(facts);
  if (doc.phase === 'mirror') missing.push(...soakFaults(doc, facts.now));
  // Less traffic on the new side is always allowed.
  const further = doc.phase === 'mirror' || weight > doc.weight;
  if (further && doc.stopped !== null) {
    missing.push(`the shift was stopped: ${doc.stopped.reason}; lower the weight or roll back, then shift again`);
  }
  if (missing.length > 0) return refused('MIGRATION_PHASE', missing);
  return to(doc, 'shift', weight, facts, further ? {} : { stopped: null });
}

/** `verify` must have said ok, and nothing else, for the soak time. */
export function soakFaults({ spec, lastVerify, okSince }: MigrationDoc, now: number): string[] {
  if (lastVerify === null || okSince === null) {
    return [lastVerify === null ? 'no verify has run yet' : `the last verify said ${lastVerify.outcome}`];
  }
  // The clock of another sidecar, or of an earlier life, may be ahead of ours: it never makes the soak longer than it is.
  const left = spec.gates.soak - Math.max(0, now - okSince);
  return left > 0 ? [`verify must stay ok for ${Math.ceil(left / 1_000)} s more (gates.soak)`] : [];
}

function cutover(doc: MigrationDoc, facts: StepFacts): StepResult {
  if (doc.phase !== 'shift') return wrongPhase('cutover', doc, ['shift']);
  const missing = behind(facts);
  if (doc.weight < 100) missing.push(`${doc.weight} % is read from ${doc.spec.to}: shift to 100 first`);
  if (doc.stopped !== null) missing.push(`the shift was stopped: ${doc.stopped.reason}`);
  if (doc.lastVerify === null || doc.lastVerify.outcome === 'unsafe') {
    missing.push(doc.lastVerify === null ? 'no verify has run yet' : 'the last verify said unsafe');
  }
  if (missing.length > 0) return refused('MIGRATION_PHASE', missing);
  return to(doc, 'cutover', doc.weight, facts);
}

/** Always allowed where there is a step back: it changes only which side is read. */
function rollback(doc: MigrationDoc, facts: StepFacts): StepResult {
  if (doc.phase === 'cutover') return to(doc, 'shift', doc.weight, facts, { stopped: null });
  if (doc.phase === 'shift') return to(doc, 'mirror', 0, facts, { stopped: null });
  const missing =
    doc.phase === 'plan' || doc.phase === 'mirror' ? ['nothing has been shifted: use abort'] : [`the migration is ${doc.phase}`];
  return refused('MIGRATION_PHASE', missing);
}

function finish(doc: MigrationDoc, keepCopies: boolean, facts: StepFacts): StepResult {
  const { spec } = doc;
  if (doc.phase !== 'cutover') return wrongPhase('finish', doc, ['cutover']);
  const missing = behind(facts);
  if (facts.blind !== null) missing.push(facts.blind);
  if (!keepCopies) {
    for (const copy of facts.copiesLeft) missing.push(`${copy} is a copy: its provider does not register in ${spec.to} yet`);
  }
  if (keepCopies && facts.keepsNone === true && facts.copiesLeft.length > 0) {
    missing.push(`${spec.to} cannot keep copies that live by beats or a connection: let the providers register there first`);
  }
  for (const one of facts.onlyInFrom) missing.push(`${one} is only in ${spec.from}`);
  if (missing.length > 0) return refused('MIGRATION_PHASE', missing);
  return to(doc, 'finished', 100, facts, { keptCopies: keepCopies && facts.copiesLeft.length > 0 });
}

function abort(doc: MigrationDoc, force: boolean, facts: StepFacts): StepResult {
  if (doc.phase === 'plan') return to(doc, 'aborted', 0, facts);
  if (doc.phase === 'cutover') return refused('MIGRATION_PHASE', ['the migration is cut over: roll back first']);
  if (doc.phase !== 'mirror' && doc.phase !== 'shift') return wrongPhase('abort', doc, ['plan', 'mirror', 'shift']);
  if (!force) {
    if (facts.blind !== null) return refused('MIGRATION_UNSAFE', [facts.blind]);
    if (facts.onlyInTo.length > 0) {
      return refused(
        'MIGRATION_UNSAFE',
        facts.onlyInTo.map(
          (one) => `${one} is only in ${doc.spec.to}: after the abort readers of ${doc.spec.from} would not find it`,
        ),
      );
    }
  }
  return to(doc, 'aborting', 0, facts, { stopped: null });
}

function to(doc: MigrationDoc, phase: Phase, weight: number, { now }: StepFacts, more: Partial<MigrationDoc> = {}): StepResult {
  return { ok: true, doc: { ...doc, ...more, phase, weight, since: now } };
}

function behind(facts: StepFacts): string[] {
  return facts.behind.map((name) => `sidecar ${name} has not reported the present step (\`weir migrate forget\` if it is gone)`);
}

function wrongPhase(step: string, doc: MigrationDoc, from: readonly Phase[]): StepResult {
  return refused('MIGRATION_PHASE', [`${step} is allowed in ${from.join(' and ')}, the migration is in ${doc.phase}`]);
}

function refused(code: Extract<StepResult, { ok: false }>['code'], missing: readonly string[]): StepResult {
  return { ok: false, code, missing };
}
