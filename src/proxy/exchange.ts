// Owns the life of one request after another on one downstream connection (proxy-semantics §2): filter, route, gate, limits,
// attempts, retry decision, reply. Called by the codec (DownstreamUser) and by its Attempt (AttemptOwner); made by listener.ts.
// A reply that is complete may start the next request inside the same call: whatever replies does so as its last act.
// Longer than 300 lines because the steps of a request share one state; what could stand alone is in attempt, request-body,
// request-account, tunnel and the filters.
import { type AttemptOutcome, OUTCOME_IGNORED, OUTCOME_TIMEOUT } from '../cluster/pick-interface.ts';
import type { BodyKind, DownstreamConnection, DownstreamUser, RequestHead, ResponseHead, Trailers } from '../http1/exchange.ts';
import { retryDelay } from '../kernel/backoff.ts';
import { Deadline } from '../kernel/timer-wheel.ts';
import { type AttemptEnd, decideRetry, mayRepeat } from '../resilience/retry.ts';
import { Attempt, type AttemptOwner, OWN_LATENESS_MS } from './attempt.ts';
import type { AttemptFailure } from './attempt-failure.ts';
import { failureReply, type LocalReply, localReplyBody, localReplyHead, REPLIES } from './local-reply.ts';
import type { ListenerFacts, ProxyContext } from './proxy-context.ts';
import { RequestAccount } from './request-account.ts';
import { KEPT_BYTES, RequestBody } from './request-body.ts';
import { filterRequest, type Peer, RequestPlan, upstreamHead } from './request-filter.ts';
import {
  filterInformational,
  filterResponse,
  filterTrailers,
  ResponsePlan,
  type RetryMarks,
  retryMarks,
} from './response-filter.ts';
import type { Route } from './route.ts';
import type { ServiceSlot } from './service-slot.ts';
import { stickyPlace } from './sticky.ts';
import { isWebSocketSwitch, Tunnel } from './tunnel.ts';

/** `stream_idle_timeout`, for responses that no route timeout bounds. */
export const STREAM_IDLE_MS = 300_000;
const STREAM_LOOK_MS = 1_000;
/** A server's wish to wait longer than this is not followed (§5.4). */
const MAX_RETRY_AFTER_MS = 300_000;

/** lookup: waits for the catalog · open: attempts are made · replying: the head of the response has gone down. */
type Phase = 'idle' | 'lookup' | 'open' | 'replying' | 'tunnel';

/** What the one deadline of an exchange stands for now. */
type Timing = 'stall' | 'route' | 'stream';

const UNMARKED: RetryMarks = { final: false, waitMs: -1 };
const NO_RETRY = -1;

/** Where an exchange finds what its listener says now. */
export interface ListenerState {
  facts: ListenerFacts;
}

