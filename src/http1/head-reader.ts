// Owns the gathering of a head (or trailer section) from pieces of any size, within its cap. Called by downstream, upstream
// and chunked. It must never hold more than the cap, and its outcome must not depend on how the bytes were split.
import { bareLineFeed, type HeadLimits } from './head.ts';

/** Up to this size a piece is turned into text whole; above it the end of the head is looked for first. */
const SMALL_PIECE = 2_048;
const END = '\r\n\r\n';

/**
 * Gathers one head. After `read` returned a position >= 0, `text` holds the head and `end` the offset of its CRLF CRLF, or
 * `fault` says what stopped it: the text so far then has to be parsed up to `end` for the fault that comes first.
 */
export class HeadReader {
  text = '';
  end = -1;
  /** `broken`: a bare LF before `end`, or a second empty line. `too-long`: the cap is reached and no end is in sight. */
  fault: 'none' | 'broken' | 'too-long' = 'none';
  /** Whether one empty line before the head may be skipped (requests only). */
  readonly #mayLead: boolean;
  readonly #limits: HeadLimits;
  #partial = false;
  #led = false;

  constructor(limits: HeadLimits, mayLead: boolean) {
    this.#limits = limits;
    this.#mayLead = mayLead;
  }

  /** True while part of a head is held; a lone empty line before it is none. */
  get partial(): boolean {
    return this.#partial && this.text !== '';
  }

  /** Forgets the head; the next `read` starts a new one. Called by `read` itself when it starts after an outcome. */
  reset(): void {
    this.text = '';
    this.end = -1;
    this.fault = 'none';
    this.#partial = false;
    this.#led = false;
  }

  /** Takes bytes of buffer[from, to). Returns the position after the head, or -1 when more bytes are needed. */
  read(buffer: Buffer, from: number, to: number): number {
    if (!this.#partial) {
      // The plain case: one piece holds the whole head.
      this.end = -1;
      this.fault = 'none';
      const text = firstText(buffer, from, to, this.#limits.bytes);
      const end = text.indexOf(END);
      if (end > 0 && end + 4 <= this.#limits.bytes && !(this.#mayLead && text.startsWith('\r\n'))) {
        this.text = text;
        this.end = end;
        return from + end + 4;
      }
      this.text = '';
    }
    return this.#gather(buffer, from, to);
  }

  #gather(buffer: Buffer, from: number, to: number): number {
    const { bytes } = this.#limits;
    this.#partial = true;
    let at = from;
    for (;;) {
      const before = this.text.length;
      const taken = Math.min(to - at, bytes - before);
      const text =
        before === 0 ? buffer.toString('latin1', at, at + taken) : this.text + buffer.toString('latin1', at, at + taken);
      this.text = text;
      if (this.#mayLead && !this.#led && text.startsWith('\r\n')) {
        this.#led = true;
        this.text = '';
        at += 2 - before;
        continue;
      }
      return this.#outcome(at, taken, before);
    }
  }

  #outcome(at: number, taken: number, before: number): number {
    const { text } = this;
    const end = text.indexOf(END, Math.max(0, before - 3));
    const lineFeed = end === -1 ? bareLineFeed(text, before) : -1;
    if (lineFeed !== -1 || (this.#led && text.startsWith('\r\n'))) {
      this.end = lineFeed + 1;
      this.fault = 'broken';
      this.#partial = false;
      return at + taken;
    }
    if (end !== -1) {
      this.end = end;
      this.#partial = false;
      this.#led = false;
      return at + end + 4 - before;
    }
    if (text.length < this.#limits.bytes) return -1;
    this.fault = 'too-long';
    this.end = Math.max(text.lastIndexOf('\r\n'), 0);
    this.#partial = false;
    return at + taken;
  }
}

/** Text of the piece as far as the head may reach. The buffer is longer than the piece: nothing behind `to` may be looked at. */
function firstText(buffer: Buffer, from: number, to: number, cap: number): string {
  if (to - from <= SMALL_PIECE) return buffer.toString('latin1', from, to);
  const piece = buffer.subarray(from, Math.min(to, from + cap));
  const end = piece.indexOf(END, 0, 'latin1');
  return piece.toString('latin1', 0, end === -1 ? piece.length : end + 4);
}
