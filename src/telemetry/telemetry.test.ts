import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { type Log, silentLog } from '../kernel/log.ts';
import { Audit } from './audit.ts';
import { Events } from './events.ts';
import { Histogram, Metrics } from './metrics.ts';
import { METRICS } from './names.ts';

test('series render as Prometheus text with escaped labels, and disappear when removed', () => {
  const metrics = new Metrics();
  metrics.counter('weir_retries_total', 'a"b\\c\nd').inc(3);
  metrics.gauge('weir_requests_active').set(2);
  const text = [...metrics.render()].join('');
  assert.match(text, /# TYPE weir_retries_total counter\nweir_retries_total\{service="a\\"b\\\\c\\nd"\} 3\n/);
  assert.match(text, /weir_requests_active 2\n/);
  assert.equal(metrics.counter('weir_retries_total', 'a"b\\c\nd').value, 3);
  metrics.remove('weir_retries_total', 'a"b\\c\nd');
  assert.equal(metrics.size, 1);
  assert.throws(() => metrics.counter('weir_retries_total'), RangeError);
});

test('a histogram counts by bucket, its text is cumulative, and quantiles are upper bounds', () => {
  const metrics = new Metrics();
  const series = metrics.histogram('weir_request_duration_ms', 's');
  for (const ms of [0.05, 0.15, 3, 3, 200_000]) series.observe(ms);
  const text = [...metrics.render()].join('');
  assert.match(text, /_bucket\{service="s",le="0.1"\} 1\n/);
  assert.match(text, /_bucket\{service="s",le="5"\} 4\n/);
  assert.match(text, /_bucket\{service="s",le="\+Inf"\} 5\n/);
  assert.match(text, /_count\{service="s"\} 5\n/);
  assert.equal(series.quantile(0.5), 5);
  assert.equal(series.quantile(1), Number.POSITIVE_INFINITY);
  assert.equal(new Histogram().quantile(0.5), 0);
});

test('a big scrape comes in slices of at most 500 series', () => {
  const metrics = new Metrics();
  for (let i = 0; i < 1_201; i++) metrics.counter('weir_retries_total', `s${i}`).inc();
  const slices = [...metrics.render()];
  assert.equal(slices.length, 3);
  assert.ok(slices.every((slice) => slice.split('\n').length <= 503));
});

test('gauges that are read from somewhere are read before each rendering', () => {
  const metrics = new Metrics();
  let reads = 0;
  metrics.onCollect(() => metrics.gauge('weir_catalog_services').set(++reads));
  [...metrics.render()];
  assert.match([...metrics.render()].join(''), /weir_catalog_services 2\n/);
});

test('events are bounded, numbered, counted and handed to subscribers', () => {
  const metrics = new Metrics();
  const events = new Events(new FakeClock(), silentLog, metrics);
  let heard = 0;
  const unsubscribe = events.subscribe(() => heard++);
  for (let i = 0; i < 12_000; i++) events.emit('conflict', { i });
  unsubscribe();
  events.emit('source_live', { source: 'a' });
  assert.equal(heard, 12_000);
  assert.ok(events.recent(100_000).length <= 11_001);
  assert.deepEqual(events.recent(1)[0]?.details, { source: 'a' });
  assert.equal(events.recent(1)[0]?.id, 12_001);
  assert.equal(metrics.counter('weir_events_total', 'conflict').value, 12_000);
});

test('an audit line has the fields as they were given', () => {
  const lines: object[] = [];
  const log: Log = { ...silentLog, info: (fields) => void lines.push(fields) };
  new Audit(log).write({ what: 'put', registry: 'etcd', service: 'a/b', result: 'ok' });
  assert.deepEqual(lines, [{ audit: true, what: 'put', registry: 'etcd', service: 'a/b', result: 'ok' }]);
});

test('docs/operations.md lists every metric with its meaning', () => {
  const text = readFileSync(new URL('../../docs/operations.md', import.meta.url), 'utf8');
  const missing = Object.entries(METRICS).filter(([name, about]) => !text.includes(`\`${name}\``) || !text.includes(about.help));
  assert.deepEqual(
    missing.map(([name]) => name),
    [],
  );
});
