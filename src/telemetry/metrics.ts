// Owns the metric registry of the hot path: counters, gauges and histograms as plain numbers, rendered as Prometheus text.
// Called by everyone; adding to a counter must never allocate, and whoever makes a series removes it with its subject.
import { METRICS, type MetricName } from './names.ts';

/** Label values in the order of the metric's label names. */
export type LabelValues = readonly string[];

/** One series that only grows. */
export class Counter {
  value = 0;

  inc(by = 1): void {
    this.value += by;
  }
}

/** One series that goes up and down. */
export class Gauge {
  value = 0;

  set(value: number): void {
    this.value = value;
  }

  add(by: number): void {
    this.value += by;
  }
}

/** Upper bounds in ms: 1, 2, 5 per decade from 0.1 ms to 100 s; the last bucket is +Inf. */
const BOUNDS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000] as const;

/** One latency series in ms. */
export class Histogram {
  readonly counts = new Float64Array(BOUNDS.length + 1);
  sum = 0;

  observe(ms: number): void {
    let i = 0;
    while (i < BOUNDS.length && ms > (BOUNDS[i] ?? Number.POSITIVE_INFINITY)) i++;
    this.counts[i] = (this.counts[i] ?? 0) + 1;
    this.sum += ms;
  }

  get count(): number {
    return this.counts.reduce((sum, n) => sum + n, 0);
  }

  /** Upper bound of the bucket in which the q-quantile (0..1) lies, ms; 0 without observations. */
  quantile(q: number): number {
    const rank = q * this.count;
    let seen = 0;
    for (let i = 0; i < this.counts.length; i++) {
      seen += this.counts[i] ?? 0;
      if (seen >= rank && seen > 0) return BOUNDS[i] ?? Number.POSITIVE_INFINITY;
    }
    return 0;
  }
}

type Series = Counter | Gauge | Histogram;

interface Family {
  readonly name: MetricName;
  readonly series: Map<string, { readonly labels: LabelValues; readonly series: Series }>;
}

/** All metrics of the process. Series of one name are made on first use and live until `remove`. */
export class Metrics {
  readonly #families = new Map<MetricName, Family>();
  readonly #collectors: (() => void)[] = [];

  /** The counter of these label values; keep the answer, do not ask on the hot path. */
  counter(name: MetricName, ...labels: string[]): Counter {
    return this.#series(name, labels, Counter, () => new Counter());
  }

  gauge(name: MetricName, ...labels: string[]): Gauge {
    return this.#series(name, labels, Gauge, () => new Gauge());
  }

  histogram(name: MetricName, ...labels: string[]): Histogram {
    return this.#series(name, labels, Histogram, () => new Histogram());
  }

  /** Removes one series. */
  remove(name: MetricName, ...labels: string[]): void {
    this.#families.get(name)?.series.delete(labels.join('\u0000'));
  }

  /** Runs `collect` before each rendering: for gauges that are read from somewhere. */
  onCollect(collect: () => void): void {
    this.#collectors.push(collect);
  }

  /** How many series there are; for tests of removal. */
  get size(): number {
    let size = 0;
    for (const family of this.#families.values()) size += family.series.size;
    return size;
  }

  /** Prometheus text format 0.0.4 in slices of at most about 500 series, so that a big scrape does not stall the loop. */
  *render(): Generator<string, void, void> {
    for (const collect of this.#collectors) collect();
    for (const family of this.#families.values()) {
      const about = METRICS[family.name];
      let text = `# HELP ${family.name} ${about.help}\n# TYPE ${family.name} ${about.type}\n`;
      let inSlice = 0;
      for (const { labels, series } of family.series.values()) {
        text += renderSeries(family.name, about.labels, labels, series);
        if (++inSlice >= 500) {
          yield text;
          text = '';
          inSlice = 0;
        }
      }
      yield text;
    }
  }

  #series<S extends Series>(name: MetricName, labels: string[], kind: new () => S, make: () => S): S {
    let family = this.#families.get(name);
    if (family === undefined) {
      family = { name, series: new Map() };
      this.#families.set(name, family);
    }
    const key = labels.join('\u0000');
    const found = family.series.get(key)?.series;
    if (found instanceof kind) return found;
    if (labels.length !== METRICS[name].labels.length)
      throw new RangeError(`metric ${name}: labels ${METRICS[name].labels.join(', ')}`);
    const made = make();
    family.series.set(key, { labels, series: made });
    return made;
  }
}

function labelText(names: readonly string[], values: LabelValues, extra = ''): string {
  const parts = names.map((name, i) => `${name}="${escapeLabel(values[i] ?? '')}"`);
  if (extra !== '') parts.push(extra);
  return parts.length === 0 ? '' : `{${parts.join(',')}}`;
}

function escapeLabel(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}

function renderSeries(name: string, labelNames: readonly string[], labels: LabelValues, series: Series): string {
  if (!(series instanceof Histogram)) return `${name}${labelText(labelNames, labels)} ${series.value}\n`;
  let text = '';
  let total = 0;
  for (let i = 0; i < series.counts.length; i++) {
    total += series.counts[i] ?? 0;
    const le = BOUNDS[i] === undefined ? '+Inf' : String(BOUNDS[i]);
    text += `${name}_bucket${labelText(labelNames, labels, `le="${le}"`)} ${total}\n`;
  }
  text += `${name}_sum${labelText(labelNames, labels)} ${series.sum}\n`;
  return `${text}${name}_count${labelText(labelNames, labels)} ${total}\n`;
}
