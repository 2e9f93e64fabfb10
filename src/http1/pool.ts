// Owns the sockets of one endpoint: a LIFO list of idle ones, a cap, a bounded FIFO of waiters, idle expiry. Called by cluster
// (one pool per endpoint) and proxy (acquire). It must never put two exchanges on a socket nor go above the cap.
import { messageOf } from '../kernel/errors.ts';
import { Deadline, type TimerWheel } from '../kernel/timer-wheel.ts';
import type { UpstreamFailure, UpstreamUser } from './exchange.ts';
import { type Connect, connectTcp, Upstream, type UpstreamOwner } from './upstream.ts';

/** What happened to a connection or waiter; for counters. `closed` follows each `opened` once. */
export type PoolEvent = 'opened' | 'connect-failed' | 'closed' | 'idle-expired' | 'overflow' | 'connection-overflow';

/** A cap shared by several pools (proxy-semantics §4: connections and waiters are limited per cluster). `end` once per true `tryStart`. */
export interface PoolCap {
  tryStart(): boolean;
  end(): void;
}

const NO_CAP: PoolCap = { tryStart: () => true, end() {} };

export interface PoolOptions {
  readonly host: string;
  readonly port: number;
  readonly wheel: TimerWheel;
  /** Default: plain TCP. */
  readonly connect?: Connect;
  readonly connectTimeoutMs?: number;
  /** Sockets, opening ones included. */
  readonly maxConnections?: number;
  /** Sockets of all pools that share it. A pool without any opens one all the same: it would never get its turn otherwise. */
  readonly connectionCap?: PoolCap;
  /** Exchanges that wait for a socket; one more fails at once with cause overflow. */
  readonly maxPending?: number;
  /** Waiters of all pools that share it. */
  readonly pendingCap?: PoolCap;
  readonly maxIdle?: number;
  readonly onCount?: (event: PoolEvent) => void;
}

/** A place in the queue. */
export interface PoolTicket {
  /** Leaves the queue; nothing is called for this user any more. Does nothing once `connected` or `failed` was called. */
  cancel(): void;
}

/** How often idle connections are looked at; one that would outlive its time before the next look is closed now. */
const IDLE_LOOK_MS = 500;

class Waiter implements PoolTicket {
  readonly user: UpstreamUser;
  /** Takes only a connection that was opened after it came. */
  readonly fresh: boolean;
  prev: Waiter | null = null;
  next: Waiter | null = null;
  queued = true;
  readonly #pool: Pool;

  constructor(pool: Pool, user: UpstreamUser, fresh: boolean) {
    this.#pool = pool;
    this.user = user;
    this.fresh = fresh;
  }

  cancel(): void {
    if (this.queued) this.#pool.leave(this);
  }
}

/** The connections of one `host:port`. */
export class Pool implements UpstreamOwner {
  readonly host: string;
  readonly port: number;
  readonly #wheel: TimerWheel;
  readonly #connect: Connect;
  readonly #connectTimeoutMs: number;
  readonly #maxConnections: number;
  readonly #maxPending: number;
  readonly #connectionCap: PoolCap;
  readonly #pendingCap: PoolCap;
  readonly #maxIdle: number;
  readonly #onCount: (event: PoolEvent) => void;
  readonly #deadline: Deadline;
  /** Every connection that is not dead. */
  readonly #all = new Set<Upstream>();
  /** The longest idle one first; taken from the end. */
  readonly #idle: Upstream[] = [];
  #opening = 0;
  /** Connections that were opened above the shared cap; they are not counted out of it. */
  #uncapped = 0;
  #first: Waiter | null = null;
  #last: Waiter | null = null;
  #pending = 0;
  /** Idle looks so far; connections remember it instead of a time, so a request reads no clock. */
  #looks = 0;
  #state: 'open' | 'draining' | 'closed' = 'open';
  readonly #whenEmpty: (() => void)[] = [];

