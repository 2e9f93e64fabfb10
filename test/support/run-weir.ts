// Runs the command line inside the test's process and collects what it prints; for tests of src/cli.
import type { Io } from '../../src/cli/io.ts';
import { runCli } from '../../src/cli/program.ts';

export interface CliResult {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** An Io that collects. `stop` ends commands that go on. */
export function collectingIo(env: Record<string, string> = {}, stop = new AbortController()) {
  const text = { out: '', err: '' };
  const io: Io = {
    out: (more) => {
      text.out += more;
    },
    err: (more) => {
      text.err += more;
    },
    env: new Map(Object.entries(env)),
    terminal: false,
    stop: stop.signal,
  };
  return { io, text, stop };
}

/** One command from start to end. */
export async function runWeir(args: readonly string[], env: Record<string, string> = {}): Promise<CliResult> {
  const { io, text } = collectingIo(env);
  const code = await runCli(args, io, '1.2.3');
  return { code, ...text };
}
