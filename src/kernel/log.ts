// Owns logging: pino behind a narrow interface. Called by all; secrets are kept out by redaction paths and by their decoders.
import { type Logger as PinoLogger, pino } from 'pino';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent';

/** What the layers may do with a log. Fields are plain data; names from registries go in as values, never into the message. */
export interface Log {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
  child(fields: object): Log;
}

/** Keys whose values are never written, at the top and one level down. */
export const REDACTED = ['password', 'token', 'secret', 'authorization', 'key', 'accessToken'] as const;

/** A log that says nothing. */
export const silentLog: Log = {
  debug() {},
  info() {},
  warn() {},
  error() {},
  child: () => silentLog,
};

/** A quiet sidecar's lines are seen after this long at most, ms. */
const FLUSH_MS = 500;

/** JSON lines. `sync` for commands that print and end; otherwise buffered, bounded (8 MiB, then lines are dropped), see flush. */
export function createLog(options: { level: LogLevel; dest?: number | string; sync: boolean; onDrop?: () => void }): {
  log: Log;
  /** Writes out what is held back, and blocks until it is: for the end. */
  flush(): void;
  /** Begins to write out what is held back; never blocks, whatever reads the log. */
  flushSoon(): void;
} {
  const destination = pino.destination({
    dest: options.dest ?? 1,
    sync: options.sync,
    ...(options.sync ? {} : { minLength: 4096, maxLength: 8_388_608, periodicFlush: FLUSH_MS }),
  });
  destination.on('drop', () => options.onDrop?.());
  destination.on('error', () => options.onDrop?.());
  const redact = { paths: REDACTED.flatMap((key) => [key, `*.${key}`]), censor: '[hidden]' };
  const logger: PinoLogger = pino({ level: options.level, base: null, redact }, destination);
  return {
    log: logger,
    flushSoon() {
      try {
        destination.flush();
      } catch {
        // As below.
      }
    },
    flush() {
      try {
        destination.flushSync();
      } catch {
        // The destination was not open yet or is gone: there is nowhere left to say so.
      }
    },
  };
}
