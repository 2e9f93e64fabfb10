// Runs child processes for the scripts of package.json; output goes straight to the terminal unless it is captured.
import { spawn } from 'node:child_process';

export interface RunResult {
  readonly code: number;
  readonly output: string;
  readonly ms: number;
}

/** Runs a command to its end. `capture` keeps its output (both streams) instead of showing it. */
export function run(
  command: string,
  args: readonly string[],
  options: { capture?: boolean; env?: NodeJS.ProcessEnv } = {},
): Promise<RunResult> {
  const started = performance.now();
  return new Promise((resolve, reject) => {
    const child = spawn(command, [...args], {
      stdio: options.capture === true ? ['ignore', 'pipe', 'pipe'] : ['ignore', 'inherit', 'inherit'],
      env: options.env ?? process.env,
    });
    let output = '';
    const keep = (chunk: Buffer): void => {
      output += chunk.toString('utf8');
    };
    child.stdout?.on('data', keep);
    child.stderr?.on('data', keep);
    child.on('error', reject);
    child.on('close', (code, signal) =>
      resolve({ code: code ?? (signal === null ? 1 : 128), output, ms: performance.now() - started }),
    );
  });
}
