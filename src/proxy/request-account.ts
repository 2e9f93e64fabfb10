// Owns the books of one request: what it is counted in (gate, cluster), its time and bytes, metrics and the access-log line.
// Called by exchange.ts. Every begin has exactly one end; between them `admit` at most once.
import type { PickCluster } from '../cluster/pick-interface.ts';
import type { ProxyContext } from './proxy-context.ts';
import type { ServiceSlot } from './service-slot.ts';

/** What the books need to know at the end. */
export interface RequestEnd {
  readonly service: string;
  readonly method: string;
  readonly path: string;
  /** What the client got; 0: nothing. */
  readonly status: number;
  /** Empty when an upstream's response was passed on whole. */
  readonly error: string;
  readonly upstream: string;
  readonly attempts: number;
  readonly requestId: string;
}

/** The books of one exchange, opened anew for each request. */
export class RequestAccount {
  bytesIn = 0;
  bytesOut = 0;
  slot: ServiceSlot | null = null;
  /** Where `startRequest` has counted the request in. */
  cluster: PickCluster | null = null;
  readonly #context: ProxyContext;
  #startedAt = 0;
  #inGate = false;
  #held = 0;

  constructor(context: ProxyContext) {
    this.#context = context;
  }

  begin(): void {
    this.#startedAt = this.#context.clock.now();
    this.bytesIn = 0;
    this.bytesOut = 0;
  }

  /** Counts the request in at its cluster and at the gate (`gated`); false: limits.maxRequests is reached. */
  admit(slot: ServiceSlot, gated: boolean): boolean {
    this.slot = slot;
    if (!slot.cluster.startRequest()) return false;
    this.cluster = slot.cluster;
    this.#inGate = gated;
    if (gated) this.#context.gate.requests++;
    return true;
  }

  /** Tells the gate how many body bytes are held now. */
  holds(bytes: number): void {
    this.#context.gate.bytes += bytes - this.#held;
    this.#held = bytes;
  }

  /** The request no longer counts as one in flight (it became a tunnel, or it ends). */
  leave(): void {
    if (this.#held > 0) this.holds(0);
    if (this.#inGate) this.#context.gate.requests--;
    this.#inGate = false;
    this.cluster?.endRequest();
    this.cluster = null;
  }

  /** Closes the books. */
  end(end: RequestEnd): void {
    this.leave();
    const { clock, accessLog } = this.#context;
    const ms = clock.now() - this.#startedAt;
    this.slot?.answered(end.error === '' ? end.status : 0, ms);
    this.slot = null;
    if (accessLog.enabled) accessLog.write({ ...end, ms, bytesIn: this.bytesIn, bytesOut: this.bytesOut });
  }
}
