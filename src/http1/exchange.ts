// Owns the types by which the HTTP/1.1 codec and its user (proxy/) talk. Types only, no behaviour, no domain words.
// Every callback is a method of an object that lives as long as its socket, so a request allocates no closure.

/** A field name, interned by the codec: `text` as received, `lower` in lower case, `flags` from fields.ts. */
export interface FieldName {
  readonly text: string;
  readonly lower: string;
  readonly flags: number;
}

/** Head of a request. `names[i]` goes with `values[i]`, in the order received; values are latin1 text. */
export interface RequestHead {
  readonly method: string;
  readonly target: string;
  readonly minor: 0 | 1;
  readonly names: readonly FieldName[];
  readonly values: readonly string[];
}

/** Head of a response. */
export interface ResponseHead {
  readonly status: number;
  readonly reason: string;
  readonly minor: 0 | 1;
  readonly names: readonly FieldName[];
  readonly values: readonly string[];
}

/** Trailer fields that kept the grammar; which of them go on is the user's decision. */
export interface Trailers {
  readonly names: readonly FieldName[];
  readonly values: readonly string[];
}

/** How a body is delimited on the wire, from framing.ts. */
export type BodyKind = 'none' | 'length' | 'chunked' | 'close';

/** What was refused and with which status; `reason` is for people and logs, it goes into our reply's body. */
export interface Refusal {
  readonly refused: true;
  readonly status: number;
  readonly reason: string;
}

/**
 * - unsent: no byte was handed to the kernel, or the connection never opened;
 * - no-response: bytes went out, no byte of a response came;
 * - started: at least one byte of the response head came.
 */
export type FailureClass = 'unsent' | 'no-response' | 'started';

/** Why an exchange with an upstream ended without a whole response. */
export interface UpstreamFailure {
  readonly class: FailureClass;
  /** A malformed reply is `protocol` with class started. connect: refused, unreachable, timed out while opening · reset: closed or cut · protocol: the reply broke the grammar or a cap · overflow: the pool's queue is full · cancelled: by us. */
  readonly cause: 'connect' | 'reset' | 'protocol' | 'overflow' | 'cancelled';
  /** Words for logs; never contains bytes of a body. */
  readonly message: string;
  /** True when the socket had served an exchange before (the keep-alive race). */
  readonly reused: boolean;
}

/**
 * What a downstream connection calls; one object per connection, made by `DownstreamOptions.open`.
 * Order per request: request, body*, requestEnd, then the next request only after the reply is complete.
 * `aborted` ends an exchange at any point between `request` and the end of the reply; nothing follows it.
 */
export interface DownstreamUser {
  /** A whole, accepted head. `kind` none: requestEnd follows at once, in the same turn. `length` is -1 unless kind is length. */
  request(head: RequestHead, kind: BodyKind, length: number): void;
  /** A piece of body; the view is valid until this returns (copy to keep). Reading goes on unless `pause()` was called. */
  body(view: Buffer): void;
  /** The request has arrived whole. */
  requestEnd(trailers: Trailers | null): void;
  /**
   * The client went away (a half-close counts as that), broke the framing in mid-body (the codec answers and closes by itself) or hit a
   * deadline of the codec. Not called after `destroy()`. A reply whose body does not match its announced length ends in `aborted` too.
   */
  aborted(cause: 'client' | 'refused' | 'timeout'): void;
  /** What was written has left for the kernel: write more. Follows a `reply*` or `upgraded*` call that returned false. */
  drained(): void;
  /** Raw bytes after `upgrade()`; view valid until this returns. */
  upgradeData(view: Buffer): void;
  /** The peer half-closed after `upgrade()`. */
  upgradeEnd(): void;
  /** The socket is gone; the object is not called again. Follows `aborted` where an exchange was open. */
  closed(): void;
}

