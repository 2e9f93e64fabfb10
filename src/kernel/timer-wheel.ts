// Owns deadlines of the request path: arming and disarming one costs no allocation and no kernel timer.
// Called by http1 and proxy; must never be used for anything that needs better than a tick's accuracy.
import type { Clock, Timer } from './clock.ts';

/** One deadline that can be armed again and again; make it once per connection or exchange, not per request. */
export class Deadline {
  /** Called when the deadline passes; the deadline is disarmed by then and may be armed again. `lateMs`: how late it fired. */
  readonly onPassed: (lateMs: number) => void;
  /** Monotonic ms at which it passes; meaningful while armed. Owned by the wheel. */
  at = 0;
  /** Owned by the wheel: neighbours in the slot's list, null while disarmed. */
  prev: Deadline | null = null;
  next: Deadline | null = null;

  constructor(onPassed: (lateMs: number) => void) {
    this.onPassed = onPassed;
  }

  get armed(): boolean {
    return this.next !== null;
  }
}

const noop = (): void => {};

function newList(): Deadline {
  const head = new Deadline(noop);
  head.prev = head;
  head.next = head;
  return head;
}

/**
 * A hashed timer wheel. A deadline never fires early, and at most about one tick late (more when the event loop
 * itself was late). The wheel ticks only while something is armed and does not keep the process alive.
 */
export class TimerWheel {
  readonly #clock: Clock;
  readonly #tickMs: number;
  readonly #slots: Deadline[];
  #armed = 0;
  /** Number of the last tick that was processed: tick n covers deadlines up to n * tickMs. */
  #tick: number;
  #timer: Timer | null = null;
  #closed = false;

  /** `tickMs` 10 to 25; `slots` times `tickMs` is one turn of the wheel, longer deadlines simply stay for more turns. */
  constructor(clock: Clock, tickMs = 20, slots = 1024) {
    this.#clock = clock;
    this.#tickMs = tickMs;
    this.#slots = Array.from({ length: slots }, newList);
    this.#tick = Math.floor(clock.now() / tickMs);
  }

  /** How many deadlines are armed. */
  get armed(): number {
    return this.#armed;
  }

  /** Arms (or re-arms) the deadline to pass `ms` from now. */
  arm(deadline: Deadline, ms: number): void {
    if (deadline.next !== null) this.disarm(deadline);
    if (this.#closed) return;
    const now = this.#clock.now();
    if (this.#armed === 0) this.#tick = Math.floor(now / this.#tickMs);
    deadline.at = now + ms;
    this.#link(deadline);
    this.#armed++;
    if (this.#timer === null) this.#timer = this.#clock.setTimer(this.#tickMs, this.#onTick);
  }

  /** Disarms; does nothing when it is not armed. */
  disarm(deadline: Deadline): void {
    const { prev, next } = deadline;
    if (prev === null || next === null) return;
    prev.next = next;
    next.prev = prev;
    deadline.prev = null;
    deadline.next = null;
    this.#armed--;
  }

  /** Drops every armed deadline without calling it; later `arm` calls do nothing. */
  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
    this.#timer = null;
  }

  #link(deadline: Deadline): void {
    const tick = Math.max(Math.ceil(deadline.at / this.#tickMs), this.#tick + 1);
    const head = this.#slots[tick % this.#slots.length];
    if (head === undefined) throw new RangeError(`timer wheel: no slot for tick ${tick}`);
    const last = head.prev ?? head;
    deadline.prev = last;
    deadline.next = head;
    last.next = deadline;
    head.prev = deadline;
  }

  readonly #onTick = (): void => {
    this.#timer = null;
    const now = this.#clock.now();
    const target = Math.floor(now / this.#tickMs);
    // After a long stall one turn visits every slot once; more turns would only visit them again.
    const first = Math.max(this.#tick + 1, target - this.#slots.length + 1);
    for (let tick = first; tick <= target; tick++) this.#fire(tick, now);
    this.#tick = Math.max(this.#tick, target);
    if (this.#armed > 0 && !this.#closed && this.#timer === null) {
      this.#timer = this.#clock.setTimer(this.#tickMs, this.#onTick);
    }
  };

  #fire(tick: number, now: number): void {
    const head = this.#slots[tick % this.#slots.length];
    if (head === undefined) return;
    let entry = head.next;
    while (entry !== null && entry !== head) {
      const following: Deadline | null = entry.next;
      if (entry.at <= now) {
        this.disarm(entry);
        entry.onPassed(now - entry.at);
        // A callback may have unlinked its neighbour: start the slot again, what fired is gone from it.
        entry = following !== null && following.next !== null ? following : head.next;
      } else {
        entry = following;
      }
    }
  }
}
