// What the tests of this folder share: the adapter as app would make it, on a given clock, with what it counted and logged.
import type { Adapter, AdapterDeps, SourceOptions } from '../../src/adapter/contract.ts';
import type { Clock } from '../../src/kernel/clock.ts';
import { dialPolicy } from '../../src/kernel/dial.ts';
import type { Log } from '../../src/kernel/log.ts';
import { seededRandom } from '../../src/kernel/random.ts';
import { factory } from './index.ts';

export const PLAIN: SourceOptions = { auth: {}, tls: null, timeout: 10_000, normalWeight: null };

export interface Made {
  readonly adapter: Adapter;
  readonly counts: Map<string, number>;
  readonly lines: string[];
}

/** The adapter as app would make it. */
export function makeAdapter(config: object, given: { clock: Clock; options?: SourceOptions; lines?: string[] }): Made {
  const lines = given.lines ?? [];
  const counts = new Map<string, number>();
  const write = (fields: object, message: string): void => void lines.push(`${message} ${JSON.stringify(fields)}`);
  const log: Log = { debug: write, info: write, warn: write, error: write, child: () => log };
  const deps: AdapterDeps = {
    sourceId: 'test',
    clock: given.clock,
    random: seededRandom(1),
    dial: dialPolicy({ allowLoopback: true, allowNames: false, cidrs: [], ports: [] }, () => []),
    log,
    count: (what, by = 1) => void counts.set(what, (counts.get(what) ?? 0) + by),
  };
  return { adapter: factory.create(config, given.options ?? PLAIN, deps), counts, lines };
}
