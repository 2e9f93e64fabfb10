// A socket without a kernel: the test feeds it bytes and reads what was written. Synchronous but for write callbacks, so that
// thousands of splits of one input run in a second. It behaves as net.Socket does where the codec looks.
import { EventEmitter } from 'node:events';
import type { OnReadOpts, Socket } from 'node:net';

export class FakeSocket extends EventEmitter {
  remoteAddress = '127.0.0.1';
  remotePort = 40_000;
  localPort = 80;
  allowHalfOpen = false;
  destroyed = false;
  writableNeedDrain = false;
  writableLength = 0;
  writableCorked = 0;
  readableEnded = false;
  writableEnded = false;
  writableFinished = false;
  /** While true written bytes stay in the writable buffer. */
  stuck = false;
  readonly out: Buffer[] = [];
  #onread: OnReadOpts | null;
  #paused = false;
  #queue: Buffer[] = [];
  #fin = false;
  #callbacks: (() => void)[] = [];

  constructor(onread: OnReadOpts | null = null) {
    super();
    this.#onread = onread;
  }

  /** Itself, as what the codec takes. */
  get socket(): Socket {
    return this as unknown as Socket;
  }

  get paused(): boolean {
    return this.#paused;
  }

  get unread(): number {
    return this.#queue.reduce((sum, piece) => sum + piece.length, 0);
  }

  /** Everything written so far, latin1. */
  get text(): string {
    return Buffer.concat(this.out).toString('latin1');
  }

  feed(bytes: Buffer | string): void {
    if (bytes.length === 0) return;
    this.#queue.push(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : Buffer.from(bytes));
    this.#flow();
  }

  /** The peer half-closes. */
  fin(): void {
    this.#fin = true;
    this.#flow();
  }

  /** The peer resets. */
  reset(message = 'read ECONNRESET'): void {
    if (this.destroyed) return;
    this.destroy(new Error(message));
  }

  connect(): void {
    this.emit('connect');
  }

  #flow(): void {
    while (!this.#paused && !this.destroyed && this.#queue.length > 0) {
      const piece = this.#queue.shift() as Buffer;
      if (this.#onread === null) this.emit('data', piece);
      else this.#readInto(this.#onread, piece);
    }
    if (this.#fin && !this.#paused && !this.destroyed && this.#queue.length === 0 && !this.readableEnded) {
      this.readableEnded = true;
      this.emit('end');
      if (this.writableEnded) this.destroy();
    }
  }

  #readInto(onread: OnReadOpts, piece: Buffer): void {
    const target = onread.buffer as Buffer;
    const length = Math.min(piece.length, target.length);
    // What a real buffer still holds of earlier reads must never be looked at: here it would end a head.
    target.fill('\r\n\r\n');
    piece.copy(target, 0, 0, length);
    if (length < piece.length) this.#queue.unshift(piece.subarray(length));
    if (!onread.callback(length, target)) this.#paused = true;
  }

  write(data: Buffer | string, ...rest: (string | (() => void) | undefined)[]): boolean {
    const done = rest.find((value) => typeof value === 'function') as (() => void) | undefined;
    if (this.destroyed || this.writableEnded) {
      if (done !== undefined) queueMicrotask(done);
      return false;
    }
    const bytes = typeof data === 'string' ? Buffer.from(data, 'latin1') : Buffer.from(data);
    this.out.push(bytes);
    if (this.stuck) {
      this.writableLength += bytes.length;
      this.writableNeedDrain = this.writableLength >= 65_536;
      if (done !== undefined) this.#callbacks.push(done);
    } else if (done !== undefined) queueMicrotask(done);
    return !this.writableNeedDrain;
  }

  /** The kernel takes what was stuck. */
  unstick(): void {
    this.stuck = false;
    const drained = this.writableNeedDrain;
    this.writableLength = 0;
    this.writableNeedDrain = false;
    for (const done of this.#callbacks.splice(0)) done();
    if (drained) this.emit('drain');
  }

  cork(): void {
    this.writableCorked++;
  }

  uncork(): void {
    this.writableCorked--;
  }

  end(): void {
    this.writableEnded = true;
    this.writableFinished = true;
    if (this.readableEnded) this.destroy();
  }

  pause(): this {
    this.#paused = true;
    return this;
  }

  resume(): this {
    this.#paused = false;
    queueMicrotask(() => this.#flow());
    return this;
  }

  setNoDelay(): this {
    return this;
  }

  destroy(error?: Error): this {
    if (this.destroyed) return this;
    this.destroyed = true;
    queueMicrotask(() => {
      if (error !== undefined) this.emit('error', error);
      this.emit('close');
    });
    return this;
  }
}
