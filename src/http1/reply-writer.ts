// Owns the framing of one reply after another on a downstream socket: content-length, chunked or until close, and that a body
// is as long as was said. Called by downstream only. It knows no state of the request; who may write when is downstream's.
import type { Socket } from 'node:net';
import { CHUNK_END, chunkStart, lastChunk } from './chunked.ts';
import type { Trailers } from './exchange.ts';
import type { WriteWatch } from './write-watch.ts';
import { CHUNKED_FIELD, CLOSE_FIELD, contentLength, END_OF_HEAD, KEEP_ALIVE_FIELD, statusOf } from './writer.ts';

/** Up to this size a whole body is joined to its head as text: one string, one write. A larger one is copied to a Buffer. */
const JOIN_LIMIT = 65_536;
/** Up to this size a chunk goes out as one string. */
const SMALL_CHUNK = 4_096;

type Mode = 'length' | 'chunked' | 'close' | 'no-body';

/** Writes replies to one socket; lives as long as the socket. */
export class ReplyWriter {
  readonly #socket: Socket;
  readonly #watch: WriteWatch;
  #isHead = false;
  #minor: 0 | 1 = 1;
  #mode: Mode = 'no-body';
  /** Bytes of body still to come in mode `length`. */
  #left = 0;
  #corked = false;

  constructor(socket: Socket, watch: WriteWatch) {
    this.#socket = socket;
    this.#watch = watch;
  }

  /** A request came: its method and version decide how the reply is framed. */
  begin(method: string, minor: 0 | 1): void {
    this.#isHead = method === 'HEAD';
    this.#minor = minor;
  }

  /** A whole reply in one write; see DownstreamConnection.reply. */
  whole(head: string, body: string | Buffer | null, declared: number | undefined, close: boolean): void {
    const status = statusOf(head);
    const bodyless = this.#isHead || status === 204 || status === 304;
    let text = head;
    if (status !== 204) {
      const length = bodyless ? (declared ?? (body === null ? -1 : body.length)) : body === null ? 0 : body.length;
      if (length >= 0) text += contentLength(length);
    }
    text += this.#lastFields(close);
    if (bodyless || body === null) this.#text(text);
    else if (typeof body === 'string') this.#text(text + body);
    else if (body.length <= JOIN_LIMIT) this.#text(text + body.toString('latin1'));
    else {
      this.#socket.cork();
      this.#socket.write(text, 'latin1');
      this.#socket.write(Buffer.from(body));
      this.#socket.uncork();
      this.#watch.wrote(text.length + body.length);
    }
  }

  /** Whether a reply of this length to this client can only be ended by closing. */
  endsByClose(length: number): boolean {
    return length < 0 && this.#minor === 0 && !this.#isHead;
  }

  /** The head of a streamed reply. It leaves at the end of this turn, together with the body that is written by then. */
  start(head: string, length: number, close: boolean): boolean {
    const status = statusOf(head);
    let text = head;
    if (this.#isHead || status === 204 || status === 304) {
      this.#mode = 'no-body';
      if (length >= 0 && status !== 204) text += contentLength(length);
    } else if (length >= 0) {
      this.#mode = 'length';
      this.#left = length;
      text += contentLength(length);
    } else {
      this.#mode = this.#minor === 1 ? 'chunked' : 'close';
      if (this.#mode === 'chunked') text += CHUNKED_FIELD;
    }
    if (!this.#corked) {
      this.#corked = true;
      this.#socket.cork();
      queueMicrotask(this.#uncork);
    }
    return this.#text(text + this.#lastFields(close));
  }

  /** A piece of body. Null: more than was announced, nothing was written and the connection has to be cut. */
  piece(view: Buffer, done: () => void): boolean | null {
    if (this.#mode === 'no-body' || view.length === 0) {
      queueMicrotask(done);
      return true;
    }
    if (this.#mode === 'chunked') return this.#chunk(view, done);
    if (this.#mode === 'length') {
      if (view.length > this.#left) return null;
      this.#left -= view.length;
    }
    return this.raw(view, done);
  }

  /** Ends a streamed reply. False: the body was shorter than announced, the connection has to be cut. */
  end(trailers: Trailers | undefined): boolean {
    if (this.#mode === 'chunked') this.#text(lastChunk(trailers));
    return this.#mode !== 'length' || this.#left === 0;
  }

  /** Bytes as they are (tunnels, and bodies that need no chunk framing). */
  raw(view: Buffer, done: () => void): boolean {
    const more = this.#socket.write(view, done);
    this.#watch.wrote(view.length);
    return more;
  }

  /** Text as it is (interim responses). */
  interim(text: string): void {
    this.#text(text);
  }

  #chunk(view: Buffer, done: () => void): boolean {
    const start = chunkStart(view.length);
    let more: boolean;
    if (view.length <= SMALL_CHUNK) {
      more = this.#socket.write(start + view.toString('latin1') + CHUNK_END, 'latin1', done);
    } else {
      this.#socket.cork();
      this.#socket.write(start, 'latin1');
      this.#socket.write(view, done);
      more = this.#socket.write(CHUNK_END, 'latin1');
      this.#socket.uncork();
    }
    this.#watch.wrote(view.length + start.length + 2);
    return more;
  }

  #lastFields(close: boolean): string {
    if (close) return CLOSE_FIELD + END_OF_HEAD;
    return this.#minor === 0 ? KEEP_ALIVE_FIELD + END_OF_HEAD : END_OF_HEAD;
  }

  #text(text: string): boolean {
    const more = this.#socket.write(text, 'latin1');
    this.#watch.wrote(text.length);
    return more;
  }

  readonly #uncork = (): void => {
    this.#corked = false;
    this.#socket.uncork();
    this.#watch.wrote(0);
  };
}