/** What the user may do to a downstream connection. */
export interface DownstreamConnection {
  readonly remoteAddress: string;
  readonly remotePort: number;
  readonly localPort: number;
  /** True once this reply will be the last one of the connection. */
  closing: boolean;
  /**
   * Whole reply in one write: `head` is the text made by writer.ts, without the framing field and the empty line; the codec adds
   * `content-length` (or nothing where there is no body), `connection: close` when closing, and the empty line.
   * `body` is latin1 text or a view that is copied. For a HEAD request, 204 and 304 no body bytes are sent; `contentLength`, where given,
   * is then what the field says.
   */
  reply(head: string, body: string | Buffer | null, contentLength?: number): void;
  /**
   * Head of a streamed reply. length >= 0: content-length; -1: chunked to a 1.1 client, until close to a 1.0 client.
   * Returns false when the socket wants `drained` before more is written.
   */
  replyHead(head: string, length: number): boolean;
  /** A piece of the reply's body. `done` is called when the kernel has it and the view may change (rule 5). False: wait for `drained`. */
  replyBody(view: Buffer, done: () => void): boolean;
  /** The end of the reply's body; trailers only on chunked replies. */
  replyEnd(trailers?: Trailers): void;
  /** An informational response (103) as it stands, with or without its empty line; not to 1.0 clients (then nothing is sent). */
  informational(head: string): void;
  /** Answers `Expect: 100-continue` when the client waits for it and nothing was answered yet; otherwise does nothing. */
  continue100(): void;
  /** Lifts the request deadline and the minimum rate for this exchange (streaming routes). Call it inside `request`. */
  liftRequestTimeout(): void;
  /**
   * Stops reading the socket (also no further request is parsed). Inside `request` or `body` it also keeps back the body that has been
   * read behind them. `resume` never calls back before it returns. A pause ends with the exchange.
   */
  pause(): void;
  resume(): void;
  /** After a 101 was written as `head` (whole, with its empty line): bytes pass raw both ways from now on. */
  upgrade(head: string): void;
  upgradedWrite(view: Buffer, done: () => void): boolean;
  upgradedEnd(): void;
  /** Cuts the socket: the client sees an abort, never a clean end. */
  destroy(): void;
}

/** What an upstream connection or the pool calls for one exchange. Nothing is called after `responseEnd` or `failed`. */
export interface UpstreamUser {
  /** The pool's answer, perhaps inside `acquire`: send now, in this call. `connection` belongs to this exchange until responseEnd, failed or upgraded close. */
  connected(connection: UpstreamConnection): void;
  /** An informational response other than 100 and 101; counted against the caps by the codec. */
  informational(head: ResponseHead): void;
  /** Head and whole body arrived in one read: the only callback of such a response (responseEnd does not follow). View valid until return. `reusable` as in responseEnd. */
  responseWhole(head: ResponseHead, body: Buffer | null): void;
  /** Head of a streamed response. `length` is -1 unless kind is length. */
  response(head: ResponseHead, kind: BodyKind, length: number): void;
  /** A piece of body; the view is valid until `release()` when `hold` was called during this callback, else until this returns. */
  responseBody(view: Buffer): void;
  responseEnd(trailers: Trailers | null): void;
  /** The request body that was written has left for the kernel; follows a `write` that returned false. */
  drained(): void;
  /** A 101 arrived and `allowUpgrade` was set: the connection is a raw pipe from now on. `head` is the 101. */
  upgraded(head: ResponseHead): void;
  upgradeData(view: Buffer): void;
  upgradeEnd(): void;
  failed(failure: UpstreamFailure): void;
}

/** What the user may do to the upstream connection of its exchange. */
export interface UpstreamConnection {
  readonly reused: boolean;
  /**
   * Sends a request: `head` whole with framing fields and the empty line. `body` whole or null. `more`: body pieces follow by `write`.
   * `method` decides whether the response has a body; `allowUpgrade` lets a 101 through.
   */
  send(head: string, body: Buffer | null, more: boolean, method: string, allowUpgrade: boolean): void;
  /** A piece of the request body (already framed by the user when chunked: see chunked.ts encoder). `done` as in replyBody. */
  write(view: Buffer, done: () => void): boolean;
  /** Ends a streamed request body; `tail` is the last chunk with trailers, or empty. */
  endBody(tail: string): void;
  /** Inside responseBody/upgradeData: stop reading and keep the view valid until `release`. */
  hold(): void;
  release(): void;
  upgradedWrite(view: Buffer, done: () => void): boolean;
  upgradedEnd(): void;
  /** Gives the exchange up: the socket is destroyed, `failed` is not called. */
  abandon(): void;
}
