import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Metrics } from '../telemetry/metrics.ts';
import { ClusterMetrics } from './cluster-metrics.ts';

test('a series exists from its first use on, a gauge not for a 0', () => {
  const metrics = new Metrics();
  const own = new ClusterMetrics(metrics, 'a/b');
  own.set('weir_lb_panic', 0);
  assert.equal(metrics.size, 0);
  own.set('weir_lb_panic', 1);
  own.count('weir_retries_total');
  own.count('weir_retries_total');
  own.countEjection('consecutive_5xx', 'enforced');
  own.countEjection('consecutive_5xx', 'overflow');
  assert.equal(metrics.size, 4);
  assert.equal(metrics.counter('weir_retries_total', 'a/b').value, 2);
  own.set('weir_lb_panic', 0);
  assert.equal(metrics.gauge('weir_lb_panic', 'a/b').value, 0);
});

test('removal takes its own series only, and later use begins anew', () => {
  const metrics = new Metrics();
  const own = new ClusterMetrics(metrics, 'a/b');
  new ClusterMetrics(metrics, 'a/c').count('weir_retries_total');
  own.count('weir_retries_total');
  own.set('weir_ejections_active', 3);
  own.remove();
  assert.equal(metrics.size, 1);
  own.count('weir_retries_total');
  assert.equal(metrics.counter('weir_retries_total', 'a/b').value, 1);
});

test('after the close nothing is counted any more', () => {
  const metrics = new Metrics();
  const own = new ClusterMetrics(metrics, 'a/b');
  own.close();
  own.count('weir_retries_total');
  own.set('weir_lb_panic', 1);
  own.countEjection('consecutive_5xx', 'enforced');
  assert.equal(metrics.size, 0);
});
