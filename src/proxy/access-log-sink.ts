// Owns the file descriptor of the access log. Called by data-plane.ts; AccessLog hands it one batch at a time.
// It must never block the loop or a thread for long: FIFOs and pipes are opened non-blocking and tried again.
import { close, constants, openSync, write } from 'node:fs';
import type { Clock, Timer } from '../kernel/clock.ts';
import type { AccessLogSink } from './access-log.ts';
import type { AccessLogUpdate } from './proxy-update.ts';

const AGAIN_MS = 50;
/** How long a batch may wait for a reader that does not read before it is given up. */
const PATIENCE_MS = 5_000;
const FLAGS = constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NONBLOCK;

/** Opens the sink of an update. Throws the system's error when the file cannot be opened. */
export function openAccessLogSink(to: AccessLogUpdate['to'], clock: Clock): AccessLogSink {
  return new FileSink(to.kind === 'stdout' ? null : to.path, clock);
}

/** Appends to a file, a FIFO, or standard output (null). */
class FileSink implements AccessLogSink {
  readonly #path: string | null;
  readonly #clock: Clock;
  #fd: number;
  #busy = false;
  #closing = false;
  #reopen = false;
  #timer: Timer | null = null;

  constructor(path: string | null, clock: Clock) {
    this.#path = path;
    this.#clock = clock;
    this.#fd = openFor(path);
  }

  write(batch: string, done: (written: boolean) => void): void {
    if (this.#reopen) this.#openAgain();
    this.#busy = true;
    this.#push(Buffer.from(batch, 'utf8'), this.#clock.now() + PATIENCE_MS, (written) => {
      this.#busy = false;
      if (this.#closing) this.#release();
      done(written);
    });
  }

  reopen(): void {
    this.#reopen = true;
    if (!this.#busy) this.#openAgain();
  }

  close(): void {
    this.#closing = true;
    if (!this.#busy) this.#release();
  }

  #push(bytes: Buffer, until: number, done: (written: boolean) => void): void {
    write(this.#fd, bytes, (error, count) => {
      const rest = error === null ? bytes.subarray(count) : bytes;
      if (rest.length === 0) done(true);
      else if (error !== null && error.code !== 'EAGAIN') done(false);
      else if (this.#clock.now() >= until) done(false);
      else if (error === null) this.#push(rest, until, done);
      else this.#timer = this.#clock.setTimer(AGAIN_MS, () => this.#push(rest, until, done));
    });
  }

  #openAgain(): void {
    this.#reopen = false;
    if (this.#path === null) return;
    try {
      const fresh = openFor(this.#path);
      this.#release();
      this.#fd = fresh;
    } catch {
      // The old descriptor still works; the next rotation tries again.
    }
  }

  #release(): void {
    this.#timer?.cancel();
    // Standard output itself is not ours to close.
    if (this.#fd > 2) close(this.#fd, () => {});
  }
}

/** Standard output is opened anew where it can be (pipe, file, terminal): non-blocking for us without touching the one others share. */
function openFor(path: string | null): number {
  if (path !== null) return openSync(path, FLAGS, 0o640);
  try {
    return openSync('/dev/stdout', constants.O_WRONLY | constants.O_APPEND | constants.O_NONBLOCK);
  } catch {
    return 1;
  }
}
