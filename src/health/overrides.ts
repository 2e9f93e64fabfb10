// Owns the operator's overrides: addresses taken out of picking on this sidecar, each with an end, kept in a file of the state directory.
// Called by the API (through app) and by publish; must survive pushes and a restart, and never outlive its end.
import { Type } from 'typebox';
import { canonicalHost, hostPort } from '../kernel/address.ts';
import type { Clock, Timer } from '../kernel/clock.ts';
import { decoder, parseJson } from '../kernel/decode.ts';
import { readOwnFile, replaceFile } from '../kernel/durable-file.ts';
import { messageOf, WeirError } from '../kernel/errors.ts';
import type { Log } from '../kernel/log.ts';
import { parseServiceId, type ServiceId } from '../model/service.ts';

/** An override that nobody remembers must end [W]. */
export const MAX_OVERRIDE_MS = 86_400_000;
const MAX_OVERRIDES = 10_000;
const MAX_FILE_BYTES = 8 * 1_048_576;

export interface Override {
  readonly service: ServiceId;
  readonly host: string;
  readonly port: number;
  readonly isolated: true;
  /** Wall ms, for people and the file. */
  readonly until: number;
}

interface Kept extends Override {
  /** Monotonic ms: a jump of the wall clock changes nothing. */
  readonly endsAt: number;
}

const FileSchema = Type.Object({
  version: Type.Literal(1),
  overrides: Type.Array(
    Type.Object({
      service: Type.String({ maxLength: 512 }),
      host: Type.String({ maxLength: 255 }),
      port: Type.Integer({ minimum: 1, maximum: 65_535 }),
      until: Type.Number(),
    }),
    { maxItems: MAX_OVERRIDES },
  ),
});
const decodeFile = decoder(FileSchema);

export interface OverridesDeps {
  readonly clock: Clock;
  readonly log: Log;
  /** The file; null keeps overrides in memory only. */
  readonly path: string | null;
  /** Who may have written the file, or null where that cannot be told. */
  readonly uid: number | null;
}

export class Overrides {
  readonly #deps: OverridesDeps;
  /** By service, then by `host:port`. */
  readonly #byService = new Map<ServiceId, Map<string, Kept>>();
  readonly #listeners = new Set<(service: ServiceId) => void>();
  #count = 0;
  #timer: Timer | null = null;
  #writing: Promise<void> = Promise.resolve();

  constructor(deps: OverridesDeps) {
    this.#deps = deps;
  }

  /** Takes up what was kept before a restart. Never rejects: a file that cannot be used is said in the log and left alone. */
  async load(): Promise<void> {
    const { path, uid, log, clock } = this.#deps;
    if (path === null) return;
    const bytes = await readOwnFile(path, MAX_FILE_BYTES, uid).catch(() => 'notAFile' as const);
    if (bytes === 'missing') return;
    const parsed = typeof bytes === 'string' ? null : parseJson(bytes, { maxBytes: MAX_FILE_BYTES });
    const decoded = parsed?.ok === true ? decodeFile(parsed.value) : null;
    if (decoded?.ok !== true) {
      log.warn({ path, reason: typeof bytes === 'string' ? bytes : 'not in our format' }, 'overrides: file not used');
      return;
    }
    const wall = clock.wallNow();
    for (const { service, host, port, until } of decoded.value.overrides) {
      // A wall clock that went back must not make an override last longer than one may.
      const left = Math.min(until - wall, MAX_OVERRIDE_MS);
      if (left > 0 && parseServiceId(service) !== null && canonicalHost(host) === host) this.#put(service, host, port, left);
    }
    this.#arm();
  }

