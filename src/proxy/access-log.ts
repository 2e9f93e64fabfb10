// Owns the access log: one JSON line per answered request, handed to a sink in batches. Called by exchange.ts and tunnel.ts.
// It must never wait: when the sink is slow, lines are dropped and counted (reliability C12). Query strings are never written.
import type { Clock } from '../kernel/clock.ts';
import type { Counter } from '../telemetry/metrics.ts';

/** What one line tells (contract.md `accessLog`). `path` may hold a query: it is cut here. */
export interface AccessRecord {
  readonly service: string;
  readonly method: string;
  readonly path: string;
  /** 0: nothing was answered (the client went away). */
  readonly status: number;
  /** `host:port` of the last attempt, empty without one. */
  readonly upstream: string;
  readonly attempts: number;
  /** Code of `x-weir-error`, or `CLIENT_GONE`, `TRUNCATED`; empty when all went well. */
  readonly error: string;
  readonly ms: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
  readonly requestId: string;
}

/** Where batches go; see access-log-sink.ts. */
export interface AccessLogSink {
  /** Takes a batch; `done` is called once, later, whatever became of it (false: it was lost). */
  write(batch: string, done: (written: boolean) => void): void;
  /** Opens the file anew (log rotation). */
  reopen(): void;
  close(): void;
}

/** Characters (about bytes) held while the sink is busy; beyond it lines are dropped. */
export const MAX_BUFFERED = 1_048_576;
/** A batch goes out once it is this long, or in the next turn of the loop. */
const BATCH = 65_536;

/** Writes lines to one sink at a time. */
export class AccessLog {
  readonly #clock: Clock;
  readonly #dropped: Counter;
  #sink: AccessLogSink | null;
  #buffer = '';
  #lines = 0;
  #inFlight = 0;
  #scheduled = false;
  #idle: (() => void)[] = [];

  constructor(sink: AccessLogSink | null, clock: Clock, dropped: Counter) {
    this.#sink = sink;
    this.#clock = clock;
    this.#dropped = dropped;
  }

  /** False: nothing is written, so a caller need not build a record. */
  get enabled(): boolean {
    return this.#sink !== null;
  }

  /** Puts another sink in place (null: off); the old one gets what is buffered and is closed. */
  use(sink: AccessLogSink | null): void {
    const old = this.#sink;
    if (old !== null && this.#inFlight === 0) this.#flush();
    this.#sink = sink;
    old?.close();
  }

  reopen(): void {
    this.#sink?.reopen();
  }

  write(record: AccessRecord): void {
    if (this.#sink === null) return;
    if (this.#buffer.length >= MAX_BUFFERED) {
      this.#dropped.inc();
      return;
    }
    this.#buffer += accessLine(record, this.#clock.wallNow());
    this.#lines++;
    if (this.#inFlight > 0) return;
    if (this.#buffer.length >= BATCH) this.#flush();
    else if (!this.#scheduled) {
      this.#scheduled = true;
      setImmediate(this.#onTurn);
    }
  }

  /** Resolves when all that was written before is with the sink. */
  flushed(): Promise<void> {
    if (this.#inFlight === 0) this.#flush();
    if (this.#inFlight === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  readonly #onTurn = (): void => {
    this.#scheduled = false;
    if (this.#inFlight === 0) this.#flush();
  };

  #flush(): void {
    if (this.#buffer === '' || this.#sink === null) return;
    const batch = this.#buffer;
    this.#inFlight = this.#lines;
    this.#buffer = '';
    this.#lines = 0;
    this.#sink.write(batch, this.#onDone);
  }

  readonly #onDone = (written: boolean): void => {
    if (!written) this.#dropped.inc(this.#inFlight);
    this.#inFlight = 0;
    this.#flush();
    if (this.#inFlight > 0) return;
    const waiting = this.#idle;
    this.#idle = [];
    for (const resolve of waiting) resolve();
  };
}

/** One line with its LF. Everything that came from outside goes in as a JSON string, so no line can be forged. */
export function accessLine(record: AccessRecord, wallMs: number): string {
  const query = record.path.indexOf('?');
  const path = query < 0 ? record.path : record.path.slice(0, query);
  return (
    `{"time":"${new Date(wallMs).toISOString()}","service":${quoted(record.service)},"method":${quoted(record.method)},` +
    `"path":${quoted(path)},"status":${record.status},"upstream":${quoted(record.upstream)},"attempts":${record.attempts},` +
    `"error":${quoted(record.error)},"ms":${Math.round(record.ms * 1_000) / 1_000},"bytesIn":${record.bytesIn},` +
    `"bytesOut":${record.bytesOut},"requestId":${quoted(record.requestId)}}\n`
  );
}

/** JSON text; C1 controls and line separators are escaped besides, so that a line stays a line in every viewer. */
function quoted(text: string): string {
  const json = JSON.stringify(text);
  return /[\u007f-\u009f\u2028\u2029]/.test(json)
    ? json.replace(/[\u007f-\u009f\u2028\u2029]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`)
    : json;
}
