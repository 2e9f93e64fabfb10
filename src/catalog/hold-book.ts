// Owns the list of what is held over all sources: who holds, which addresses, what is missing, which reads are wanted (R2).
// Called by catalog once a second and after each answer; must never publish or end a hold by itself.
import { hostPort } from '../kernel/address.ts';
import type { Instance } from '../model/instance.ts';
import type { HoldPolicy } from '../model/policy.ts';
import type { ServiceId } from '../model/service.ts';
import type { ProbeEvidence } from './evidence.ts';
import { addressKey } from './identity.ts';
import { FAILED_PROBES, type HoldKind, type Kept } from './shrink-guard.ts';
import type { ServiceRecord } from './sources.ts';
import type { HoldState } from './view.ts';

/** How a service's holds may end. */
export interface HoldRules {
  readonly policy: HoldPolicy;
  /** False while a migration of the service runs. */
  readonly byTime: boolean;
}

/** Reads asked for in one second per source: a wiped registry holds thousands of services. */
const READS_PER_SECOND = 20;
/** Records looked at for a due read in one second. */
const LOOKS_PER_SECOND = 1_000;

export class HoldBook {
  readonly #records = new Set<ServiceRecord>();
  /** Records that hold an address, over all services: reused addresses are found here. */
  readonly #byAddress = new Map<string, Set<ServiceRecord>>();
  readonly #evidence: ProbeEvidence;
  /** Where the look at due reads goes on. */
  #walk = this.#records.values();

  constructor(evidence: ProbeEvidence) {
    this.#evidence = evidence;
  }

  /** Records with holds. */
  get records(): ReadonlySet<ServiceRecord> {
    return this.#records;
  }

  has(record: ServiceRecord): boolean {
    return this.#records.has(record);
  }

  started(record: ServiceRecord, kept: readonly Kept[]): void {
    if (kept.length > 0) this.#records.add(record);
    for (const { instance } of kept) {
      const key = addressKey(record.source.config.network, instance);
      const set = this.#byAddress.get(key) ?? new Set();
      set.add(record);
      this.#byAddress.set(key, set);
    }
  }

  ended(record: ServiceRecord, kept: readonly Kept[]): void {
    for (const { instance } of kept) {
      const key = addressKey(record.source.config.network, instance);
      const set = this.#byAddress.get(key);
      set?.delete(record);
      if (set?.size === 0) this.#byAddress.delete(key);
    }
    if (record.heldCount === 0) this.#records.delete(record);
  }

  /** Records of other services that hold the address. */
  othersWith(record: ServiceRecord, instance: Instance): readonly ServiceRecord[] {
    if (this.#byAddress.size === 0) return [];
    const found = this.#byAddress.get(addressKey(record.source.config.network, instance));
    return found === undefined ? [] : [...found].filter((one) => one.id !== record.id);
  }

  /** Checks of an instance that failed in a row. */
  failures(record: ServiceRecord, instance: Instance): number {
    return this.#evidence.failuresInARow(record.id, record.source.config.network, instance.host, instance.port);
  }

  /**
   * Records whose confirming read is due now; each counts as asked. Looks at a bounded number of records at a time and goes on there
   * the next time, since looking asks for the probes of every held address.
   */
  dueReads(rulesOf: (record: ServiceRecord) => HoldRules, now: number): readonly ServiceRecord[] {
    const asked = new Map<string, number>();
    const due: ServiceRecord[] = [];
    for (let looked = 0; looked < LOOKS_PER_SECOND; looked++) {
      const next = this.#walk.next();
      if (next.done === true) {
        this.#walk = this.#records.values();
        break;
      }
      const record = next.value;
      const { id } = record.source.config;
      const count = asked.get(id) ?? 0;
      if (count >= READS_PER_SECOND) continue;
      const guard = record.guardAt(now);
      const failing = (): boolean =>
        guard.kept.some((one) => one.hold !== null && this.failures(record, one.instance) >= FAILED_PROBES);
      if (!guard.wantsRead(rulesOf(record).policy, failing, now)) continue;
      asked.set(id, count + 1);
      due.push(record);
    }
    return due;
  }

  /** For operators: one line per service, source and kind. */
  states(service: ServiceId | null, rulesOf: (record: ServiceRecord) => HoldRules, now: number): HoldState[] {
    const states: HoldState[] = [];
    for (const record of this.#records) {
      if (service !== null && record.id !== service) continue;
      for (const kind of ['service', 'sourceWide'] as const) {
        const kept = record.guardAt(now).kept.filter((one) => one.hold?.kind === kind);
        if (kept.length > 0) states.push(this.#state(record, kind, kept, rulesOf(record), now));
      }
    }
    return states;
  }

  #state(record: ServiceRecord, kind: HoldKind, kept: readonly Kept[], rules: HoldRules, now: number): HoldState {
    const clock = record.guardAt(now).holdClock(now);
    const left = kept.map(({ hold }) => rules.policy.max - (clock - (hold?.clockAt ?? clock)));
    return {
      service: record.id,
      source: record.source.config.id,
      kind,
      addresses: kept.map(({ instance }) => hostPort(instance.host, instance.port)),
      sinceMs: Math.max(...kept.map(({ hold }) => now - (hold?.since ?? now))),
      confirmsInMs: kind === 'service' && rules.byTime ? Math.max(0, ...left) : null,
      missing: this.#missing(record, kind, kept, rules),
    };
  }

  #missing(record: ServiceRecord, kind: HoldKind, kept: readonly Kept[], rules: HoldRules): string {
    if (!record.live) return 'an answer of the source, which is lost: the time of the hold stands still';
    const failed = kept.filter((one) => this.failures(record, one.instance) >= FAILED_PROBES).length;
    const proof: string[] = [];
    if (kept.some((one) => one.hold?.secondRead !== true)) proof.push('a second full read that misses it too');
    if (failed < kept.length)
      proof.push(`${FAILED_PROBES} failed probes in a row (${failed} of ${kept.length} addresses have them)`);
    const otherwise = kind === 'service' && rules.byTime ? 'the end of its time' : 'its return';
    return `${proof.length === 0 ? 'the next look' : proof.join(' and ')}; or ${otherwise}, or the operator`;
  }
}