  /** Every override, oldest first within a service. */
  list(): readonly Override[] {
    return [...this.#byService.values()].flatMap((kept) => [...kept.values()].map(plain));
  }

  isIsolated(service: ServiceId, host: string, port: number): boolean {
    return this.#byService.get(service)?.has(hostPort(host, port)) ?? false;
  }

  /** True when the service has any: most have none, and cost one look-up. */
  has(service: ServiceId): boolean {
    return this.#byService.has(service);
  }

  /**
   * Takes the address out of picking for `ms`; replaces an earlier override of it. It counts at once and is durable when the promise
   * resolves. Throws WeirError BAD_REQUEST for a time outside 1 ms..24 h or when there are too many; rejects with the system's error when
   * the file cannot be written (the override counts all the same).
   */
  async isolate(service: ServiceId, host: string, port: number, ms: number): Promise<Override> {
    if (!(ms > 0 && ms <= MAX_OVERRIDE_MS)) throw new WeirError('BAD_REQUEST', 'an override lasts at most 24 h');
    const known = this.isIsolated(service, host, port);
    if (!known && this.#count >= MAX_OVERRIDES)
      throw new WeirError('BAD_REQUEST', `there are ${MAX_OVERRIDES} overrides already`);
    const kept = this.#put(service, host, port, ms);
    this.#arm();
    this.#tell(service);
    await this.#write();
    return plain(kept);
  }

  /** Ends an override; false: there was none. */
  async clear(service: ServiceId, host: string, port: number): Promise<boolean> {
    if (!this.#delete(service, hostPort(host, port))) return false;
    this.#tell(service);
    await this.#write();
    return true;
  }

  /** Calls `listener` after every change of a service's overrides, their end included. */
  subscribe(listener: (service: ServiceId) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Waits for the last write. */
  async close(): Promise<void> {
    this.#timer?.cancel();
    await this.#writing.catch(() => {});
  }

  #put(service: ServiceId, host: string, port: number, ms: number): Kept {
    const { clock } = this.#deps;
    const kept: Kept = { service, host, port, isolated: true, until: clock.wallNow() + ms, endsAt: clock.now() + ms };
    const address = hostPort(host, port);
    const ofService = this.#byService.get(service) ?? new Map<string, Kept>();
    if (!ofService.has(address)) this.#count++;
    ofService.set(address, kept);
    this.#byService.set(service, ofService);
    return kept;
  }

  #delete(service: ServiceId, address: string): boolean {
    const ofService = this.#byService.get(service);
    if (ofService?.delete(address) !== true) return false;
    this.#count--;
    if (ofService.size === 0) this.#byService.delete(service);
    return true;
  }

  #arm(): void {
    this.#timer?.cancel();
    this.#timer = null;
    let first = Number.POSITIVE_INFINITY;
    for (const ofService of this.#byService.values())
      for (const { endsAt } of ofService.values()) first = Math.min(first, endsAt);
    if (first < Number.POSITIVE_INFINITY)
      this.#timer = this.#deps.clock.setTimer(first - this.#deps.clock.now(), () => this.#expire());
  }

  #expire(): void {
    const now = this.#deps.clock.now();
    for (const [service, ofService] of this.#byService) {
      let ended = false;
      for (const [address, { endsAt }] of ofService) if (endsAt <= now) ended = this.#delete(service, address) || ended;
      if (ended) this.#tell(service);
    }
    this.#arm();
    this.#write().catch((thrown: unknown) => {
      this.#deps.log.warn({ error: messageOf(thrown) }, 'overrides: file not written');
    });
  }

  #tell(service: ServiceId): void {
    for (const listener of this.#listeners) listener(service);
  }

  /** Writes one after the other; each writes what stands then. */
  #write(): Promise<void> {
    const { path } = this.#deps;
    if (path === null) return Promise.resolve();
    this.#writing = this.#writing
      .catch(() => {})
      .then(() => {
        const overrides = this.list().map(({ service, host, port, until }) => ({ service, host, port, until }));
        return replaceFile(path, [Buffer.from(`${JSON.stringify({ version: 1, overrides })}\n`)]);
      });
    return this.#writing;
  }
}

function plain({ service, host, port, isolated, until }: Kept): Override {
  return { service, host, port, isolated, until };
}
