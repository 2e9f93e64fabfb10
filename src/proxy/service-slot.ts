// Owns what the request path keeps per service besides the cluster: its series of requests and failures, looked up once
// (limits, retries and ejections are counted by cluster). Made and removed by data-plane.ts together with the cluster;
// exchanges hold a slot while a request is open.

import type { PickCluster } from '../cluster/pick-interface.ts';
import type { UpstreamFailure } from '../http1/exchange.ts';
import type { Counter, Histogram, Metrics } from '../telemetry/metrics.ts';

const CLASSES = ['error', '1xx', '2xx', '3xx', '4xx', '5xx'] as const;
const CAUSES = ['connect', 'reset', 'protocol', 'timeout'] as const;

/** Cause of a failed attempt, as counted. */
export type FailureCause = (typeof CAUSES)[number];

/** One service as the request path sees it. */
export class ServiceSlot {
  readonly cluster: PickCluster;
  readonly #duration: Histogram;
  readonly #metrics: Metrics;
  readonly #answered: (Counter | null)[] = [null, null, null, null, null, null];
  readonly #failures = new Map<FailureCause, Counter>();
  #closed = false;

  constructor(cluster: PickCluster, metrics: Metrics) {
    const { service } = cluster;
    this.cluster = cluster;
    this.#metrics = metrics;
    this.#duration = metrics.histogram('weir_request_duration_ms', service);
  }

  /** Counts an answered request; `status` of the upstream, 0 for a reply of our own or none. */
  answered(status: number, ms: number): void {
    const at = Math.trunc(status / 100);
    if (this.#closed) return;
    const counter = this.#answered[at] ?? this.#makeAnswered(at);
    counter.inc();
    this.#duration.observe(ms);
  }

  failed(cause: FailureCause): void {
    if (this.#closed) return;
    let counter = this.#failures.get(cause);
    if (counter === undefined) {
      counter = this.#metrics.counter('weir_upstream_failures_total', this.cluster.service, cause);
      this.#failures.set(cause, counter);
    }
    counter.inc();
  }

  /** Removes every series of the service; a request that is still open counts nowhere. */
  close(): void {
    this.#closed = true;
    const { service } = this.cluster;
    const metrics = this.#metrics;
    metrics.remove('weir_request_duration_ms', service);
    for (const name of CLASSES) metrics.remove('weir_requests_total', service, name);
    for (const cause of CAUSES) metrics.remove('weir_upstream_failures_total', service, cause);
  }

  #makeAnswered(at: number): Counter {
    const counter = this.#metrics.counter('weir_requests_total', this.cluster.service, CLASSES[at] ?? 'error');
    this.#answered[at] = counter;
    return counter;
  }
}

/** How a codec's failure is counted; null: not the upstream's fault. */
export function failureCause(cause: UpstreamFailure['cause']): FailureCause | null {
  return cause === 'connect' || cause === 'reset' || cause === 'protocol' ? cause : null;
}
