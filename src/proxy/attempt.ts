// Owns one try at an upstream after another for the open request: pick, connection, send, per-try timeout, back-off, and what
// cluster learns of the end. Called by exchange.ts and, as UpstreamUser, by the codec. It never decides whether to try again.
import {
  type AttemptOutcome,
  OUTCOME_IGNORED,
  OUTCOME_LOCAL_FAILURE,
  OUTCOME_TIMEOUT,
  type PickCluster,
  type PickedEndpoint,
} from '../cluster/pick-interface.ts';
import type { BodyKind, ResponseHead, Trailers, UpstreamConnection, UpstreamFailure, UpstreamUser } from '../http1/exchange.ts';
import type { PoolTicket } from '../http1/pool.ts';
import type { Clock } from '../kernel/clock.ts';
import { Deadline, type TimerWheel } from '../kernel/timer-wheel.ts';
import { type AttemptFailure, meaningOf, outcomeOf } from './attempt-failure.ts';
import type { RequestBody } from './request-body.ts';

/** A timer of ours that fired later than this proves nothing about an upstream (§6, own-lateness guard). */
export const OWN_LATENESS_MS = 500;

/** The exchange, as its attempts see it. Each call may end the request: nothing may follow it in the caller. */
export interface AttemptOwner {
  /** Head of the request for this attempt, whole. */
  requestHead(): string;
  /** The request is about to be sent: the client may send its body. */
  sending(): void;
  noEndpoint(): void;
  answeredWhole(head: ResponseHead, body: Buffer | null): void;
  answered(head: ResponseHead, kind: BodyKind, length: number): void;
  answerBody(view: Buffer): void;
  answerEnd(trailers: Trailers | null): void;
  informational(head: ResponseHead): void;
  upstreamDrained(): void;
  switched(head: ResponseHead): void;
  tunnelData(view: Buffer): void;
  tunnelEnd(): void;
  attemptFailed(failure: AttemptFailure): void;
  /** The response broke off after its head was passed on. */
  answerCut(): void;
}

/** queued: waits for a connection · sent: no final head yet · body: head passed on · backoff: before the next try. */
type State = 'none' | 'queued' | 'sent' | 'body' | 'tunnel' | 'backoff';

/** The attempts of one exchange; lives as long as its downstream connection. */
export class Attempt implements UpstreamUser {
  /** Tries begun for the open request. */
  count = 0;
  endpoint: PickedEndpoint | null = null;
  /** The pick ignored health. */
  panic = false;
  readonly #owner: AttemptOwner;
  readonly #clock: Clock;
  readonly #wheel: TimerWheel;
  readonly #body: RequestBody;
  readonly #timer: Deadline;
  #cluster: PickCluster | null = null;
  #method = '';
  #upgrade = false;
  #idempotent = false;
  #perTryMs = 0;
  #state: State = 'none';
  #ticket: PoolTicket | null = null;
  #connection: UpstreamConnection | null = null;
  /** Endpoints of earlier tries; null until there is one, so the plain path allocates nothing. */
  #tried: PickedEndpoint[] | null = null;
  /** The pick that `endpoint` stands for is still counted in. */
  #counted = false;
  /** When the attempt began to wait for a connection; infinite while it did not have to. */
  #queuedAt = Number.POSITIVE_INFINITY;
  /** A retry was granted and has not ended. */
  #retrying = false;
  /** The try that has just failed met a kept connection that had gone stale (§5.2, keep-alive race). */
  raced = false;
  /** One of the tries did: the next ones go over connections of their own. */
  #fresh = false;
  /** Place of the caller by the sticky header, -1: none. */
  #place = -1;
  /** The group of a weighted merge that the attempt was drawn over, and since when it runs. */
  #side = -1;
  #startedAt = 0;

  constructor(owner: AttemptOwner, clock: Clock, wheel: TimerWheel, body: RequestBody) {
    this.#owner = owner;
    this.#clock = clock;
    this.#wheel = wheel;
    this.#body = body;
    this.#timer = new Deadline((lateMs) => this.#onTimer(lateMs));
  }

