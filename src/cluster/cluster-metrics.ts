// Owns the metric series of one cluster: made at their first use (idle services cost none), removed with the cluster. Called by cluster.ts.
import type { ServiceId } from '../model/service.ts';
import type { Counter, Gauge, Metrics } from '../telemetry/metrics.ts';
import type { MetricName } from '../telemetry/names.ts';

export type EjectionResult = 'enforced' | 'overflow' | 'detected';

type CounterName =
  | 'weir_upstream_cx_overflow_total'
  | 'weir_upstream_rq_overflow_total'
  | 'weir_retries_total'
  | 'weir_retry_overflow_total'
  | 'weir_breaker_opened_total';
type GaugeName = 'weir_lb_panic' | 'weir_ejections_active';

interface Made<S> {
  readonly name: MetricName;
  readonly labels: readonly string[];
  readonly series: S;
}

export class ClusterMetrics {
  readonly #metrics: Metrics;
  readonly #service: ServiceId;
  /** By name and further labels; null while nothing was counted, as in most clusters. */
  #counters: Map<string, Made<Counter>> | null = null;
  #gauges: Map<string, Made<Gauge>> | null = null;
  #closed = false;

  constructor(metrics: Metrics, service: ServiceId) {
    this.#metrics = metrics;
    this.#service = service;
  }

  count(name: CounterName): void {
    this.#inc(name, name, []);
  }

  countEjection(type: string, result: EjectionResult): void {
    this.#inc(`${type} ${result}`, 'weir_ejections_total', [type, result]);
  }

  /** Sets a gauge; a 0 makes no series. */
  set(name: GaugeName, value: number): void {
    if (this.#closed) return;
    let made = this.#gauges?.get(name);
    if (made === undefined) {
      if (value === 0) return;
      const labels = [this.#service];
      made = { name, labels, series: this.#metrics.gauge(name, ...labels) };
      this.#gauges ??= new Map();
      this.#gauges.set(name, made);
    }
    made.series.set(value);
  }

  /** Removes every series made here; later use makes them anew. */
  remove(): void {
    for (const { name, labels } of this.#counters?.values() ?? []) this.#metrics.remove(name, ...labels);
    for (const { name, labels } of this.#gauges?.values() ?? []) this.#metrics.remove(name, ...labels);
    this.#counters = null;
    this.#gauges = null;
  }

  /** Removes them for good: an attempt that ends later counts nowhere, as nobody would remove its series. */
  close(): void {
    this.remove();
    this.#closed = true;
  }

  #inc(key: string, name: MetricName, more: readonly string[]): void {
    if (this.#closed) return;
    let made = this.#counters?.get(key);
    if (made === undefined) {
      const labels = [this.#service, ...more];
      made = { name, labels, series: this.#metrics.counter(name, ...labels) };
      this.#counters ??= new Map();
      this.#counters.set(key, made);
    }
    made.series.inc();
  }
}
