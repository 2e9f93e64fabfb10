// Owns the client side of one socket: opening → idle → sent → head → body → idle, a tunnel, or dead; one exchange at a time.
// Called by its pool (open, take) and, through UpstreamConnection, by the user of the exchange. It must never read on while a
// view is held, and never give back a socket that is not clean (rule 9): any doubt destroys it. It is long because the state
// of one socket has one owner.
import net from 'node:net';
import { messageOf } from '../kernel/errors.ts';
import { Deadline, type TimerWheel } from '../kernel/timer-wheel.ts';
import { ChunkedDecoder } from './chunked.ts';
import type { FailureClass, ResponseHead, Trailers, UpstreamConnection, UpstreamFailure, UpstreamUser } from './exchange.ts';
import { KEEP_ALIVE } from './fields.ts';
import { Framing, frameResponse, interimFault, keepAliveHint } from './framing.ts';
import { HEAD_LIMITS, type ParsedResponse, parseResponseHead } from './head.ts';
import { HeadReader } from './head-reader.ts';

/** Opens a socket that reads by `onread`; the real one is `connectTcp`. */
export type Connect = (host: string, port: number, onread: net.OnReadOpts) => net.Socket;

/** Plain TCP. Half-open is allowed for tunnels; Nagle is off. */
export const connectTcp: Connect = (host, port, onread) =>
  net.connect({ host, port, onread, allowHalfOpen: true, noDelay: true });

/** What a connection tells its pool; each call is about the connection itself, never about the exchange's content. */
export interface UpstreamOwner {
  opened(connection: Upstream): void;
  openFailed(connection: Upstream, message: string): void;
  /** Clean and idle again; it may be reused for `idleMs` from now. */
  released(connection: Upstream, idleMs: number): void;
  /** Not usable any more; called once for each connection that had opened. */
  gone(connection: Upstream): void;
}

/** Informational responses of one attempt (proxy-semantics §3). */
const MAX_INTERIM = 16;
const INTERIM_MS = 10_000;
/** Idle time without a hint; with one, the hint minus the margin, at most the longest (proxy-semantics §3). */
const IDLE_MS = 4_000;
const HINT_MARGIN_MS = 2_000;
const MAX_IDLE_MS = 600_000;
const READ_BUFFER = 65_536;
/** Up to this size a request's body is joined to its head as text: one string, one write. */
const JOIN_LIMIT = 16_384;

type State = 'opening' | 'idle' | 'taken' | 'head' | 'body' | 'tunnel' | 'dead';

/** One socket to one endpoint. */
export class Upstream implements UpstreamConnection {
  reused = false;
  /** Owned by the pool: the number of its idle tick at release, and how long it may idle. */
  idleSince = 0;
  idleMs = IDLE_MS;
  readonly #owner: UpstreamOwner;
  readonly #wheel: TimerWheel;
  readonly #buffer = Buffer.allocUnsafeSlow(READ_BUFFER);
  readonly #socket: net.Socket;
  readonly #deadline: Deadline;
  readonly #reader = new HeadReader(HEAD_LIMITS, false);
  readonly #framing = new Framing();
  readonly #decoder = new ChunkedDecoder();
  #user: UpstreamUser | null = null;
  #state: State = 'opening';
  #method = '';
  #allowUpgrade = false;
  /** At least one byte of the request was handed to the kernel. */
  #sent = false;
  #requestDone = true;
  #gotByte = false;
  #interim = 0;
  #bodyLeft = 0;
  #held = false;
  #inCallback = false;
  /** The body's end was read while its last view is held: responseEnd follows the release. */
  #endWaits = false;
  /** Bytes came after the response. */
  #dirty = false;
  #openFault = 'closed while opening';

