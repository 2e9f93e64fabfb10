// Owns the body of the open request on its way up: what is kept for a repetition (64 KiB), and its framing for the upstream.
// Called by exchange.ts (what comes) and attempt.ts (what goes). What it is given to keep must be copies.
import { CHUNK_END, chunkStart, lastChunk } from '../http1/chunked.ts';
import type { BodyKind, Trailers } from '../http1/exchange.ts';

/** Bytes kept for a repetition; also how much is read ahead of an upstream (proxy-semantics §3, §5.2). */
export const KEPT_BYTES = 65_536;

/** The request body of one exchange, filled anew for each request. */
export class RequestBody {
  kind: BodyKind = 'none';
  length = -1;
  /** Bytes that came. */
  total = 0;
  /** The request has arrived whole. */
  whole = true;
  /** Every byte that came is still here. */
  replayable = true;
  #kept: Buffer[] = [];
  #keptBytes = 0;
  #trailers: Trailers | null = null;

  begin(kind: BodyKind, length: number): void {
    this.kind = kind;
    this.length = length;
    this.total = 0;
    this.whole = kind === 'none' || length === 0;
    this.replayable = true;
    this.drop();
    this.#trailers = null;
  }

  get exists(): boolean {
    return this.kind !== 'none' && this.length !== 0;
  }

  /** Bytes held now. */
  get held(): number {
    return this.#keptBytes;
  }

  /** Takes a piece; `sending` says that an attempt takes it over at once. */
  add(piece: Buffer, sending: boolean): void {
    this.total += piece.length;
    if (sending && this.total > KEPT_BYTES) this.#forget();
    if (!this.replayable) return;
    this.#kept.push(piece);
    this.#keptBytes += piece.length;
  }

  end(trailers: Trailers | null): void {
    this.whole = true;
    this.#trailers = trailers;
  }

  /** The framing field for the upstream, with its CRLF; empty where there is no body. */
  get framing(): string {
    if (this.kind === 'none') return '';
    return this.kind === 'length' ? `content-length: ${this.length}\r\n` : 'transfer-encoding: chunked\r\n';
  }

  /** What was kept, framed, to go out right behind the head; with the end of the body when it is whole. Null when that is nothing. */
  takeFirst(): Buffer | null {
    const framed: Buffer[] = this.kind === 'chunked' ? this.#kept.map(framedChunk) : this.#kept;
    const parts = this.whole && this.kind === 'chunked' ? [...framed, Buffer.from(this.tail, 'latin1')] : framed;
    if (this.total > KEPT_BYTES) this.#forget();
    if (parts.length <= 1) return parts[0] ?? null;
    return Buffer.concat(parts);
  }

  /** A later piece, framed for the wire. */
  framed(piece: Buffer): Buffer {
    return this.kind === 'chunked' ? framedChunk(piece) : piece;
  }

  /** What ends the body on the wire. */
  get tail(): string {
    return this.kind === 'chunked' ? lastChunk(this.#trailers) : '';
  }

  /** Lets go of what is kept. */
  drop(): void {
    if (this.#kept.length > 0) this.#kept = [];
    this.#keptBytes = 0;
  }

  #forget(): void {
    this.replayable = false;
    this.drop();
  }
}

/** One chunk: size line, bytes, CRLF, in one new buffer. */
function framedChunk(piece: Buffer): Buffer {
  const start = chunkStart(piece.length);
  const out = Buffer.allocUnsafe(start.length + piece.length + CHUNK_END.length);
  out.write(start, 0, 'latin1');
  piece.copy(out, start.length);
  out.write(CHUNK_END, start.length + piece.length, 'latin1');
  return out;
}
