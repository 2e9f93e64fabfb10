// Owns the audit log: one line for every write to a registry and every operator's act.
import type { Log } from '../kernel/log.ts';

/** `what`: put, remove, renew-failed, isolate, release, …; `result`: ok or the words of the failure. */
export interface AuditLine {
  readonly what: string;
  readonly registry?: string;
  readonly service?: string;
  readonly instance?: string;
  readonly migration?: string;
  readonly result: string;
}

/** Writes audit lines to a log of their own (`audit: true`); the log adds the time. */
export class Audit {
  readonly #log: Log;
  readonly #flush: () => void;
  #flushing = false;

  /** `flush` writes out what the log holds back: a line about a write must outlive a kill. */
  constructor(log: Log, flush: () => void = () => {}) {
    this.#log = log;
    this.#flush = flush;
  }

  write(line: AuditLine): void {
    this.#log.info({ audit: true, ...line }, 'audit');
    if (this.#flushing) return;
    // Once a turn: a pass of a mirror writes thousands of lines.
    this.#flushing = true;
    setImmediate(() => {
      this.#flushing = false;
      this.#flush();
    });
  }
}