  /** Starts to open. Throws what `connect` throws. */
  constructor(owner: UpstreamOwner, wheel: TimerWheel, connect: Connect, host: string, port: number, connectTimeoutMs: number) {
    this.#owner = owner;
    this.#wheel = wheel;
    this.#deadline = new Deadline(() => this.#onDeadline(connectTimeoutMs));
    this.#socket = connect(host, port, { buffer: this.#buffer, callback: (length) => this.#onRead(length) });
    const socket = this.#socket;
    socket.once('connect', () => this.#onConnect());
    socket.on('drain', () => this.#user?.drained());
    socket.on('end', () => this.#onEnd());
    socket.on('error', (error) => this.#onError(error));
    socket.on('close', () => this.#onGone('connection closed by the upstream'));
    wheel.arm(this.#deadline, connectTimeoutMs);
  }

  // For the pool.

  /** True while an idle connection may be used. */
  get usable(): boolean {
    return this.#state === 'idle' && !this.#socket.destroyed;
  }

  /** Gives the idle connection to an exchange. */
  take(user: UpstreamUser): void {
    this.#user = user;
    this.#state = 'taken';
    this.#sent = false;
    this.#requestDone = true;
    this.#gotByte = false;
    this.#interim = 0;
    this.#allowUpgrade = false;
  }

  /** Cuts it from the pool's side; an open exchange fails as cancelled. */
  shut(): void {
    if (this.#user !== null) this.#fail('cancelled', 'the pool was closed');
    else this.#die();
  }

  // For the user of the exchange.

  send(head: string, body: Buffer | null, more: boolean, method: string, allowUpgrade: boolean): void {
    if (this.#state !== 'taken') return;
    this.#state = 'head';
    this.#method = method;
    this.#allowUpgrade = allowUpgrade;
    this.#requestDone = !more;
    const socket = this.#socket;
    if (body === null || body.length === 0) socket.write(head, 'latin1');
    else if (body.length <= JOIN_LIMIT) socket.write(head + body.toString('latin1'), 'latin1');
    else {
      socket.cork();
      socket.write(head, 'latin1');
      socket.write(Buffer.from(body));
      socket.uncork();
    }
    // A write that fails at once took no byte: the exchange is still unsent, and `close` will say so.
    this.#sent = !socket.destroyed;
  }

  write(view: Buffer, done: () => void): boolean {
    if (this.#requestDone || this.#user === null) {
      queueMicrotask(done);
      return true;
    }
    return this.#socket.write(view, done);
  }

  endBody(tail: string): void {
    if (this.#requestDone || this.#user === null) return;
    if (tail !== '') this.#socket.write(tail, 'latin1');
    this.#requestDone = true;
  }

  hold(): void {
    if (this.#inCallback) this.#held = true;
  }

  release(): void {
    if (!this.#held) return;
    this.#held = false;
    if (this.#inCallback || this.#user === null) return;
    // Reading goes on in both cases: a socket that idles unread would miss its next response, and its own end.
    this.#socket.resume();
    if (this.#endWaits) this.#finish();
  }

  upgradedWrite(view: Buffer, done: () => void): boolean {
    if (this.#state === 'tunnel') return this.#socket.write(view, done);
    queueMicrotask(done);
    return true;
  }

  upgradedEnd(): void {
    if (this.#state === 'tunnel') this.#socket.end();
  }

  abandon(): void {
    if (this.#user === null) return;
    this.#user = null;
    this.#die();
  }

  // Reading.

  /** Returns false to stop reading. */
  #onRead(length: number): boolean {
    if (this.#state === 'head') this.#readHead(length);
    else if (this.#state === 'body') this.#readBody(0, length);
    else if (this.#state === 'tunnel') this.#readTunnel(0, length);
    else if (this.#user !== null) this.#fail('protocol', 'bytes before the request was sent');
    else this.#die();
    return !this.#held;
  }

  #readHead(length: number): void {
    this.#gotByte = true;
    let at = 0;
    while (at < length && this.#state === 'head') {
      const next = this.#reader.read(this.#buffer, at, length);
      if (next === -1) return;
      const { text, end, fault } = this.#reader;
      this.#reader.reset();
      const head = parseResponseHead(text, end);
      if (head.refused) this.#fail('protocol', head.reason);
      else if (fault !== 'none') this.#fail('protocol', `reply: head above ${HEAD_LIMITS.bytes} bytes`);
      else if (head.status < 200) this.#informational(head, next, length);
      else {
        this.#final(head, next, length);
        return;
      }
      at = next;
    }
  }

  #informational(head: ParsedResponse, at: number, length: number): void {
    const refusal = interimFault(head);
    if (refusal !== null) {
      this.#fail('protocol', refusal.reason);
      return;
    }
    if (head.status === 101) {
      this.#switch(head, at, length);
      return;
    }
    this.#interim++;
    if (this.#interim > MAX_INTERIM) this.#fail('protocol', `more than ${MAX_INTERIM} informational responses`);
    else {
      if (this.#interim === 1) this.#wheel.arm(this.#deadline, INTERIM_MS);
      if (head.status !== 100) this.#user?.informational(head);
    }
  }

  #switch(head: ParsedResponse, at: number, length: number): void {
    if (!this.#allowUpgrade || !this.#requestDone) {
      this.#fail('protocol', '101 without a request for it');
      return;
    }
    this.#wheel.disarm(this.#deadline);
    this.#state = 'tunnel';
    this.#user?.upgraded(head);
    if (at < length) this.#readTunnel(at, length);
  }

  #readTunnel(at: number, length: number): void {
    this.#inCallback = true;
    this.#user?.upgradeData(this.#buffer.subarray(at, length));
    this.#inCallback = false;
  }

  /** A final head; the piece in hand goes on at `at`. */
  #final(head: ParsedResponse, at: number, length: number): void {
    const framing = this.#framing;
    const refusal = frameResponse(head, this.#method, framing);
    if (refusal !== null) {
      this.#fail('protocol', refusal.reason);
      return;
    }
    if (this.#interim > 0) this.#wheel.disarm(this.#deadline);
    this.#state = 'body';
    this.#dirty = false;
    if ((head.seen & KEEP_ALIVE) !== 0) this.#readHint(head);
    const inHand = length - at;
    if (framing.kind === 'none' || framing.length === 0) this.#whole(head, null, inHand > 0);
    else if (framing.kind === 'length' && inHand >= framing.length) {
      this.#whole(head, this.#buffer.subarray(at, at + framing.length), inHand > framing.length);
    } else if (framing.kind === 'chunked') this.#startChunked(head, at, length);
    else this.#stream(head, at, length);
  }

  #startChunked(head: ParsedResponse, at: number, length: number): void {
    const decoder = this.#decoder;
    decoder.reset();
    if (at < length) {
      const next = decoder.decode(this.#buffer, at, length);
      if (decoder.done && decoder.trailers === null) {
        const { bodyStart, bodyEnd } = decoder;
        this.#whole(head, bodyEnd > bodyStart ? this.#buffer.subarray(bodyStart, bodyEnd) : null, next < length);
        return;
      }
      this.#user?.response(head, 'chunked', -1);
      if (this.#state === 'body') this.#decoded(next, length);
      return;
    }
    this.#user?.response(head, 'chunked', -1);
  }

  #stream(head: ParsedResponse, at: number, length: number): void {
    this.#bodyLeft = this.#framing.length;
    this.#user?.response(head, this.#framing.kind, this.#framing.length);
    if (at < length && this.#state === 'body') this.#readBody(at, length);
  }

  #readBody(at: number, length: number): void {
    if (this.#framing.kind === 'chunked') {
      this.#decoded(this.#decoder.decode(this.#buffer, at, length), length);
      return;
    }
    let end = length;
    if (this.#framing.kind === 'length') {
      end = Math.min(length, at + this.#bodyLeft);
      this.#bodyLeft -= end - at;
      this.#dirty = end < length;
    }
    this.#piece(at, end);
    if (this.#framing.kind === 'length' && this.#bodyLeft === 0) this.#ended();
  }

  /** What the decoder made of a piece: payload, then perhaps a refusal or the end. */
  #decoded(next: number, length: number): void {
    const { bodyStart, bodyEnd, refusal, done } = this.#decoder;
    if (bodyEnd > bodyStart) this.#piece(bodyStart, bodyEnd);
    if (refusal !== null) this.#fail('protocol', `reply: ${refusal.reason}`);
    else if (done) {
      this.#dirty = next < length;
      this.#ended();
    }
  }

  #piece(from: number, to: number): void {
    this.#inCallback = true;
    this.#user?.responseBody(this.#buffer.subarray(from, to));
    this.#inCallback = false;
  }

  #ended(): void {
    if (this.#user === null) return;
    if (this.#held) this.#endWaits = true;
    else this.#finish();
  }

  // Ends.

  #whole(head: ResponseHead, body: Buffer | null, dirty: boolean): void {
    const user = this.#user;
    this.#dirty = dirty;
    user?.responseWhole(head, body);
    if (this.#user === user) this.#settle();
  }

  #finish(): void {
    const user = this.#user;
    const trailers: Trailers | null = this.#framing.kind === 'chunked' ? this.#decoder.trailers : null;
    this.#endWaits = false;
    user?.responseEnd(trailers);
    if (this.#user === user) this.#settle();
  }

  /** The exchange is over: back to the pool when clean, else destroyed. */
  #settle(): void {
    this.#user = null;
    const socket = this.#socket;
    const sent = this.#requestDone && socket.writableLength === 0;
    if (!sent || this.#dirty || !this.#framing.keepAlive || this.idleMs <= 0 || socket.destroyed) {
      this.#die();
      return;
    }
    this.#state = 'idle';
    this.reused = true;
    this.#owner.released(this, this.idleMs);
  }

  #readHint(head: ParsedResponse): void {
    const seconds = keepAliveHint(head.names, head.values);
    if (seconds >= 0) this.idleMs = Math.min(seconds * 1_000 - HINT_MARGIN_MS, MAX_IDLE_MS);
  }

  #failureClass(): FailureClass {
    if (this.#gotByte) return 'started';
    return this.#sent ? 'no-response' : 'unsent';
  }

  #fail(cause: UpstreamFailure['cause'], message: string): void {
    const user = this.#user;
    const failure: UpstreamFailure = { class: this.#failureClass(), cause, message, reused: this.reused };
    this.#user = null;
    this.#die();
    user?.failed(failure);
  }

  /** Destroys the socket and tells the pool, once. */
  #die(): void {
    if (this.#state === 'dead') return;
    const opening = this.#state === 'opening';
    this.#state = 'dead';
    this.#held = false;
    this.#wheel.disarm(this.#deadline);
    this.#socket.destroy();
    if (opening) this.#owner.openFailed(this, this.#openFault);
    else this.#owner.gone(this);
  }

  #onConnect(): void {
    if (this.#state !== 'opening') return;
    this.#wheel.disarm(this.#deadline);
    this.#state = 'idle';
    // Without this, `end` would never be told: nobody else makes the stream flow.
    this.#socket.resume();
    this.#owner.opened(this);
  }

  #onDeadline(connectTimeoutMs: number): void {
    if (this.#state === 'opening') {
      // Timers run before the loop looks at its sockets: after a stall of ours the connection may be open and not yet told.
      setImmediate(() => {
        if (this.#state !== 'opening') return;
        this.#openFault = `not connected within ${connectTimeoutMs} ms`;
        this.#die();
      });
    } else if (this.#state === 'head')
      this.#fail('protocol', `no final response within ${INTERIM_MS} ms after an informational one`);
  }

  #onEnd(): void {
    if (this.#state === 'tunnel') this.#user?.upgradeEnd();
    else if (this.#state === 'body' && this.#framing.kind === 'close') this.#ended();
    else this.#onGone('connection closed by the upstream');
  }

  #onError(error: Error): void {
    if (this.#state === 'opening') this.#openFault = messageOf(error);
    this.#onGone(messageOf(error));
  }

  #onGone(message: string): void {
    if (this.#state === 'dead') return;
    // Both directions of a tunnel ended in order: nothing failed.
    const over = this.#state === 'tunnel' && this.#socket.readableEnded && this.#socket.writableFinished;
    if (over) this.#user = null;
    if (this.#user !== null && this.#state !== 'opening') this.#fail('reset', message);
    else this.#die();
  }
}
