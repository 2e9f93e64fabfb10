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

  constructor(log: Log) {
    this.#log = log;
  }

  write(line: AuditLine): void {
    this.#log.info({ audit: true, ...line }, 'audit');
  }
}
