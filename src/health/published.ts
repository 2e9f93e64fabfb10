// Owns what is published of one service: the view with a verdict and a reason for each instance, and the index of its newest change.
// Called by publish; costs the instances of the one service.
import type { View } from '../catalog/view.ts';
import type { Verdict } from '../model/health-status.ts';
import type { Overrides } from './overrides.ts';
import type { ServiceChecks } from './service-checks.ts';
import { judge } from './verdict.ts';

/** A new object after every change of view, verdict or reason, the same one otherwise. */
export interface Published {
  readonly view: View;
  /** One per instance, in the order of `view.instances`. */
  readonly verdicts: readonly Verdict[];
  /** Why, in words; null: nothing beyond the registries' word. */
  readonly reasons: readonly (string | null)[];
  /** Index of the newest change of view or verdict (M9). */
  readonly index: number;
}

export class Judge {
  readonly #overrides: Overrides;
  readonly #plain = new WeakMap<View, Published>();

  constructor(overrides: Overrides) {
    this.#overrides = overrides;
  }

  /** Of a service without checks and overrides: kept as long as its view. */
  plain(view: View): Published {
    const found = this.#plain.get(view);
    if (found !== undefined) return found;
    const made = { view, ...this.#words(view, null), index: view.revision };
    this.#plain.set(view, made);
    return made;
  }

  /**
   * The view as it is judged now. Equal verdicts and reasons on the same view keep the object; equal verdicts keep the index. A new view
   * brings its own revision, unless a later index was published already; a new verdict takes the next index.
   */
  again(before: Published, view: View, checks: ServiceChecks, takeIndex: () => number): Published {
    const words = this.#words(view, checks);
    const sameView = before.view === view;
    const sameVerdicts = sameView && words.verdicts.every((verdict, i) => verdict === before.verdicts[i]);
    if (sameVerdicts && words.reasons.every((reason, i) => reason === before.reasons[i])) return before;
    if (sameVerdicts) return { view, ...words, index: before.index };
    const index = !sameView && view.revision > before.index ? view.revision : takeIndex();
    return { view, ...words, index };
  }

  #words(view: View, checks: ServiceChecks | null): Pick<Published, 'verdicts' | 'reasons'> {
    const overridden = this.#overrides.has(view.service);
    const verdicts: Verdict[] = [];
    const reasons: (string | null)[] = [];
    for (const instance of view.instances) {
      const ask = checks?.askOf(instance) ?? null;
      const probe =
        ask === null ? null : { kind: ask.target.kind, verdict: ask.verdict, failures: ask.failures, reason: ask.reason };
      const isolated = overridden && this.#overrides.isIsolated(view.service, instance.host, instance.port);
      const judged = judge(instance, isolated, probe);
      verdicts.push(judged.verdict);
      reasons.push(judged.reason);
    }
    return { verdicts, reasons };
  }
}
