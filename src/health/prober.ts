// Owns when every check of the process runs (R8, proxy-semantics §7): one per target whoever asks, spread by phase, paced, bounded, one timer.
// Called by publish; feeds Ask objects. Must never judge a service (verdict.ts does) nor let a stall of our own count against anybody.
import type { ProbeEvidence } from '../catalog/evidence.ts';
import type { Clock, Timer } from '../kernel/clock.ts';
import { messageOf } from '../kernel/errors.ts';
import type { Random } from '../kernel/random.ts';
import type { HealthCheckKind } from '../model/policy.ts';
import type { ServiceId } from '../model/service.ts';
import type { Events } from '../telemetry/events.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { Ask, type AskSpec } from './ask.ts';
import { AskMemories } from './ask-memories.ts';
import { Check, type Run } from './check.ts';
import { DueHeap } from './due-heap.ts';
import { failed, type Probe, type ProbeResult, targetKey } from './probe.ts';
import { SelfSuspect } from './self-suspect.ts';

/** Whole process [W]. */
export const MAX_CHECKS_PER_SECOND = 200;
export const MAX_CONCURRENT = 64;
/** Checks that may start in one turn after a pause; keeps 100 ms slices even. */
const BURST = 5;
/** While checks run, a turn comes at least this often: its lateness tells a stall of our own. */
const BEAT_MS = 100;
/** proxy-semantics §6: a timer that is later than this says nothing about others. */
const LATE_MS = 500;
/** A connection is kept for the next check when that comes before servers close idle ones. */
const KEEP_BELOW_MS = 3_500;

export interface ProberDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly probes: Readonly<Record<HealthCheckKind, Probe>>;
  readonly events: Events;
  readonly metrics: Metrics;
}

export class Prober {
  readonly #deps: ProberDeps;
  readonly #checks = new Map<string, Check>();
  /** By service and address: what the catalog's shrink guard asks for. */
  readonly #byAddress = new Map<string, Ask>();
  readonly #heap = new DueHeap<Check>();
  /** First checks and those of fresh holds, before everything that is merely due. */
  readonly #urgent = new Set<Check>();
  readonly #running = new Set<Run>();
  readonly #suspect = new SelfSuspect<Check>();
  readonly #memories: AskMemories;
  #allowance = BURST;
  #allowanceAt: number;
  #beatAt: number;
  #timer: Timer | null = null;
  #timerAt = Number.POSITIVE_INFINITY;
  #closed = false;

