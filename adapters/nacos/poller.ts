// Owns the watch of one service over HTTP, for 1.x (section 6): the list every few seconds, spread, at most 50 calls a second per source.
// Called by adapter.ts; must never open a UDP port for pushes (anyone can send there).
import type { Clock } from '../../src/kernel/clock.ts';
import type { ServiceKey } from '../../src/model/service.ts';
import type { Snapshot, Unchanged } from '../../src/model/snapshot.ts';
import { asSourceError } from '../../src/model/snapshot.ts';
import type { Line } from './line.ts';
import { type MappingOptions, mapHosts, type NativeName } from './mapping.ts';

const MIN_WAIT_MS = 1_000;
const MAX_WAIT_MS = 10_000;
const DEFAULT_WAIT_MS = 3_000;
const CALLS_PER_SECOND = 50;

/** Spaces the calls of one source; no queue, just the next free moment. */
export class Pace {
  readonly #clock: Clock;
  #next = Number.NEGATIVE_INFINITY;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Resolves at the caller's turn; rejects with the signal's reason. */
  async turn(signal: AbortSignal): Promise<void> {
    const now = this.#clock.now();
    const at = Math.max(now, this.#next);
    this.#next = at + 1_000 / CALLS_PER_SECOND;
    if (at > now) await this.#clock.sleep(at - now, signal);
  }
}

export interface PollDeps {
  readonly line: Line;
  readonly pace: Pace;
  readonly mapping: MappingOptions;
  readonly lacks: (key: ServiceKey) => boolean;
}

/** Throws SourceError; returns only on abort. */
export async function* pollService(
  { line, pace, mapping, lacks }: PollDeps,
  key: ServiceKey,
  native: NativeName,
  signal: AbortSignal,
): AsyncGenerator<Snapshot | Unchanged, void, void> {
  const { clock, random } = line.deps;
  let before: { digest: string; time: number | null; server: string } | null = null;
  try {
    for (;;) {
      await pace.turn(signal);
      const { server } = line;
      const { generation } = await line.info(signal);
      const info = await line.api.instances(server, native, signal);
      line.httpWent(true);
      const older =
        before !== null &&
        before.server === server.address &&
        info.lastRefTime !== null &&
        before.time !== null &&
        info.lastRefTime < before.time;
      if (older) mapping.count('push.older');
      // 1.x protects every service, and does not say so.
      const { instances, rejected, digest } = mapHosts(
        info.hosts,
        generation === 1 || info.protected ? 'protected' : 'believed',
        mapping,
      );
      const absent = info.hosts.length === 0 && (generation === 1 ? info.lastRefTime === null : lacks(key));
      const shown = `${absent}${digest}`;
      const base = { epoch: line.httpEpoch, sourceRevision: String(info.lastRefTime ?? 0) };
      if (before !== null && (older || before.digest === shown)) yield { kind: 'unchanged' };
      else if (absent) yield { kind: 'absent', ...base };
      else yield { kind: 'present', ...base, instances, rejected };
      if (!older) before = { digest: shown, time: info.lastRefTime, server: server.address };
      const wait = Math.min(MAX_WAIT_MS, Math.max(MIN_WAIT_MS, info.cacheMillis ?? DEFAULT_WAIT_MS));
      await clock.sleep(wait * (0.8 + 0.2 * random()), signal);
    }
  } catch (thrown) {
    if (signal.aborted) return;
    const error = asSourceError(thrown);
    if (error.causeKind === 'lost') line.httpWent(false);
    throw error;
  }
}
