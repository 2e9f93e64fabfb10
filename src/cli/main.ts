// Owns the entry of the command line: binds program.ts to the real process. Started by bin/weir.cjs and by npm scripts.
import { readFileSync } from 'node:fs';
import { useCompileCache } from './compile-cache.ts';
import type { Io } from './io.ts';

/** The package's own version; the file lies two levels up from src/cli, three from dist/src/cli. */
function ownVersion(): string {
  for (const place of ['../../package.json', '../../../package.json']) {
    try {
      const match = /"version": "([^"]+)"/.exec(readFileSync(new URL(place, import.meta.url), 'utf8'));
      if (match?.[1] !== undefined) return match[1];
    } catch {
      // Not there: the other place has it.
    }
  }
  return 'unknown';
}

/** Ctrl-C ends commands that go on until then; `run` and `demo` listen themselves. */
function stopSignal(command: string | undefined): AbortSignal {
  const stop = new AbortController();
  if (command === 'watch' || command === 'check' || command === 'migrate') process.once('SIGINT', () => stop.abort());
  return stop.signal;
}

function processIo(args: readonly string[]): Io {
  // `weir services | head` closes the pipe early: that is no failure.
  process.stdout.on('error', () => process.exit(0));
  const env = Object.entries(process.env).flatMap(([name, value]) => (value === undefined ? [] : [[name, value] as const]));
  return {
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
    env: new Map(env),
    terminal: process.stdout.isTTY === true,
    stop: stopSignal(args[0]),
  };
}

const args = process.argv.slice(2);
const io = processIo(args);
// Before the rest is loaded. Only the start of a sidecar is worth a directory on disk; run.ts writes down what is new there.
if (args[0] === 'run') useCompileCache(io.env);
const { runCli } = await import('./program.ts');
const code = await runCli(args, io, ownVersion());
// Writes to pipes and files are synchronous here; anything else that is still open must not keep a finished command alive.
process.exit(code);
