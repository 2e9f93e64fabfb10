// Owns one `host:port` of a cluster at run time: its last word from the control plane, in-flight count, pool, breaker and outlier state.
// Changed by cluster.ts only. Must stay small: a large catalog has hundreds of thousands, most of which are never picked.

import type { Pool } from '../http1/pool.ts';
import type { Deadline } from '../kernel/timer-wheel.ts';
import type { Breaker } from '../resilience/breaker.ts';
import type { OutlierState } from '../resilience/outlier.ts';
import type { EndpointUpdate } from './cluster-update.ts';
import type { PickedEndpoint } from './pick-interface.ts';

/** Makes the pool of an endpoint at its first use. */
export interface PoolMaker {
  makePool(endpoint: Endpoint): Pool;
}

/** Lives as long as its address is in the cluster, and ten minutes longer where it remembers failures. */
export class Endpoint implements PickedEndpoint {
  readonly address: string;
  /** Last word of the control plane; replaced whole. */
  update: EndpointUpdate;
  /** Attempts in flight. */
  active = 0;
  /** True once the control plane dropped it: no new pick, what is in flight ends. */
  removed = false;
  /** Number of the update that named it last. */
  generation = 0;
  breaker: Breaker | null = null;
  outlier: OutlierState | null = null;
  /** Wakes the open breaker while it is in the cluster; ends the draining once removed. */
  timer: Deadline | null = null;
  /** Monotonic ms of the removal. */
  removedAt = 0;
  readonly #maker: PoolMaker;
  #pool: Pool | null = null;
  #probe: Probe | null = null;

  /** `address`: `host:port` as kernel/address.ts prints it. */
  constructor(address: string, update: EndpointUpdate, maker: PoolMaker) {
    this.address = address;
    this.update = update;
    this.#maker = maker;
  }

  get host(): string {
    return this.update.host;
  }

  get port(): number {
    return this.update.port;
  }

  get weight(): number {
    return this.update.weight;
  }

  get pool(): Pool {
    this.#pool ??= this.#maker.makePool(this);
    return this.#pool;
  }

  /** The pool if there is one already; looking must not make it. */
  get openPool(): Pool | null {
    return this.#pool;
  }

  /** The endpoint as the attempt that holds the slot of its half-open breaker sees it. */
  get probe(): Probe {
    this.#probe ??= new Probe(this);
    return this.#probe;
  }

  /** Whether ordinary attempts may start as far as the breaker goes. */
  get breakerClosed(): boolean {
    return this.breaker === null || this.breaker.closed;
  }

  /** Whether its open breaker may be probed before the end of the sleep window, should the cluster be in panic. */
  get earlySlotFree(): boolean {
    return this.breaker?.earlySlotFree === true;
  }

  get ejected(): boolean {
    return this.outlier?.ejected === true;
  }

  /** Whether dropping this object would forget a failure. */
  get remembers(): boolean {
    return (this.outlier !== null && !this.outlier.idle) || this.breaker !== null;
  }

  /** Drains the pool, if any; a later use makes a new one. */
  drainPool(): void {
    const pool = this.#pool;
    this.#pool = null;
    void pool?.drain();
  }
}

/**
 * What `pick` answers for the one request that tests a half-open breaker. A separate object, so that `end` knows the probe's result from
 * that of an attempt which started before the breaker opened.
 */
export class Probe implements PickedEndpoint {
  readonly endpoint: Endpoint;

  constructor(endpoint: Endpoint) {
    this.endpoint = endpoint;
  }

  get host(): string {
    return this.endpoint.host;
  }

  get port(): number {
    return this.endpoint.port;
  }

  get address(): string {
    return this.endpoint.address;
  }

  get pool(): Pool {
    return this.endpoint.pool;
  }
}

/** Whether the endpoint served one of the attempts. */
export function isTried(tried: readonly PickedEndpoint[], endpoint: Endpoint): boolean {
  for (const one of tried) if (one === endpoint || (one instanceof Probe && one.endpoint === endpoint)) return true;
  return false;
}