/** The exchanges of one downstream connection. */
export class Exchange implements DownstreamUser, AttemptOwner {
  /** A request has come on this connection. */
  used = false;
  readonly #context: ProxyContext;
  readonly #listener: ListenerState;
  readonly #down: DownstreamConnection;
  readonly #onClosed: () => void;
  readonly #plan = new RequestPlan();
  readonly #answer = new ResponsePlan();
  readonly #route: Route = { service: '', path: '' };
  readonly #body = new RequestBody();
  readonly #account: RequestAccount;
  readonly #attempt: Attempt;
  readonly #deadline: Deadline;
  readonly #facts = {
    method: '',
    hasBody: false,
    hasIdempotencyKey: false,
    bodyReplayable: true,
    responseStarted: false,
    retries: 0,
    overloaded: false,
    markedFinal: false,
  };
  #facing: ListenerFacts | null = null;
  #peer: Peer = { address: '', trusted: false };
  #phase: Phase = 'idle';
  #timing: Timing = 'route';
  #status = 0;
  /** The first attempt starts at the end of this turn, or sooner when the body is there. */
  #startSoon = false;
  /** The upstream has answered and wants no more of the body. */
  #ignoreBody = false;
  #paused = false;
  /** For the stream timing: what had moved at the last look, and for how long nothing has. */
  #moved = 0;
  #stillMs = 0;
  #tunnel: Tunnel | null = null;
  /** Takes the request out of the queue for the catalog's first word about its service. */
  #stopWaiting: (() => void) | null = null;

  constructor(context: ProxyContext, listener: ListenerState, down: DownstreamConnection, onClosed: () => void) {
    this.#context = context;
    this.#listener = listener;
    this.#down = down;
    this.#onClosed = onClosed;
    this.#account = new RequestAccount(context);
    this.#attempt = new Attempt(this, context.clock, context.wheel, this.#body);
    this.#deadline = new Deadline((lateMs) => this.#onDeadline(lateMs));
  }

  /** A request or tunnel is open. */
  get busy(): boolean {
    return this.#phase !== 'idle';
  }

  // DownstreamUser.

  request(head: RequestHead, kind: BodyKind, length: number): void {
    const context = this.#context;
    const { facts } = this.#listener;
    if (facts !== this.#facing) this.#face(facts);
    this.#phase = 'lookup';
    this.used = true;
    this.#account.begin();
    this.#body.begin(kind, length);
    this.#attempt.prepare(null, '', false, false, 0);
    this.#route.service = '';
    const refusal =
      filterRequest(head, kind, facts.filter, this.#peer, context.newId, this.#plan) ??
      context.router.route(this.#plan, facts.service, this.#route);
    this.#countDropped();
    if (refusal !== null) this.#answerLocal(refusal);
    else if (context.gate.full) this.#answerLocal(REPLIES.overloaded);
    else this.#lookup();
  }

  body(view: Buffer): void {
    if (this.#ignoreBody || this.#phase === 'idle') return;
    const body = this.#body;
    const { sending } = this.#attempt;
    // What is kept is a copy, so that a small body does not hold on to the read it came in. A piece that is only written needs
    // none: the downstream reads by `data` events, whose buffers are never used again, and the write keeps it alive.
    const piece = sending && body.total + view.length > KEPT_BYTES ? view : Buffer.from(view);
    this.#account.bytesIn += piece.length;
    body.add(piece, sending);
    this.#account.holds(body.held);
    if (body.total > this.#maxBody()) this.#tooLarge();
    else if (sending) {
      if (!this.#attempt.write(body.framed(piece))) this.#pause();
    } else if (body.held >= KEPT_BYTES) this.#pause();
  }

  requestEnd(trailers: Trailers | null): void {
    if (this.#body.whole || this.#phase === 'idle') return;
    this.#body.end(filterTrailers(trailers, this.#plan.trailers));
    if (this.#phase === 'lookup') return;
    if (this.#phase === 'open' || this.#timing !== 'stream') this.#armRoute();
    if (this.#startSoon) {
      this.#startSoon = false;
      this.#attempt.start();
    } else this.#attempt.requestWhole();
  }

  aborted(cause: 'client' | 'refused' | 'timeout'): void {
    if (this.#phase === 'idle') return;
    this.#attempt.giveUp(OUTCOME_IGNORED);
    if (cause === 'client') this.#complete(0, 'CLIENT_GONE');
    else this.#complete(cause === 'timeout' ? 408 : 400, 'BAD_REQUEST');
  }

  /** Every piece of a reply is held until it has left, so nothing waits for this. */
  drained(): void {}

  upgradeData(view: Buffer): void {
    this.#tunnel?.up(view);
  }

  upgradeEnd(): void {
    this.#tunnel?.upEnd();
  }

  closed(): void {
    if (this.#tunnel !== null) this.#tunnel.clientGone();
    else if (this.#phase !== 'idle') this.aborted('client');
    this.#onClosed();
  }

  /** Drain's grace is over: a request without a response is told so, everything else is cut. The socket is destroyed after this. */
  hardStop(): void {
    if (this.#tunnel !== null) this.#tunnel.cut();
    else if (this.#phase === 'lookup' || this.#phase === 'open') {
      this.#attempt.giveUp(OUTCOME_IGNORED);
      this.#answerLocal(REPLIES.draining);
    } else this.#down.destroy();
  }

  // Admission.

  #face(facts: ListenerFacts): void {
    this.#facing = facts;
    const address = this.#down.remoteAddress;
    // A unix socket has no address; the word is that of RFC 7239 §6.2.
    const shown = address === '' ? 'unknown' : address.startsWith('::ffff:') ? address.slice(7) : address;
    this.#peer = { address: shown, trusted: facts.isTrusted(shown) };
  }

  #lookup(): void {
    const found = this.#context.find(this.#route.service);
    if (typeof found !== 'string') this.#admit(found);
    else if (found !== 'pending') this.#answerLocal(found === 'unknown' ? REPLIES.unknownService : REPLIES.notReady);
    else {
      // First use of a name: the catalog answers within a second (§18).
      this.#stopWaiting = this.#context.wait(this.#route.service, (answer) => {
        this.#stopWaiting = null;
        if (typeof answer === 'string') this.#answerLocal(answer === 'unknown' ? REPLIES.unknownService : REPLIES.notReady);
        else this.#admit(answer);
      });
    }
  }

  #admit(slot: ServiceSlot): void {
    const { cluster } = slot;
    const { policy } = cluster;
    const body = this.#body;
    const plan = this.#plan;
    if (body.length > policy.maxRequestBody || body.total > policy.maxRequestBody) {
      this.#account.slot = slot;
      this.#answerLocal(REPLIES.tooLarge);
      return;
    }
    if (!this.#account.admit(slot, !policy.streaming)) {
      this.#answerLocal(REPLIES.overflow);
      return;
    }
    cluster.countFirstAttempt();
    const facts = this.#facts;
    // A handshake that reached an upstream is never repeated, whatever GET promises (§15).
    facts.method = plan.upgrade ? 'CONNECT' : plan.method;
    facts.hasBody = body.exists;
    facts.hasIdempotencyKey = plan.idempotencyKey;
    facts.responseStarted = false;
    const { perTryTimeout } = policy.retry;
    const perTry = perTryTimeout > 0 && (policy.timeout === 0 || perTryTimeout < policy.timeout) ? perTryTimeout : 0;
    const { stickyHeader } = cluster;
    const place = stickyHeader === null ? -1 : stickyPlace(plan.fields, stickyHeader);
    const repeatable = mayRepeat(policy.retry, facts);
    this.#attempt.prepare(cluster, plan.method, plan.upgrade, repeatable, perTry * this.#context.gate.scale, place);
    this.#phase = 'open';
    if (policy.streaming) this.#down.liftRequestTimeout();
    if (body.whole) {
      this.#armRoute();
      this.#attempt.start();
    } else {
      // A small body comes in this same turn: then head and body leave in one write.
      this.#startSoon = true;
      queueMicrotask(this.#onSoon);
    }
  }

  readonly #onSoon = (): void => {
    if (!this.#startSoon) return;
    this.#startSoon = false;
    if (this.#phase === 'open') this.#attempt.start();
  };

  #maxBody(): number {
    return this.#account.slot?.cluster.policy.maxRequestBody ?? Number.POSITIVE_INFINITY;
  }

  #tooLarge(): void {
    const started = this.#phase === 'replying';
    this.#attempt.giveUp(OUTCOME_IGNORED);
    if (started) this.#cut('BAD_REQUEST');
    else this.#answerLocal(REPLIES.tooLarge);
  }

  #pause(): void {
    this.#paused = true;
    this.#down.pause();
    // An upstream that takes no more of the body is bounded by the route timeout, which has not started yet.
    const timeout = this.#account.slot?.cluster.policy.timeout ?? 0;
    if (this.#attempt.sending && timeout > 0 && this.#phase === 'open') this.#arm('stall', timeout * this.#context.gate.scale);
  }

  // AttemptOwner.

  requestHead(): string {
    const rewrite = this.#account.slot?.cluster.policy.rewriteHost ?? null;
    return upstreamHead(this.#plan, this.#route.path, rewrite, this.#attempt.count, this.#body.framing);
  }

  sending(): void {
    if (this.#plan.expectContinue && !this.#body.whole) this.#down.continue100();
  }

  upstreamDrained(): void {
    if (this.#phase === 'tunnel') {
      this.#tunnel?.upDrained();
      return;
    }
    this.#account.holds(this.#body.held);
    if (!this.#paused || this.#ignoreBody) return;
    this.#paused = false;
    if (this.#timing === 'stall') this.#context.wheel.disarm(this.#deadline);
    this.#down.resume();
  }

  noEndpoint(): void {
    this.#answerLocal(failureReply(this.#account.cluster?.noPick ?? 'NO_HEALTHY_UPSTREAM'));
  }

  attemptFailed(failure: AttemptFailure): void {
    if (failure.cause !== null) this.#account.slot?.failed(failure.cause);
    const wait = this.#retryWait(failure.end, 0, UNMARKED);
    if (wait !== NO_RETRY) {
      this.#attempt.retryAfter(wait);
      return;
    }
    this.#context.log.debug(
      { service: this.#route.service, upstream: this.#attempt.endpoint?.address, code: failure.code, why: failure.message },
      'request failed',
    );
    this.#answerLocal(failureReply(failure.code));
  }

  answeredWhole(head: ResponseHead, body: Buffer | null): void {
    const { status } = head;
    const text = this.#accept(head, false);
    if (text === null) return;
    const { contentLength } = this.#answer;
    if (body !== null) this.#account.bytesOut = body.length;
    this.#attempt.finish(status);
    this.#complete(status, '');
    this.#down.reply(text, body, contentLength >= 0 ? contentLength : undefined);
  }

  answered(head: ResponseHead, kind: BodyKind, length: number): void {
    const { status } = head;
    const text = this.#accept(head, true);
    if (text === null) return;
    this.#phase = 'replying';
    this.#status = status;
    this.#facts.responseStarted = true;
    // An upstream that refuses while the body is on its way reads no more of it (http1.md rule 12). One that accepts may
    // answer while it reads (an echo): then both directions go on, and the end of the response ends both.
    if (!this.#body.whole && status >= 300) this.#stopReading();
    if (this.#timing === 'stall') this.#context.wheel.disarm(this.#deadline);
    const policy = this.#account.slot?.cluster.policy;
    if (policy?.streaming === true || policy?.timeout === 0) this.#armStream();
    this.#down.replyHead(text, kind === 'length' ? length : -1);
  }

  /** The head of the reply for the client; null when the response is not passed on: it is repeated, or refused. */
  #accept(head: ResponseHead, streamed: boolean): string | null {
    const { status } = head;
    let final = status >= 500;
    if (status >= 400) {
      const marks = retryMarks(head, this.#context.clock);
      const wait = this.#retryWait('status', status, marks);
      if (wait !== NO_RETRY) {
        // A whole response leaves its connection clean; of a streamed one the rest would still come.
        if (streamed) this.#attempt.giveUp(status);
        else this.#attempt.finish(status);
        this.#attempt.retryAfter(wait);
        return null;
      }
      final ||= marks.final;
    }
    const answer = this.#answer;
    if (!filterResponse(head, this.#listener.facts.filter.pseudonym, answer)) {
      this.#attempt.refuseAnswer('malformed Connection field');
      return null;
    }
    if (answer.twins > 0) this.#context.dropped.twins.inc(answer.twins);
    return answer.head + this.#weirFields(final);
  }

  answerBody(view: Buffer): void {
    this.#account.bytesOut += view.length;
    this.#attempt.hold();
    this.#down.replyBody(view, this.#attempt.release);
  }

  answerEnd(trailers: Trailers | null): void {
    const passed = filterTrailers(trailers, this.#plan.trailers);
    this.#attempt.finish(this.#status);
    this.#complete(this.#status, '');
    if (passed === null) this.#down.replyEnd();
    else this.#down.replyEnd(passed);
  }

  informational(head: ResponseHead): void {
    if (head.status !== 103 || this.#phase !== 'open') return;
    const text = filterInformational(head, this.#listener.facts.filter.pseudonym, this.#answer);
    if (text !== null) this.#down.informational(text);
  }

  answerCut(): void {
    if (this.#tunnel !== null) {
      this.#tunnel.upstreamGone();
      return;
    }
    this.#account.slot?.failed('reset');
    this.#cut('TRUNCATED');
  }

  switched(head: ResponseHead): void {
    const answer = this.#answer;
    if (!isWebSocketSwitch(head) || !filterResponse(head, this.#listener.facts.filter.pseudonym, answer)) {
      this.#attempt.refuseAnswer('switched to something that was not asked for');
      return;
    }
    this.#context.wheel.disarm(this.#deadline);
    this.#attempt.becameTunnel();
    this.#account.leave();
    this.#phase = 'tunnel';
    const tunnel = new Tunnel(this.#down, this.#attempt, this.#context.wheel);
    this.#tunnel = tunnel;
    tunnel.open(() => {
      this.#account.bytesIn = tunnel.bytesIn;
      this.#account.bytesOut = tunnel.bytesOut;
      this.#tunnel = null;
      this.#complete(101, '');
    });
    this.#down.upgrade(`${answer.head}${this.#weirFields(false)}connection: upgrade\r\nupgrade: websocket\r\n\r\n`);
  }

  tunnelData(view: Buffer): void {
    this.#tunnel?.back(view);
  }

  tunnelEnd(): void {
    this.#tunnel?.backEnd();
  }

  // Retry decision (§5.3). Returns how long to wait, or NO_RETRY.

  #retryWait(end: AttemptEnd, status: number, marks: RetryMarks): number {
    const { cluster } = this.#account;
    if (cluster === null || this.#phase !== 'open') return NO_RETRY;
    const { clock, random, gate } = this.#context;
    const facts = this.#facts;
    facts.bodyReplayable = this.#body.replayable;
    facts.retries = this.#attempt.count - 1;
    facts.overloaded = gate.shedding;
    facts.markedFinal = marks.final;
    if (decideRetry(cluster.policy.retry, facts, end, status) !== 'retry') return NO_RETRY;
    const asked = marks.waitMs >= 0 && marks.waitMs <= MAX_RETRY_AFTER_MS;
    const wait = asked ? marks.waitMs * (1 + random() / 2) : retryDelay(facts.retries + 1, random);
    if (this.#timing === 'route' && this.#deadline.armed && this.#deadline.at - clock.now() <= wait) return NO_RETRY;
    // A request that met a stale connection says nothing about its upstream, and can meet no second one: there are no more such retries
    // than kept connections, each of which has served, so they need no budget (nor do Go's, nginx's and gRPC's transparent ones).
    return cluster.tryRetry(this.#attempt.raced) ? wait : NO_RETRY;
  }

  // Time.

  #arm(timing: Timing, ms: number): void {
    this.#timing = timing;
    this.#context.wheel.arm(this.#deadline, ms);
  }

  /** The whole request has arrived. */
  #armRoute(): void {
    const timeout = this.#account.slot?.cluster.policy.timeout ?? 0;
    if (timeout > 0) this.#arm('route', timeout * this.#context.gate.scale);
    else this.#armStream();
  }

  #armStream(): void {
    this.#moved = this.#account.bytesIn + this.#account.bytesOut;
    this.#stillMs = 0;
    this.#arm('stream', STREAM_LOOK_MS);
  }

  #onDeadline(lateMs: number): void {
    if (this.#timing === 'stream' && this.#stillMoves(lateMs)) return;
    const outcome: AttemptOutcome = lateMs > OWN_LATENESS_MS ? OUTCOME_IGNORED : OUTCOME_TIMEOUT;
    const started = this.#phase === 'replying';
    this.#attempt.giveUp(outcome);
    this.#account.slot?.failed('timeout');
    if (started) this.#cut('TRUNCATED');
    else this.#answerLocal(failureReply('UPSTREAM_TIMEOUT'));
  }

  /** Looks at a stream without a route timeout; arms the next look while something moves or may still. */
  #stillMoves(lateMs: number): boolean {
    const moved = this.#account.bytesIn + this.#account.bytesOut;
    this.#stillMs = moved === this.#moved ? this.#stillMs + STREAM_LOOK_MS + lateMs : 0;
    this.#moved = moved;
    if (this.#stillMs >= STREAM_IDLE_MS) return false;
    this.#context.wheel.arm(this.#deadline, STREAM_LOOK_MS);
    return true;
  }

  // Ends.

  #stopReading(): void {
    this.#ignoreBody = true;
    this.#down.pause();
  }

  /** What every reply says of its attempts. */
  #weirFields(final: boolean): string {
    const attempt = this.#attempt;
    let text = `x-weir-attempts: ${attempt.count}\r\n`;
    if (attempt.endpoint !== null) text += `x-weir-upstream: ${attempt.endpoint.address}\r\n`;
    if (attempt.panic) text += 'x-weir-panic: 1\r\n';
    return final ? `${text}x-weir-retry-final: 1\r\n` : text;
  }

  #answerLocal(reply: LocalReply): void {
    this.#context.countLocalReply(reply.code);
    let extra = this.#weirFields(this.#attempt.count > 0);
    if (reply.status === 405) extra += `allow: ${[...this.#listener.facts.filter.methods].join(', ')}\r\n`;
    if (reply.status === 400) this.#down.closing = true;
    this.#complete(reply.status, reply.code);
    this.#down.reply(localReplyHead(reply, extra), localReplyBody(reply));
  }

  /** The reply is broken: the client must see an abort, never a clean end. */
  #cut(error: string): void {
    this.#complete(this.#status, error);
    this.#down.destroy();
  }

  #countDropped(): void {
    const { twins, identity, named } = this.#plan;
    if (twins + identity + named === 0) return;
    const { dropped } = this.#context;
    dropped.twins.inc(twins);
    dropped.identity.inc(identity);
    dropped.named.inc(named);
  }

  /** Closes the books; the exchange is ready for the next request. */
  #complete(status: number, error: string): void {
    this.#stopWaiting?.();
    this.#stopWaiting = null;
    if (this.#deadline.armed) this.#context.wheel.disarm(this.#deadline);
    this.#phase = 'idle';
    this.#timing = 'route';
    this.#startSoon = false;
    this.#ignoreBody = false;
    this.#paused = false;
    const { method, requestId, path } = this.#plan;
    const { count, endpoint } = this.#attempt;
    this.#account.end({
      service: this.#route.service,
      method,
      path,
      status,
      error,
      upstream: endpoint?.address ?? '',
      attempts: count,
      requestId,
    });
    this.#body.drop();
    // An idle connection holds on to no head.
    this.#plan.fields = '';
    this.#answer.head = '';
  }
}