  constructor(options: PoolOptions) {
    this.host = options.host;
    this.port = options.port;
    this.#wheel = options.wheel;
    this.#connect = options.connect ?? connectTcp;
    this.#connectTimeoutMs = options.connectTimeoutMs ?? 1_000;
    this.#maxConnections = options.maxConnections ?? 1_024;
    this.#maxPending = options.maxPending ?? 1_024;
    this.#connectionCap = options.connectionCap ?? NO_CAP;
    this.#pendingCap = options.pendingCap ?? NO_CAP;
    this.#maxIdle = options.maxIdle ?? 256;
    this.#onCount = options.onCount ?? (() => {});
    this.#deadline = new Deadline((lateMs) => this.#look(lateMs));
  }

  /** Connections that serve an exchange. */
  get active(): number {
    return this.#all.size - this.#idle.length - this.#opening;
  }

  get idle(): number {
    return this.#idle.length;
  }

  get opening(): number {
    return this.#opening;
  }

  /** Exchanges that wait for a connection. */
  get pending(): number {
    return this.#pending;
  }

  /**
   * Finds a connection for an exchange. With an idle one `user.connected` is called before this returns; when the queue is
   * full or the pool is draining `user.failed` is (class unsent, cause overflow or cancelled). Both return null. Otherwise the
   * exchange waits its turn and the ticket can take it out again. `fresh`: never an idle one, for an exchange that an idle one has
   * already failed (the keep-alive race, proxy-semantics §5.2): the others may be as stale.
   */
  acquire(user: UpstreamUser, fresh = false): PoolTicket | null {
    if (this.#state !== 'open') {
      user.failed(unsent('cancelled', 'the endpoint is going away'));
      return null;
    }
    const connection = fresh ? null : this.#takeIdle();
    if (connection !== null) {
      connection.take(user);
      user.connected(connection);
      return null;
    }
    if (this.#pending >= this.#maxPending || !this.#pendingCap.tryStart()) {
      this.#onCount('overflow');
      user.failed(unsent('overflow', 'too many requests wait for a connection'));
      return null;
    }
    const waiter = this.#enqueue(user, fresh);
    this.#openMore();
    // At the cap an idle connection makes room, or the exchange would wait for one that is cut.
    if (fresh && this.#opening < this.#pending) this.#idle[0]?.shut();
    return waiter;
  }

  /** No new exchange; idle connections close, waiters fail as unsent, open exchanges go on. Resolves when none is left. */
  drain(): Promise<void> {
    if (this.#state === 'open') this.#state = 'draining';
    this.#wheel.disarm(this.#deadline);
    for (let waiter = this.#shift(); waiter !== null; waiter = this.#shift()) {
      waiter.user.failed(unsent('cancelled', 'the endpoint is going away'));
    }
    for (const connection of [...this.#all]) {
      if (connection.usable) connection.shut();
    }
    return new Promise((resolve) => {
      this.#whenEmpty.push(resolve);
      this.#checkEmpty();
    });
  }

  /** Drains, and cuts open exchanges, which fail as cancelled. */
  close(): void {
    this.#state = 'closed';
    void this.drain();
    for (const connection of [...this.#all]) connection.shut();
  }

  /** For tickets only. */
  leave(waiter: Waiter): void {
    waiter.queued = false;
    if (waiter.prev === null) this.#first = waiter.next;
    else waiter.prev.next = waiter.next;
    if (waiter.next === null) this.#last = waiter.prev;
    else waiter.next.prev = waiter.prev;
    waiter.prev = null;
    waiter.next = null;
    this.#pending--;
    this.#pendingCap.end();
  }

  // UpstreamOwner.

  opened(connection: Upstream): void {
    this.#opening--;
    this.#onCount('opened');
    this.#serve(connection, this.#shift());
  }

  openFailed(connection: Upstream, message: string): void {
    this.#forget(connection);
    this.#opening--;
    this.#onCount('connect-failed');
    this.#connectFailed(message);
    this.#checkEmpty();
  }

  released(connection: Upstream): void {
    this.#serve(connection, this.#shiftPatient());
  }

  gone(connection: Upstream): void {
    this.#forget(connection);
    const at = this.#idle.indexOf(connection);
    if (at !== -1) this.#idle.splice(at, 1);
    this.#onCount('closed');
    this.#openMore();
    this.#checkEmpty();
  }

  /** The idle connection that was used last. */
  #takeIdle(): Upstream | null {
    for (let connection = this.#idle.pop(); connection !== undefined; connection = this.#idle.pop()) {
      if (connection.usable) return connection;
      // It is closing; its own close event is on the way and will find it gone from the list.
      connection.shut();
    }
    return null;
  }

  #serve(connection: Upstream, waiter: Waiter | null): void {
    if (this.#state !== 'open') {
      connection.shut();
      return;
    }
    if (waiter !== null) {
      connection.take(waiter.user);
      waiter.user.connected(connection);
      return;
    }
    // Whoever still waits here wants a fresh connection: above the cap this one makes room for it.
    if (this.#idle.length >= this.#maxIdle || this.#opening < this.#pending) {
      connection.shut();
      return;
    }
    // Also one that was opened for somebody who left: from now on it may go stale.
    connection.reused = true;
    connection.idleSince = this.#looks;
    this.#idle.push(connection);
    if (!this.#deadline.armed) this.#wheel.arm(this.#deadline, IDLE_LOOK_MS);
  }

  #enqueue(user: UpstreamUser, fresh: boolean): Waiter {
    const waiter = new Waiter(this, user, fresh);
    waiter.prev = this.#last;
    if (this.#last === null) this.#first = waiter;
    else this.#last.next = waiter;
    this.#last = waiter;
    this.#pending++;
    return waiter;
  }

  #shift(): Waiter | null {
    const waiter = this.#first;
    if (waiter !== null) this.leave(waiter);
    return waiter;
  }

  /** The first one that takes a connection that has served before. */
  #shiftPatient(): Waiter | null {
    let waiter = this.#first;
    while (waiter?.fresh === true) waiter = waiter.next;
    if (waiter !== null) this.leave(waiter);
    return waiter;
  }

  #forget(connection: Upstream): void {
    if (!this.#all.delete(connection)) return;
    this.#capEnd();
  }

  #capEnd(): void {
    if (this.#uncapped > 0) this.#uncapped--;
    else this.#connectionCap.end();
  }

  /** Counts a new connection against the caps; false: not now. */
  #mayOpen(): boolean {
    if (this.#all.size >= this.#maxConnections) return false;
    if (this.#connectionCap.tryStart()) return true;
    this.#onCount('connection-overflow');
    if (this.#all.size > 0) return false;
    this.#uncapped++;
    return true;
  }

  /** One opening connection for each waiter, within the caps. */
  #openMore(): void {
    while (this.#state === 'open' && this.#opening < this.#pending && this.#mayOpen()) {
      try {
        const connection = new Upstream(this, this.#wheel, this.#connect, this.host, this.port, this.#connectTimeoutMs);
        this.#all.add(connection);
        this.#opening++;
      } catch (thrown) {
        // An address that cannot even be tried; told later, as every other failure to connect is.
        this.#capEnd();
        this.#onCount('connect-failed');
        const waiter = this.#shift();
        queueMicrotask(() => waiter?.user.failed(unsent('connect', messageOf(thrown))));
      }
    }
  }

  /** The one that waits longest fails with the connection; the others get one of their own. */
  #connectFailed(message: string): void {
    const waiter = this.#shift();
    waiter?.user.failed(unsent('connect', message));
    this.#openMore();
  }

  #look(lateMs: number): void {
    this.#looks += 1 + Math.floor(lateMs / IDLE_LOOK_MS);
    for (const connection of [...this.#idle]) {
      if ((this.#looks - connection.idleSince + 1) * IDLE_LOOK_MS <= connection.idleMs) continue;
      this.#onCount('idle-expired');
      connection.shut();
    }
    if (this.#idle.length > 0 && !this.#deadline.armed) this.#wheel.arm(this.#deadline, IDLE_LOOK_MS);
  }

  #checkEmpty(): void {
    if (this.#state === 'open' || this.#all.size > 0) return;
    for (const resolve of this.#whenEmpty.splice(0)) resolve();
  }
}

function unsent(cause: UpstreamFailure['cause'], message: string): UpstreamFailure {
  return { class: 'unsent', cause, message, reused: false };
}
