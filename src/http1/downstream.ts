// Owns the server side of one socket: idle → head → body → reply → idle, then closing or a tunnel; one exchange at a time.
// Called by proxy's listeners (createDownstream) and, through DownstreamConnection, by the user of each exchange. It must
// never parse a request while another is open, never keep a view, and never let a refused byte reach the user. It is long
// because the state of one socket has one owner; what could be taken out of it (replies, pace, write progress) is out.
import type { Socket } from 'node:net';
import { Deadline, type TimerWheel } from '../kernel/timer-wheel.ts';
import { ChunkedDecoder } from './chunked.ts';
import type { BodyKind, DownstreamConnection, DownstreamUser, Refusal, Trailers } from './exchange.ts';
import { Framing, frameRequest } from './framing.ts';
import { HEAD_LIMITS, type HeadLimits, type ParsedRequest, parseRequestHead, refuse, refuseLongRequest } from './head.ts';
import { HeadReader } from './head-reader.ts';
import { ReplyWriter } from './reply-writer.ts';
import { type PaceLimits, RequestPace } from './request-pace.ts';
import { WriteWatch } from './write-watch.ts';
import { CONTINUE, statusLine } from './writer.ts';

/** Caps and times of downstream connections (proxy-semantics §3); ms. */
export interface DownstreamLimits extends PaceLimits {
  readonly head: HeadLimits;
  readonly requestHeadersTimeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly writeProgressMs: number;
  readonly maxRequestsPerSocket: number;
  /** After our last byte: how long, and for how many bytes, we still read so that the client can read the reply. */
  readonly lingerMs: number;
  readonly lingerBytes: number;
}

/** The numbers of proxy-semantics §3. */
export const DOWNSTREAM_LIMITS: DownstreamLimits = {
  head: HEAD_LIMITS,
  requestHeadersTimeoutMs: 10_000,
  requestTimeoutMs: 60_000,
  minRate: 240,
  minRateAfterMs: 10_000,
  idleTimeoutMs: 60_000,
  writeProgressMs: 30_000,
  maxRequestsPerSocket: 10_000,
  lingerMs: 2_000,
  lingerBytes: 16 * 1024 * 1024,
};

/** One object per listener, shared by its connections. */
export interface DownstreamOptions {
  /** Called once per connection, in its constructor: keep the connection, call nothing on it yet. */
  readonly open: (connection: Downstream) => DownstreamUser;
  readonly wheel: TimerWheel;
  readonly limits: DownstreamLimits;
  /** While true each reply carries `Connection: close`. Set it at any time. */
  draining: boolean;
  /** Field lines (each with its CRLF) of the codec's own refusals. */
  readonly refusalFields: string;
  /** Counts refusals; `reason` has few values. */
  readonly onRefused: (status: number, reason: string) => void;
}

/** The field lines of a refusal that no request of ours went out for (proxy-semantics §18). */
export const REFUSAL_FIELDS = 'x-weir-error: BAD_REQUEST\r\nx-weir-attempts: 0\r\n';

type Phase = 'head' | 'exchange' | 'tunnel' | 'linger' | 'dead';

/** Takes over a socket that a server accepted. */
export function createDownstream(socket: Socket, options: DownstreamOptions): Downstream {
  return new Downstream(socket, options);
}

/** One accepted socket. See DownstreamConnection for what its methods promise; calls after the exchange's end do nothing. */
export class Downstream implements DownstreamConnection {
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localPort: number;
  closing = false;
  readonly #socket: Socket;
  readonly #options: DownstreamOptions;
  readonly #user: DownstreamUser;
  readonly #reader: HeadReader;
  readonly #framing = new Framing();
  readonly #decoder = new ChunkedDecoder();
  readonly #pace: RequestPace;
  readonly #watch: WriteWatch;
  readonly #reply: ReplyWriter;
  readonly #deadline: Deadline;
  #phase: Phase = 'head';
  #minor: 0 | 1 = 1;
  /** The request body has been read to its end. */
  #bodyDone = true;
  /** Only while `user.request` runs: the whole body stands in the piece in hand, so a reply may step over it. */
  #bodyInHand = false;
  #bodyLeft = 0;
  #replyStarted = false;
  #mayContinue = false;
  #lifted = false;
  /** What came after the open request; while it is held the socket is not read. */
  #unread: Buffer | null = null;
  #userPaused = false;
  #running = false;
  #served = 0;
  #lingered = 0;
  /** The exchange was cut by us; `aborted` with this cause is still to be called. */
  #owed: 'client' | 'timeout' | null = null;