  constructor(deps: ProberDeps) {
    this.#deps = deps;
    this.#allowanceAt = deps.clock.now();
    this.#beatAt = deps.clock.now();
    this.#memories = new AskMemories(deps.clock);
    deps.metrics.onCollect(() => deps.metrics.gauge('weir_health_check_targets').set(this.#checks.size));
  }

  /** For the catalog, which is built before anybody asks for a check. */
  readonly evidence: ProbeEvidence = {
    failuresInARow: (service, network, host, port) =>
      this.#byAddress.get(addressKey(service, network, host, port))?.failures ?? 0,
  };

  /** Targets that are being checked. */
  get targets(): number {
    return this.#checks.size;
  }

  get frozen(): boolean {
    return this.#suspect.frozen;
  }

  /** Starts to check; the first check goes ahead of the queue. At most one ask per service and address at a time. */
  ask(spec: AskSpec, onChange: (ask: Ask) => void): Ask {
    const key = targetKey(spec.target);
    const ask = new Ask(spec, this.#memories.take(memoryKey(spec.service, key)), onChange);
    let check = this.#checks.get(key);
    if (check === undefined) {
      check = new Check(key, spec.target);
      this.#checks.set(key, check);
    }
    check.asks.add(ask);
    const { network, host, port } = spec.target;
    this.#byAddress.set(addressKey(spec.service, network, host, port), ask);
    this.#hurry(check);
    return ask;
  }

  /** New thresholds, judge or pace. `now`: check at once, for an instance that has just become held. */
  change(ask: Ask, what: Pick<AskSpec, 'policy' | 'dial' | 'pace'>, now: boolean): void {
    const check = this.#checks.get(targetKey(ask.target));
    const slower = what.pace >= ask.pace;
    ask.policy = what.policy;
    ask.dial = what.dial;
    ask.pace = what.pace;
    if (check === undefined) return;
    if (now) this.#hurry(check);
    else if (!slower && check.run === null && !this.#urgent.has(check)) this.#schedule(check, this.#deps.clock.now());
  }

  /** Ends an ask; the check goes with the last one. What is known is kept for 10 minutes. */
  end(ask: Ask): void {
    const key = targetKey(ask.target);
    const check = this.#checks.get(key);
    if (check === undefined || !check.asks.delete(ask)) return;
    const { network, host, port } = ask.target;
    const address = addressKey(ask.service, network, host, port);
    if (this.#byAddress.get(address) === ask) this.#byAddress.delete(address);
    if (ask.verdict !== 'none') this.#memories.keep(memoryKey(ask.service, key), ask.memory);
    if (check.asks.size === 0) this.#drop(check);
  }

  /** Ends every check and closes the connections. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#timer?.cancel();
    for (const check of [...this.#checks.values()]) this.#drop(check);
    this.#byAddress.clear();
    const { http, tcp, grpc } = this.#deps.probes;
    await Promise.all([http.close(), tcp.close(), grpc.close()]);
  }

  #drop(check: Check): void {
    this.#checks.delete(check.key);
    this.#heap.remove(check);
    this.#urgent.delete(check);
    check.run?.controller.abort(new Error('nobody asks any more'));
    if (check.run !== null) this.#running.delete(check.run);
    check.run = null;
    this.#deps.probes[check.target.kind].drop(check.target);
    if (this.#suspect.forget(check) === 'thawed') this.#thawed();
  }

  #hurry(check: Check): void {
    if (check.run !== null || this.#closed) return;
    this.#heap.remove(check);
    this.#urgent.add(check);
    this.#arm(this.#deps.clock.now());
  }

  #schedule(check: Check, from: number): void {
    this.#heap.put(check, check.slotAfter(from, this.#deps.random()));
    this.#arm(check.due);
  }

  /** One timer: brought forward when something is due earlier than it. */
  #arm(at: number): void {
    if (this.#closed || at >= this.#timerAt) return;
    this.#timer?.cancel();
    this.#timerAt = at;
    this.#timer = this.#deps.clock.setTimer(Math.max(0, at - this.#deps.clock.now()), this.#onTimer);
  }

  readonly #onTimer = (): void => {
    const now = this.#deps.clock.now();
    // A turn that comes late means that everything under way was measured with a stalled clock.
    if (now - this.#timerAt > LATE_MS) for (const run of this.#running) run.tainted = true;
    this.#timer = null;
    this.#timerAt = Number.POSITIVE_INFINITY;
    this.#turn(now);
  };

  #turn(now: number): void {
    this.#beatAt = now;
    for (const run of this.#running) {
      if (now >= run.deadline && !run.controller.signal.aborted) run.controller.abort(new Error('timeout'));
    }
    this.#allowance = Math.min(BURST, this.#allowance + ((now - this.#allowanceAt) * MAX_CHECKS_PER_SECOND) / 1_000);
    this.#allowanceAt = now;
    while (this.#allowance >= 1 && this.#running.size < MAX_CONCURRENT) {
      const check = this.#takeDue(now);
      if (check === null) break;
      this.#allowance--;
      this.#start(check, now);
    }
    this.#arm(this.#nextTurn(now));
  }

  #takeDue(now: number): Check | null {
    for (const check of this.#urgent) {
      this.#urgent.delete(check);
      return check;
    }
    const first = this.#heap.peek();
    if (first === undefined || first.due > now) return null;
    this.#heap.remove(first);
    return first;
  }

  #nextTurn(now: number): number {
    let at = Number.POSITIVE_INFINITY;
    if (this.#running.size > 0) at = now + BEAT_MS;
    for (const { deadline, controller } of this.#running) if (!controller.signal.aborted) at = Math.min(at, deadline);
    if (this.#running.size >= MAX_CONCURRENT) return at;
    const due = this.#urgent.size > 0 ? now : (this.#heap.peek()?.due ?? Number.POSITIVE_INFINITY);
    // Whole ms: a rest of 1e-16 must not set a timer for now, again and again.
    const allowed = this.#allowance >= 1 ? now : now + Math.ceil(((1 - this.#allowance) * 1_000) / MAX_CHECKS_PER_SECOND);
    return Math.min(at, Math.max(due, allowed));
  }

  #start(check: Check, now: number): void {
    const { timeout } = check;
    const run: Run = { check, controller: new AbortController(), startedAt: now, deadline: now + timeout, tainted: false };
    check.run = run;
    this.#running.add(run);
    const how = { signal: run.controller.signal, dial: check.dial, keep: check.interval < KEEP_BELOW_MS };
    this.#deps.probes[check.target.kind].run(check.target, how).then(
      (result) => this.#finish(run, result),
      (thrown: unknown) => this.#finish(run, failed(messageOf(thrown))),
    );
  }

  #finish(run: Run, result: ProbeResult): void {
    const { check } = run;
    if (check.run !== run) return;
    check.run = null;
    this.#running.delete(run);
    const now = this.#deps.clock.now();
    const stalled = run.tainted || now - this.#beatAt > BEAT_MS + LATE_MS || now - run.deadline > LATE_MS;
    if (stalled && !result.ok) {
      this.#count('discarded');
      this.#hurry(check);
      return;
    }
    this.#take(check, result, now);
    if (this.#checks.get(check.key) !== check) return;
    this.#schedule(check, run.startedAt);
    // A place became free.
    if (this.#running.size === MAX_CONCURRENT - 1) this.#turn(now);
  }

  #take(check: Check, result: ProbeResult, now: number): void {
    const wasFrozen = this.#suspect.frozen;
    const change = this.#suspect.note(check, check.lastOk === true, result.ok, now);
    if (change === 'froze') this.#froze();
    if (change === 'thawed') this.#thawed();
    check.lastOk = result.ok;
    if (wasFrozen || this.#suspect.frozen) {
      this.#count('frozen');
      return;
    }
    this.#count(result.ok ? 'pass' : 'fail');
    const wall = this.#deps.clock.wallNow();
    for (const ask of [...check.asks]) if (ask.apply(result, wall)) ask.onChange(ask);
  }

  #froze(): void {
    this.#deps.metrics.gauge('weir_self_suspect').set(1);
    this.#deps.events.emit('self_suspect', { frozen: true, ...this.#suspect.counts });
  }

  /** What failed meanwhile says nothing about the targets. */
  #thawed(): void {
    this.#deps.metrics.gauge('weir_self_suspect').set(0);
    this.#deps.events.emit('self_suspect', { frozen: false });
    for (const check of this.#checks.values()) for (const ask of check.asks) ask.pardon();
  }

  #count(result: string): void {
    this.#deps.metrics.counter('weir_health_checks_total', result).inc();
  }
}

function memoryKey(service: ServiceId, target: string): string {
  return `${service}\0${target}`;
}

function addressKey(service: ServiceId, network: string, host: string, port: number): string {
  return `${service}\0${network}\0${host}\0${port}`;
}