  /** A new request; nothing is picked yet. */
  prepare(
    cluster: PickCluster | null,
    method: string,
    upgrade: boolean,
    idempotent: boolean,
    perTryMs: number,
    place = -1,
  ): void {
    this.#cluster = cluster;
    this.#place = place;
    this.#method = method;
    this.#upgrade = upgrade;
    this.#idempotent = idempotent;
    this.#perTryMs = perTryMs;
    this.count = 0;
    this.endpoint = null;
    this.panic = false;
    this.#tried = null;
    this.raced = false;
    this.#fresh = false;
  }

  /** Body pieces go to an upstream as they come. */
  get sending(): boolean {
    return this.#connection !== null;
  }

  /** Picks an endpoint and asks its pool for a connection. */
  start(): void {
    const cluster = this.#cluster;
    if (cluster === null) return;
    const previous = this.endpoint;
    if (previous !== null) {
      if (this.#tried === null) this.#tried = [previous];
      else this.#tried.push(previous);
    }
    this.#state = 'none';
    const endpoint = cluster.pick(this.#tried, this.#idempotent, this.#place);
    this.#side = cluster.drawnSide;
    if (this.#side >= 0) this.#startedAt = this.#clock.now();
    if (endpoint === null) {
      this.finish(OUTCOME_IGNORED);
      this.#owner.noEndpoint();
      return;
    }
    this.endpoint = endpoint;
    this.panic = cluster.panic;
    this.#counted = true;
    this.count++;
    this.#state = 'queued';
    if (this.#perTryMs > 0 && this.#body.whole) this.#wheel.arm(this.#timer, this.#perTryMs);
    this.#queuedAt = Number.POSITIVE_INFINITY;
    const ticket = endpoint.pool.acquire(this, this.#fresh);
    // Null when `connected` or `failed` came at once; by then this object may even serve the next request.
    if (ticket === null) return;
    this.#ticket = ticket;
    this.#queuedAt = this.#clock.now();
  }

  /** Starts again after `ms`; the cluster has granted the retry. */
  retryAfter(ms: number): void {
    this.#retrying = !this.raced;
    this.raced = false;
    this.#state = 'backoff';
    this.#wheel.arm(this.#timer, ms);
  }

  /** A piece of the request's body, framed. False: wait for `upstreamDrained`. */
  write(framed: Buffer): boolean {
    return this.#connection === null || this.#connection.write(framed, noop);
  }

  /** The request has arrived whole; the per-try timeout runs from here. */
  requestWhole(): void {
    if (this.#connection !== null) this.#connection.endBody(this.#body.tail);
    if (this.#perTryMs > 0 && (this.#state === 'sent' || this.#state === 'queued')) this.#wheel.arm(this.#timer, this.#perTryMs);
  }

  /** Keeps the view in hand valid; `release` follows. */
  hold(): void {
    this.#connection?.hold();
  }

  readonly release = (): void => {
    this.#connection?.release();
  };

  tunnelWrite(view: Buffer): boolean {
    return this.#connection === null || this.#connection.upgradedWrite(view, noop);
  }

  tunnelFinish(): void {
    this.#connection?.upgradedEnd();
  }

  /** Ends whatever is under way; the cluster learns `outcome`. No callback follows. */
  giveUp(outcome: AttemptOutcome): void {
    const connection = this.#connection;
    const ticket = this.#ticket;
    this.finish(outcome);
    ticket?.cancel();
    connection?.abandon();
  }

  /** The attempt's end, told to the cluster once; the connection is no longer this object's. */
  finish(outcome: AttemptOutcome): void {
    if (this.#timer.armed) this.#wheel.disarm(this.#timer);
    this.#state = 'none';
    this.#connection = null;
    this.#ticket = null;
    this.#tell(outcome);
  }

  /** The attempt became a tunnel: it no longer counts as a request in flight. */
  becameTunnel(): void {
    this.#state = 'tunnel';
    this.#tell(200);
  }

  // UpstreamUser.

  connected(connection: UpstreamConnection): void {
    this.#ticket = null;
    this.#connection = connection;
    this.#state = 'sent';
    const body = this.#body;
    this.#owner.sending();
    if (!body.exists) {
      connection.send(this.#owner.requestHead(), null, false, this.#method, this.#upgrade);
      return;
    }
    const { whole } = body;
    connection.send(this.#owner.requestHead(), body.takeFirst(), !whole, this.#method, false);
    if (!whole) this.#owner.upstreamDrained();
  }

  informational(head: ResponseHead): void {
    this.#owner.informational(head);
  }

  responseWhole(head: ResponseHead, body: Buffer | null): void {
    if (this.#timer.armed) this.#wheel.disarm(this.#timer);
    this.#owner.answeredWhole(head, body);
  }

  response(head: ResponseHead, kind: BodyKind, length: number): void {
    if (this.#timer.armed) this.#wheel.disarm(this.#timer);
    this.#state = 'body';
    this.#owner.answered(head, kind, length);
  }

  responseBody(view: Buffer): void {
    this.#owner.answerBody(view);
  }

  responseEnd(trailers: Trailers | null): void {
    this.#owner.answerEnd(trailers);
  }

  drained(): void {
    this.#owner.upstreamDrained();
  }

  upgraded(head: ResponseHead): void {
    if (this.#timer.armed) this.#wheel.disarm(this.#timer);
    this.#owner.switched(head);
  }

  upgradeData(view: Buffer): void {
    this.#owner.tunnelData(view);
  }

  upgradeEnd(): void {
    this.#owner.tunnelEnd();
  }

  failed(failure: UpstreamFailure): void {
    const answering = this.#state === 'body' || this.#state === 'tunnel';
    this.raced = failure.reused && failure.cause === 'reset' && failure.class !== 'started';
    this.#fresh ||= this.raced;
    // An upstream that closed a connection it had done with is not failing; one that died refuses the next connection, and that counts.
    this.finish(this.raced || this.#isOurLateness(failure) ? OUTCOME_IGNORED : outcomeOf(failure));
    if (answering) this.#owner.answerCut();
    else this.#owner.attemptFailed(meaningOf(failure, this.#body.replayable));
  }

  /** The final head cannot be passed on (a fault that the codec does not look for): as a malformed response. */
  refuseAnswer(message: string): void {
    this.giveUp(OUTCOME_LOCAL_FAILURE);
    this.#owner.attemptFailed({ end: 'reset', code: 'UPSTREAM_PROTOCOL', cause: 'protocol', message });
  }

  /** A connect that "timed out" long after its time did so because our loop stood still (§6, own-lateness guard). */
  #isOurLateness(failure: UpstreamFailure): boolean {
    if (failure.cause !== 'connect') return false;
    const allowed = (this.#cluster?.policy.connectTimeout ?? 0) + OWN_LATENESS_MS;
    return this.#clock.now() - this.#queuedAt > allowed;
  }

  #onTimer(lateMs: number): void {
    if (this.#state === 'backoff') {
      this.start();
      return;
    }
    const queued = this.#state === 'queued';
    this.giveUp(lateMs > OWN_LATENESS_MS ? OUTCOME_IGNORED : OUTCOME_TIMEOUT);
    this.#owner.attemptFailed({
      end: queued ? 'connect' : 'perTryTimeout',
      code: 'UPSTREAM_TIMEOUT',
      cause: 'timeout',
      message: 'no response within the per-try timeout',
    });
  }

  #tell(outcome: AttemptOutcome): void {
    if (this.#retrying) {
      this.#retrying = false;
      this.#cluster?.endRetry();
    }
    if (!this.#counted) return;
    this.#counted = false;
    if (this.endpoint !== null) this.#cluster?.end(this.endpoint, outcome);
    if (this.#side >= 0) this.#cluster?.countSide(this.#side, outcome, this.#clock.now() - this.#startedAt);
  }
}

function noop(): void {}
