// Owns registrations over HTTP: records that beats keep alive (copies; everything on 1.x) and persistent ones (section 7).
// Called by adapter.ts; must never beat a record whose origin is unhealthy: one beat would make it healthy.
import type { RenewResult, WriteReceipt } from '../../src/adapter/contract.ts';
import type { RegistryHealth } from '../../src/model/instance.ts';
import { asSourceError, SourceError } from '../../src/model/snapshot.ts';
import type { NacosServer } from './config.ts';
import type { Line, ServerInfo } from './line.ts';
import { healthyOf, type NativeInstance, type NativeName, nativeId } from './mapping.ts';

/** A copy: unhealthy this long after we died, gone so long after; the beat interval is only what the server is told. */
export const COPY_TIMES = { interval: 5_000, unhealthy: 90_000, gone: 600_000 } as const;
/** An unhealthy record is registered again this often: that renews its clocks and leaves it unhealthy, ms. */
const REPEAT_MS = 300_000;

interface Held {
  readonly native: NativeName;
  instance: NativeInstance;
  /** Monotonic ms of the last registration. */
  at: number;
}

/** Metadata by which the server measures the life of a record that is kept for `ttl` ms. */
export function ownTimes(ttl: number): Readonly<Record<string, string>> {
  return preserved({ interval: Math.max(1_000, Math.floor(ttl / 3)), unhealthy: ttl, gone: 2 * ttl });
}

export function preserved(times: {
  readonly interval: number;
  readonly unhealthy: number;
  readonly gone: number;
}): Readonly<Record<string, string>> {
  return {
    'preserved.heart.beat.interval': String(times.interval),
    'preserved.heart.beat.timeout': String(times.unhealthy),
    'preserved.ip.delete.timeout': String(times.gone),
  };
}

export class HttpWriter {
  readonly #line: Line;
  /** Ours, by service and native id; what another process of ours registered is not here. */
  readonly #held = new Map<string, Held>();

  constructor(line: Line) {
    this.#line = line;
  }

  /** Rejects with SourceError. */
  async put(native: NativeName, instance: NativeInstance, signal: AbortSignal): Promise<void> {
    await this.#asked(signal, ({ generation }, server) => this.#line.api.register(server, generation, native, instance, signal));
    this.#held.set(heldId(native, nativeId(instance)), { native, instance, at: this.#line.deps.clock.now() });
  }

  /** `leaseMs`: what the record lives on without us. */
  async renew(native: NativeName, receipt: WriteReceipt, leaseMs: number, signal: AbortSignal): Promise<RenewResult> {
    const { clock } = this.#line.deps;
    const held = this.#held.get(heldId(native, receipt.nativeId));
    const identity = identityOf(receipt.nativeId, true);
    if (identity === null) return new SourceError('refused', 'nacos: this receipt is none of ours');
    try {
      if (held !== undefined && !held.instance.healthy) {
        if (clock.now() - held.at >= Math.min(REPEAT_MS, leaseMs / 2)) await this.put(native, held.instance, signal);
        return { kind: 'renewed', leaseMs };
      }
      const beat = await this.#asked(signal, ({ generation }, server) =>
        this.#line.api.beat(server, generation, native, identity, signal),
      );
      return beat === 'unknown' ? { kind: 'forgotten' } : { kind: 'renewed', leaseMs };
    } catch (thrown) {
      signal.throwIfAborted();
      return asSourceError(thrown);
    }
  }

  /** Rejects with SourceError; `refused` where this process did not put the record and so cannot write it whole. */
  async setHealth(
    native: NativeName,
    receipt: WriteReceipt,
    health: RegistryHealth,
    unknownIs: boolean,
    signal: AbortSignal,
  ): Promise<void> {
    const held = this.#held.get(heldId(native, receipt.nativeId));
    if (held === undefined) throw new SourceError('lost', 'nacos: the record was not put by this process yet: put it again');
    await this.put(native, { ...held.instance, healthy: healthyOf(health, unknownIs) }, signal);
  }

  async remove(native: NativeName, receipt: WriteReceipt, ephemeral: boolean, signal: AbortSignal): Promise<void> {
    const identity = identityOf(receipt.nativeId, ephemeral);
    if (identity === null) throw new SourceError('refused', 'nacos: this receipt is none of ours');
    await this.#asked(signal, ({ generation }, server) =>
      this.#line.api.deregister(server, generation, native, identity, signal),
    );
    this.#held.delete(heldId(native, receipt.nativeId));
  }

  async #asked<T>(signal: AbortSignal, call: (info: ServerInfo, server: NacosServer) => Promise<T>): Promise<T> {
    try {
      const info = await this.#line.info(signal);
      const answer = await call(info, this.#line.server);
      this.#line.httpWent(true);
      return answer;
    } catch (thrown) {
      signal.throwIfAborted();
      const error = asSourceError(thrown);
      if (error.causeKind === 'lost') this.#line.httpWent(false);
      throw error;
    }
  }
}

/** `ip#port#cluster`, with `#copy` at the end or without → its parts. */
export function identityOf(
  id: string,
  ephemeral: boolean,
): { ip: string; port: number; clusterName: string; ephemeral: boolean } | null {
  const match = /^(.+)#(\d{1,5})#([^#]+)(?:#copy)?$/.exec(id);
  if (match?.[1] === undefined || match[2] === undefined || match[3] === undefined) return null;
  return { ip: match[1], port: Number(match[2]), clusterName: match[3], ephemeral };
}

function heldId({ group, name }: NativeName, id: string): string {
  return `${group}@@${name}#${id}`;
}
