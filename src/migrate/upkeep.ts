// Owns what time brings to migrations on this sidecar: its report to the fleet, the verify that runs by itself, the gates of a shift.
// Called by migrations.ts. Must never take a step that a person has to ask for, but the way back that the order's gates allow.
import type { Timer } from '../kernel/clock.ts';
import { messageOf } from '../kernel/errors.ts';
import type { Documents } from './documents.ts';
import { REPORT_MS } from './fleet.ts';
import type { Known } from './known.ts';
import { ENDED, MIRRORING, type MigrationDoc } from './migration.ts';
import type { EngineDeps } from './ports.ts';

/** The first verify after the copies are written, ms. */
const FIRST_VERIFY_MS = 5_000;
/** While a migration mirrors, verify runs by itself this often at most and at least, ms. */
const AUTO_VERIFY_MIN_MS = 30_000;
const AUTO_VERIFY_MAX_MS = 300_000;
/** And it rests for so many times as long as it took. */
const VERIFY_REST = 20;

export interface UpkeepDeps extends EngineDeps {
  readonly docs: Documents;
  readonly verify: (id: string) => Promise<unknown>;
}

export class Upkeep {
  readonly #deps: UpkeepDeps;
  #tick: Timer | null = null;

  constructor(deps: UpkeepDeps) {
    this.#deps = deps;
  }

  start(): void {
    this.#arm();
  }

  close(): void {
    this.#tick?.cancel();
  }

  /** Tells the fleet what this sidecar has applied, where that is due. */
  report(known: Known): void {
    const { store, clock, sidecar, log } = this.#deps;
    if (!store.shared || known.doc.phase === 'plan') return;
    const { phase, weight, spec } = known.doc;
    const state = `${phase} ${weight}`;
    if (state === known.reported && clock.now() - known.reportedAt < REPORT_MS) return;
    known.reported = state;
    known.reportedAt = clock.now();
    const report = { sidecar, phase, weight, at: clock.wallNow() };
    this.#deps.docs
      .ask((to, signal) => to.report(spec.id, report, signal))
      .catch((thrown: unknown) => {
        known.reported = '';
        log.info({ migration: spec.id, error: messageOf(thrown) }, 'the report of this sidecar could not be written');
      });
  }

  #arm(): void {
    this.#tick = this.#deps.clock.setTimer(1_000, () => {
      this.#onTick();
      if (!this.#deps.docs.closed.aborted) this.#arm();
    });
  }

  #onTick(): void {
    for (const known of this.#deps.docs.known.values()) {
      if (!ENDED.has(known.doc.phase)) this.report(known);
      known.worker?.tick();
      this.#autoVerify(known);
      this.#watchGate(known);
    }
  }

  /** The owner verifies by itself, so that the soak time needs nobody's hand and a cutover is judged by no old word. */
  #autoVerify(known: Known): void {
    const { doc, worker } = known;
    if (!MIRRORING.has(doc.phase) || worker?.owns !== true || worker.settled !== true) return;
    const now = this.#deps.clock.now();
    // Registries show what was written a second or two later.
    if (known.nextVerifyAt === 0) known.nextVerifyAt = now + FIRST_VERIFY_MS;
    if (now < known.nextVerifyAt) return;
    known.nextVerifyAt = now + Math.min(AUTO_VERIFY_MAX_MS, Math.max(AUTO_VERIFY_MIN_MS, doc.spec.gates.soak / 3));
    const rest = (): void => {
      known.nextVerifyAt = Math.max(known.nextVerifyAt, this.#deps.clock.now() + VERIFY_REST * (this.#deps.clock.now() - now));
    };
    this.#deps.verify(doc.spec.id).then(rest, (thrown: unknown) => {
      rest();
      this.#deps.log.info({ migration: doc.spec.id, error: messageOf(thrown) }, 'a verify failed');
    });
  }

  #watchGate(known: Known): void {
    const { doc, gate, scope } = known;
    const reason = gate?.look(doc.spec, (service) => scope.has(service)) ?? null;
    if (reason === null || doc.phase !== 'shift' || doc.stopped !== null) return;
    const { id, gates } = doc.spec;
    const at = this.#deps.clock.wallNow();
    this.#deps.events.emit('migration_stopped', { migration: id, reason, onBreach: gates.onBreach });
    void this.#deps.docs
      .inTurn(() =>
        this.#deps.docs.change(id, async (now): Promise<MigrationDoc> => {
          if (now.phase !== 'shift' || now.stopped !== null) return now;
          const stopped = { at, reason };
          return gates.onBreach === 'stop' ? { ...now, stopped } : { ...now, phase: 'mirror', weight: 0, since: at, stopped };
        }),
      )
      .then(
        () =>
          this.#deps.audit({
            what: gates.onBreach === 'stop' ? 'migration-stop' : 'migration-auto-rollback',
            migration: id,
            result: reason,
          }),
        (thrown: unknown) => this.#deps.log.error({ migration: id, error: messageOf(thrown) }, 'a gate could not stop the shift'),
      );
  }
}
