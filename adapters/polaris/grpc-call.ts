// Owns one gRPC call over an HTTP/2 session: its headers, messages both ways, and the one end that it comes to.
// Called by client.ts; must never retry, keep time or choose a session.
import type { ClientHttp2Session, ClientHttp2Stream, IncomingHttpHeaders, OutgoingHttpHeaders } from 'node:http2';
import { constants } from 'node:http2';
import { INTERNAL, PolarisFailure, RESOURCE_EXHAUSTED, UNAVAILABLE } from './errors.ts';
import { FrameFault, FrameReader, framed } from './grpc-frame.ts';

/** As polaris-go; the usual 4 MiB break at about 21,000 instances (protocol notes, section 2). */
export const MAX_ANSWER_BYTES = 50 * 1024 * 1024;

const GRPC_OK = 0;
const UNKNOWN = 2;

export interface CallEvents {
  /** A view of a larger buffer: copy what you keep. */
  onMessage(message: Buffer): void;
  /** Called once unless `cancel` or `retire` came first. Null: the server ended it with status OK. */
  onEnd(failure: PolarisFailure | null): void;
}

/** How a call is opened. */
export interface CallHead {
  readonly server: string;
  readonly headers: OutgoingHttpHeaders;
  /** What is known of the session's end, to be told with the call's: the stream itself often says only "cancelled". */
  reason(): string | null;
}

/** One call. Throws from the constructor for headers that HTTP/2 cannot carry. */
export class GrpcCall {
  readonly #head: CallHead;
  readonly #events: CallEvents;
  readonly #stream: ClientHttp2Stream;
  readonly #reader = new FrameReader(MAX_ANSWER_BYTES);
  #waiting: Uint8Array[] = [];
  #over = false;
  #status: PolarisFailure | null = null;
  #answered = false;
  #error: Error | null = null;

  constructor(session: ClientHttp2Session, head: CallHead, events: CallEvents) {
    this.#head = head;
    this.#events = events;
    const stream = session.request(head.headers, { endStream: false });
    this.#stream = stream;
    stream.on('response', (headers) => this.#onHeaders(headers, true));
    stream.on('trailers', (headers) => this.#onHeaders(headers, false));
    stream.on('data', (chunk: Buffer) => this.#onData(chunk));
    stream.on('error', (error: Error) => {
      this.#error ??= error;
    });
    stream.on('end', () => {
      if (this.#status !== null || this.#answered) this.#finish();
      // The server is done without a status: nothing more can come.
      else stream.close(constants.NGHTTP2_CANCEL);
    });
    stream.on('close', () => this.#finish());
  }

  /** Messages of one turn go out as one piece. */
  write(message: Uint8Array): void {
    if (this.#over) return;
    this.#waiting.push(message);
    if (this.#waiting.length === 1) queueMicrotask(() => this.#flush());
  }

  /** Half-close: no more messages from us. */
  end(): void {
    this.#flush();
    if (!this.#over) this.#stream.end();
  }

  /** Half-close, and the server's side is of no interest any more. */
  retire(): void {
    this.end();
    this.#over = true;
  }

  cancel(): void {
    this.#over = true;
    this.#waiting = [];
    this.#stream.close(constants.NGHTTP2_CANCEL);
  }

  #flush(): void {
    const messages = this.#waiting;
    this.#waiting = [];
    if (messages.length > 0 && !this.#over && !this.#stream.destroyed) this.#stream.write(framed(messages));
  }

  #onHeaders(headers: IncomingHttpHeaders, first: boolean): void {
    const http = Number(headers[':status'] ?? 200);
    const status = headers['grpc-status'];
    if (typeof status === 'string') {
      const code = Number(status);
      if (code === GRPC_OK) this.#answered = true;
      else this.#status = this.#failure(Number.isInteger(code) ? code : UNKNOWN, messageOf(headers['grpc-message']));
    } else if (http !== 200) {
      this.#status = this.#failure(UNAVAILABLE, `Received HTTP status code ${http}`);
    } else if (first && !String(headers['content-type'] ?? '').startsWith('application/grpc')) {
      this.#status = this.#failure(UNAVAILABLE, 'invalid content-type');
    }
    // An answer of another protocol: its body is not read.
    if (this.#status !== null && typeof status !== 'string') this.#stream.close(constants.NGHTTP2_CANCEL);
  }

  #onData(chunk: Buffer): void {
    if (this.#over || this.#status !== null) return;
    try {
      this.#reader.push(chunk, (message) => {
        if (!this.#over) this.#events.onMessage(message);
      });
    } catch (thrown) {
      // What a listener throws is a bug of ours and none of the server's.
      if (!(thrown instanceof FrameFault)) throw thrown;
      this.#status = this.#failure(thrown.kind === 'tooLarge' ? RESOURCE_EXHAUSTED : INTERNAL, thrown.message);
      this.#stream.close(constants.NGHTTP2_CANCEL);
    }
  }

  #finish(): void {
    if (this.#over) return;
    this.#over = true;
    this.#waiting = [];
    if (this.#status === null && !this.#answered) this.#status = this.#failure(UNAVAILABLE, this.#broken());
    if (!this.#stream.closed) this.#stream.close(constants.NGHTTP2_CANCEL);
    this.#events.onEnd(this.#status);
  }

  /** Why there is no status: what the stream was told, what the session was told, the bare code. */
  #broken(): string {
    const { rstCode } = this.#stream;
    const error = this.#error;
    // Only the code again, in the words of Node.
    const reset = error !== null && 'code' in error && error.code === 'ERR_HTTP2_STREAM_ERROR';
    if (error !== null && !reset) return error.message;
    const reason = this.#head.reason();
    if (reason !== null) return reason;
    return reset ? `Received RST_STREAM with code ${rstCode}` : 'the connection closed before the call ended';
  }

  #failure(status: number, details: string): PolarisFailure {
    return new PolarisFailure(status, details, this.#head.server);
  }
}

/** grpc-message is percent-encoded. */
function messageOf(header: string | string[] | undefined): string {
  const text = String(header ?? '');
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
