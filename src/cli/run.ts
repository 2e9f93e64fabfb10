// Owns `weir run`: starts the sidecar and turns signals into drain, hard stop and reload.
// SIGTERM or SIGINT: drain, exit 0. A second one: hard stop, exit 1. SIGHUP: read the configuration again.
import { messageOf, WeirError } from '../kernel/errors.ts';
import { errorAbout } from '../model/error-table.ts';
import { useCompileCache } from './compile-cache.ts';
import { keepHeapSmall } from './heap.ts';
import { CommandFailure, EXIT_FAILED, EXIT_OK, EXIT_USAGE, type Io } from './io.ts';

/** How long after the start newly compiled code is written down, ms. */
const KEEP_COMPILED_MS = 2_000;

/** What `startApp` of app.ts gives; named here by its shape, so that signals are tested without a sidecar. */
export interface Runnable {
  readonly apiAddress: string;
  readonly proxyAddress: string;
  /** Lame duck, then finishes what is in flight, then ends; resolves when nothing is left. */
  drain(): Promise<void>;
  /** Ends everything now. */
  close(): Promise<void>;
  /** Reads the configuration file again; never rejects for a bad one. */
  reload?(): Promise<unknown>;
}

/** Where signals come from: `process`, or a test's own. */
export interface Signals {
  on(signal: 'SIGTERM' | 'SIGINT' | 'SIGHUP', listener: () => void): unknown;
  removeListener(signal: 'SIGTERM' | 'SIGINT' | 'SIGHUP', listener: () => void): unknown;
}

export interface RunOptions {
  readonly config?: string;
}

/** Runs the command until it is stopped; resolves with the exit code. */
export async function run(io: Io, options: RunOptions): Promise<number> {
  keepHeapSmall();
  const keepCompiled = useCompileCache(io.env);
  const { startApp } = await import('../app.ts');
  return runUntilStopped(io, process, async () => {
    const app = await startApp(options.config === undefined ? {} : { configPath: options.config });
    // Once, when everything that this configuration needs is loaded; not before the first requests had their turn.
    setTimeout(keepCompiled, KEEP_COMPILED_MS).unref();
    return app;
  });
}

/**
 * Starts, and ends when a signal says so. It listens before it starts: a signal that comes meanwhile must not kill a process that has
 * registered something already. A start that fails for the operator's reasons is exit 2.
 */
export async function runUntilStopped(io: Io, signals: Signals, start: () => Promise<Runnable>): Promise<number> {
  const { promise: ended, resolve: end } = Promise.withResolvers<number>();
  const running: { app: Runnable | null } = { app: null };
  let stopping = false;
  const failed = (thrown: unknown): void => {
    io.err(`weir: ${messageOf(thrown)}\n`);
    end(EXIT_FAILED);
  };
  const drain = (app: Runnable): void => void app.drain().then(() => end(EXIT_OK), failed);
  const onReload = (): void =>
    void running.app?.reload?.().catch((thrown: unknown) => io.err(`weir: reload: ${messageOf(thrown)}\n`));
  const onStop = (): void => {
    if (stopping) {
      io.err('weir: hard stop\n');
      // Whatever close still waits for, the second signal means now.
      running.app?.close().catch(() => {});
      end(EXIT_FAILED);
      return;
    }
    stopping = true;
    io.err('weir: draining; a second signal stops at once\n');
    if (running.app !== null) drain(running.app);
  };
  signals.on('SIGTERM', onStop);
  signals.on('SIGINT', onStop);
  signals.on('SIGHUP', onReload);
  const onStarted = (app: Runnable): void => {
    running.app = app;
    io.err(`weir: API on ${app.apiAddress}, proxy on ${app.proxyAddress}\n`);
    if (stopping) drain(app);
  };
  try {
    // A hard stop does not wait for a start that hangs.
    await Promise.race([start().then(onStarted), ended]);
    return await ended;
  } catch (thrown) {
    throw startFailure(thrown);
  } finally {
    signals.removeListener('SIGTERM', onStop);
    signals.removeListener('SIGINT', onStop);
    signals.removeListener('SIGHUP', onReload);
  }
}

function startFailure(thrown: unknown): unknown {
  if (!(thrown instanceof WeirError)) return thrown;
  const exit = errorAbout(thrown.code)?.family === 'config' ? EXIT_USAGE : EXIT_FAILED;
  return new CommandFailure(exit, `${thrown.code}: ${thrown.message}`);
}