  constructor(socket: Socket, options: DownstreamOptions) {
    this.#socket = socket;
    this.#options = options;
    this.remoteAddress = socket.remoteAddress ?? '';
    this.remotePort = socket.remotePort ?? 0;
    this.localPort = socket.localPort ?? 0;
    this.#reader = new HeadReader(options.limits.head, true);
    this.#pace = new RequestPace(options.limits);
    this.#watch = new WriteWatch(socket, options.wheel, options.limits.writeProgressMs, () => this.#fail('timeout'));
    this.#reply = new ReplyWriter(socket, this.#watch);
    this.#deadline = new Deadline((lateMs) => this.#onDeadline(lateMs));
    this.#user = options.open(this);
    // The reply to a client that has half-closed, and tunnels, need a writing side that outlives the reading side.
    socket.allowHalfOpen = true;
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => this.#onData(chunk));
    socket.on('drain', () => this.#onDrain());
    socket.on('end', () => this.#onEnd());
    // An error is followed by close, which says all that matters here.
    socket.on('error', () => {});
    socket.on('close', () => this.#onClose());
    options.wheel.arm(this.#deadline, options.limits.idleTimeoutMs);
  }

  /** True between requests: nothing is open, nothing has been read of a next one. */
  get idle(): boolean {
    return this.#phase === 'head' && !this.#reader.partial && this.#unread === null;
  }

  /** Ends the connection if it is idle (drain, proxy-semantics §17); says whether it did. */
  closeIfIdle(): boolean {
    if (!this.idle) return false;
    this.#linger();
    return true;
  }

  reply(head: string, body: string | Buffer | null, contentLength?: number): void {
    if (this.#phase !== 'exchange' || this.#replyStarted) return;
    this.#replyStarted = true;
    this.#skipKeptBody();
    this.closing = this.#mustClose() || !(this.#bodyDone || this.#bodyInHand);
    this.#reply.whole(head, body, contentLength, this.closing);
    this.#finish();
  }

  replyHead(head: string, length: number): boolean {
    if (this.#phase !== 'exchange' || this.#replyStarted) return true;
    this.#replyStarted = true;
    this.closing = this.#mustClose() || !this.#bodyDone || this.#reply.endsByClose(length);
    return this.#reply.start(head, length, this.closing);
  }

  replyBody(view: Buffer, done: () => void): boolean {
    if (this.#phase !== 'exchange') {
      queueMicrotask(done);
      return true;
    }
    const more = this.#reply.piece(view, done);
    if (more !== null) return more;
    queueMicrotask(done);
    this.#fail('client');
    return true;
  }

  replyEnd(trailers?: Trailers): void {
    if (this.#phase !== 'exchange' || !this.#replyStarted) return;
    if (this.#reply.end(trailers)) this.#finish();
    else this.#fail('client');
  }

  informational(head: string): void {
    if (this.#phase !== 'exchange' || this.#replyStarted || this.#minor === 0) return;
    this.#reply.interim(head.endsWith('\r\n\r\n') ? head : `${head}\r\n`);
  }

  continue100(): void {
    if (!this.#mayContinue || this.#replyStarted || this.#phase !== 'exchange') return;
    this.#mayContinue = false;
    this.#reply.interim(CONTINUE);
  }

  liftRequestTimeout(): void {
    this.#lifted = true;
  }

  pause(): void {
    this.#userPaused = true;
    this.#socket.pause();
  }

  resume(): void {
    this.#userPaused = false;
    if (this.#unread === null) this.#socket.resume();
    else if (this.#phase === 'exchange' && !this.#bodyDone) queueMicrotask(this.#goOn);
  }

  upgrade(head: string): void {
    if (this.#phase !== 'exchange' || this.#replyStarted) return;
    this.#replyStarted = true;
    this.#phase = 'tunnel';
    this.#options.wheel.disarm(this.#deadline);
    this.#reply.interim(head);
    queueMicrotask(() => this.#afterUpgrade());
  }

  upgradedWrite(view: Buffer, done: () => void): boolean {
    if (this.#phase === 'tunnel') return this.#reply.raw(view, done);
    queueMicrotask(done);
    return true;
  }

  upgradedEnd(): void {
    if (this.#phase === 'tunnel') this.#socket.end();
  }

  destroy(): void {
    this.#cut();
  }

  // Reading.

  #onData(chunk: Buffer): void {
    if (this.#phase === 'tunnel') this.#user.upgradeData(chunk);
    else this.#run(chunk, 0);
  }

  /** Works through one piece until it is used up, kept for later, or the connection is past reading. */
  #run(chunk: Buffer, from: number): void {
    this.#running = true;
    let at = from;
    while (at < chunk.length) {
      if (this.#phase === 'head') {
        // A client that does not read its replies gets no further request in.
        if (this.#socket.writableNeedDrain) {
          this.#keep(chunk, at);
          break;
        }
        at = this.#readHead(chunk, at);
      } else if (this.#phase === 'exchange') {
        if (this.#bodyDone || this.#userPaused) {
          this.#keep(chunk, at);
          break;
        }
        at = this.#framing.kind === 'length' ? this.#readLength(chunk, at) : this.#readChunked(chunk, at);
      } else {
        if (this.#phase === 'linger') this.#discard(chunk.length - at);
        break;
      }
    }
    this.#running = false;
  }

  #keep(chunk: Buffer, at: number): void {
    this.#unread = at === 0 ? chunk : chunk.subarray(at);
    this.#socket.pause();
  }

  #readHead(chunk: Buffer, at: number): number {
    const reader = this.#reader;
    const wasPartial = reader.partial;
    const next = reader.read(chunk, at, chunk.length);
    if (next === -1) {
      if (!wasPartial && reader.partial) this.#options.wheel.arm(this.#deadline, this.#options.limits.requestHeadersTimeoutMs);
      return chunk.length;
    }
    const head = this.#parse(reader);
    const refusal = head.refused ? head : frameRequest(head, this.#framing);
    if (refusal !== null || head.refused) {
      this.#refuse(refusal ?? refuse(400, 'refused'));
      return chunk.length;
    }
    return this.#open(head, chunk, next);
  }

  #parse(reader: HeadReader): ParsedRequest | Refusal {
    const { text, end, fault } = reader;
    reader.reset();
    if (fault === 'too-long') return refuseLongRequest(text, end, this.#options.limits.head);
    return parseRequestHead(text, end, this.#options.limits.head);
  }

  /** An accepted head: the exchange begins. Returns the position after what was used. */
  #open(head: ParsedRequest, chunk: Buffer, at: number): number {
    const { kind, length } = this.#framing;
    this.#phase = 'exchange';
    this.#minor = head.minor;
    this.#replyStarted = false;
    this.#mayContinue = this.#framing.expectContinue;
    this.#served++;
    this.#reply.begin(head.method, head.minor);
    if (kind === 'none' || length === 0) {
      this.#bodyDone = true;
      this.#user.request(head, kind, length);
      if (this.#phase === 'exchange') this.#user.requestEnd(null);
      return at;
    }
    return this.#openWithBody(head, kind, length, chunk, at);
  }

  #openWithBody(head: ParsedRequest, kind: BodyKind, length: number, chunk: Buffer, at: number): number {
    this.#bodyDone = false;
    this.#bodyLeft = length;
    this.#lifted = false;
    this.#bodyInHand = kind === 'length' && chunk.length - at >= length;
    if (kind === 'chunked') this.#decoder.reset();
    if (!this.#bodyInHand) this.#options.wheel.arm(this.#deadline, this.#pace.begin());
    this.#user.request(head, kind, length);
    const skip = this.#phase === 'head' && this.#bodyInHand;
    this.#bodyInHand = false;
    return skip ? at + length : at;
  }

  #readLength(chunk: Buffer, at: number): number {
    const end = Math.min(chunk.length, at + this.#bodyLeft);
    this.#bodyLeft -= end - at;
    this.#pace.bytes += end - at;
    this.#mayContinue = false;
    this.#bodyDone = this.#bodyLeft === 0;
    this.#user.body(at === 0 && end === chunk.length ? chunk : chunk.subarray(at, end));
    if (this.#bodyDone && this.#phase === 'exchange') this.#user.requestEnd(null);
    return end;
  }

  #readChunked(chunk: Buffer, at: number): number {
    const decoder = this.#decoder;
    const next = decoder.decode(chunk, at, chunk.length);
    this.#pace.bytes += decoder.bodyEnd - decoder.bodyStart;
    this.#mayContinue = false;
    this.#bodyDone = decoder.done;
    const { refusal, trailers } = decoder;
    if (decoder.bodyEnd > decoder.bodyStart) this.#user.body(chunk.subarray(decoder.bodyStart, decoder.bodyEnd));
    if (this.#phase !== 'exchange') return next;
    if (refusal !== null) this.#refuse(refusal);
    else if (this.#bodyDone) this.#user.requestEnd(trailers);
    return next;
  }

  /** After 101: what came behind the request head belongs to the tunnel. */
  #afterUpgrade(): void {
    const early = this.#unread;
    this.#unread = null;
    if (this.#phase !== 'tunnel') return;
    if (early !== null) this.#user.upgradeData(early);
    if (!this.#userPaused) this.#socket.resume();
  }

  // Ends.

  #mustClose(): boolean {
    return (
      this.closing ||
      this.#options.draining ||
      !this.#framing.keepAlive ||
      this.#served >= this.#options.limits.maxRequestsPerSocket
    );
  }

  /** A body of known length that was kept whole (the user had paused) is dropped when the reply comes without it. */
  #skipKeptBody(): void {
    const kept = this.#unread;
    if (this.#bodyDone || this.#framing.kind !== 'length' || kept === null || kept.length < this.#bodyLeft) return;
    this.#unread = kept.length === this.#bodyLeft ? null : kept.subarray(this.#bodyLeft);
    this.#bodyDone = true;
  }

  /** The reply is complete. What is left of a body must never be read as a request: then the connection ends. */
  #finish(): void {
    if (this.closing || !(this.#bodyDone || this.#bodyInHand)) {
      this.#linger();
      return;
    }
    this.#phase = 'head';
    this.#options.wheel.arm(this.#deadline, this.#options.limits.idleTimeoutMs);
    if (this.#userPaused) this.resume();
    if (this.#unread !== null && !this.#running) this.#goOn();
  }

  /** Goes on with what was kept, once nothing stands in its way: the next request, or a body that the user had paused. */
  readonly #goOn = (): void => {
    const chunk = this.#unread;
    if (chunk === null || this.#userPaused || this.#running) return;
    const wanted = this.#phase === 'head' ? !this.#socket.writableNeedDrain : this.#phase === 'exchange' && !this.#bodyDone;
    if (!wanted) return;
    this.#unread = null;
    this.#run(chunk, 0);
    if (this.#unread === null && !this.#userPaused) this.#socket.resume();
  };

  #refuse(refusal: Refusal): void {
    const { limits, refusalFields, onRefused } = this.#options;
    onRefused(refusal.status, refusal.reason);
    const open = this.#phase === 'exchange';
    const started = open && this.#replyStarted;
    this.#phase = 'linger';
    if (open) this.#user.aborted(refusal.status === 408 ? 'timeout' : 'refused');
    if (started) {
      this.#cut();
      return;
    }
    this.closing = true;
    if (!open) this.#reply.begin('', 1);
    const head = `${statusLine(refusal.status)}content-type: text/plain\r\n${refusalFields}`;
    this.#reply.whole(head, `${refusal.reason}\n`, undefined, true);
    this.#lingerFor(limits.lingerMs);
  }

  /** Our last byte is written: half-close, read on for a while so that no reset overtakes the reply, then destroy. */
  #linger(): void {
    this.#phase = 'linger';
    this.closing = true;
    this.#lingerFor(this.#options.limits.lingerMs);
  }

  #lingerFor(ms: number): void {
    this.#unread = null;
    this.#userPaused = false;
    this.#socket.end();
    this.#socket.resume();
    this.#options.wheel.arm(this.#deadline, ms);
  }

  #discard(bytes: number): void {
    this.#lingered += bytes;
    if (this.#lingered > this.#options.limits.lingerBytes) this.#cut();
  }

  /** Cuts an open exchange; the user hears of it with the socket's close, never inside a call of its own. */
  #fail(cause: 'client' | 'timeout'): void {
    if (this.#phase === 'exchange') this.#owed = cause;
    this.#cut();
  }

  #cut(): void {
    if (this.#phase === 'dead') return;
    this.#phase = 'dead';
    this.#socket.destroy();
  }

  #onDrain(): void {
    if (this.#phase === 'exchange' || this.#phase === 'tunnel') this.#user.drained();
    else this.#goOn();
  }

  #onEnd(): void {
    if (this.#phase === 'tunnel') this.#user.upgradeEnd();
    else if (this.#phase === 'exchange') this.#fail('client');
    else if (this.#phase === 'head' && !this.#reader.partial && this.#socket.writableLength > 0) this.#linger();
    else if (this.#phase !== 'linger' || this.#socket.writableFinished) this.#cut();
  }

  #onClose(): void {
    this.#options.wheel.disarm(this.#deadline);
    this.#watch.stop();
    this.#unread = null;
    const cause = this.#phase === 'exchange' ? 'client' : this.#owed;
    this.#phase = 'dead';
    if (cause !== null) this.#user.aborted(cause);
    this.#user.closed();
  }

  #onDeadline(lateMs: number): void {
    const { wheel } = this.#options;
    if (this.#phase === 'linger') {
      // While the client still takes the reply, the write watch decides.
      if (this.#socket.writableLength === 0) this.#cut();
      else wheel.arm(this.#deadline, this.#options.limits.lingerMs);
    } else if (this.#phase === 'head') {
      if (this.#reader.partial) this.#refuse(refuse(408, 'the request head took too long'));
      else this.#linger();
    } else if (this.#phase === 'exchange' && !this.#bodyDone && !this.#lifted) {
      const again = this.#pace.look(lateMs, this.#userPaused);
      if (again === -1) this.#refuse(refuse(408, 'the request took too long'));
      else wheel.arm(this.#deadline, again);
    }
  }
}
