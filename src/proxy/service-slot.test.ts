// The series of a service: made at first use, removed with it, not made again by a request that ends late.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { FakeCluster, FakePool } from '../../test/support/fake-exchange.ts';
import { TimerWheel } from '../kernel/timer-wheel.ts';
import { Metrics } from '../telemetry/metrics.ts';
import { failureCause, ServiceSlot } from './service-slot.ts';

function slotOf(metrics: Metrics): ServiceSlot {
  const pool = new FakePool({ host: '10.0.0.1', port: 1, wheel: new TimerWheel(new FakeClock()) });
  return new ServiceSlot(new FakeCluster(pool, {}), metrics);
}

test('requests are counted by class of status, local replies as error', () => {
  const metrics = new Metrics();
  const slot = slotOf(metrics);
  for (const status of [200, 204, 404, 503, 0, 101]) slot.answered(status, 1);
  slot.failed('reset');
  slot.failed('reset');
  const classes = ['1xx', '2xx', '3xx', '4xx', '5xx', 'error'].map(
    (name) => metrics.counter('weir_requests_total', 'demo/hello', name).value,
  );
  assert.deepEqual(classes, [1, 2, 0, 1, 1, 1]);
  assert.equal(metrics.histogram('weir_request_duration_ms', 'demo/hello').count, 6);
  assert.equal(metrics.counter('weir_upstream_failures_total', 'demo/hello', 'reset').value, 2);
});

test('after close no series of the service is left, and a late end makes none', () => {
  const metrics = new Metrics();
  const slot = slotOf(metrics);
  slot.answered(200, 1);
  slot.failed('connect');
  slot.close();
  slot.answered(404, 1);
  slot.failed('timeout');
  assert.equal(metrics.size, 0);
});

test('our own overflow and cancellation are no failures of the upstream', () => {
  assert.deepEqual((['connect', 'reset', 'protocol', 'overflow', 'cancelled'] as const).map(failureCause), [
    'connect',
    'reset',
    'protocol',
    null,
    null,
  ]);
});
