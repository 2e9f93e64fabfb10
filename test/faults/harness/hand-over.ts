// A listening socket that outlives the processes serving it: each data plane hands it to the next one, as at an upgrade. Called by the C3
// test; must never signal a process that is none of its chain.
import { spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import { eventually } from '../../support/eventually.ts';
import type { FaultBench } from './bench.ts';

const MAIN = fileURLToPath(new URL('./hand-over-main.ts', import.meta.url));

export interface HandOver {
  readonly port: number;
  /** The process that serves starts its successor on the same socket; once that serves, it drains. Resolves when it has ended. */
  next(): Promise<void>;
}

/** Opens the socket and starts the first process on it. */
export async function handOver(bench: FaultBench, upstreams: readonly number[]): Promise<HandOver> {
  const holder = createServer();
  await new Promise<void>((resolve) => holder.listen({ port: 0, host: '127.0.0.1', backlog: 1_024 }, resolve));
  const handle: unknown = Reflect.get(holder, '_handle');
  const fd = typeof handle === 'object' && handle !== null ? Number(Reflect.get(handle, 'fd')) : -1;
  const address = holder.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const child = spawn(process.execPath, ['--disable-proto=throw', MAIN, String(port), upstreams.join()], {
    stdio: ['ignore', 'pipe', 'inherit', fd],
  });
  // What every process of the chain says, since each inherits the pipe: `ready <pid>`, and `drained <pid>` at its end.
  let said = '';
  child.stdout?.on('data', (chunk: Buffer) => {
    said += chunk.toString('utf8');
  });
  const ready = (): number[] => Array.from(said.matchAll(/ready (\d+)/g), (match) => Number(match[1]));
  bench.defer(() => {
    for (const pid of ready()) {
      if (said.includes(`drained ${pid}\n`)) continue;
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // Ended by itself.
      }
    }
  });
  await eventually(() => ready().length === 1, 30_000);
  // From here on only the chain accepts.
  holder.close();
  return {
    port,
    async next() {
      const before = ready().at(-1) ?? 0;
      const count = ready().length;
      process.kill(before, 'SIGUSR2');
      await eventually(() => ready().length === count + 1, 30_000);
      process.kill(before, 'SIGTERM');
      await eventually(() => said.includes(`drained ${before}\n`), 40_000);
    },
  };
}
