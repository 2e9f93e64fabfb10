import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { policy } from '../../test/support/fake-cluster.ts';
import type { UpstreamFailure, UpstreamUser } from '../http1/exchange.ts';
import { TimerWheel } from '../kernel/timer-wheel.ts';
import { poolFactory } from './pool-factory.ts';

test("a pool is made for its endpoint, with the policy's cap on waiters counted as overflow", () => {
  let overflows = 0;
  const failures: UpstreamFailure[] = [];
  const make = poolFactory(new TimerWheel(new FakeClock()));
  const pool = make('127.0.0.1', 9, policy({ limits: { maxPendingRequests: 0 } }), () => overflows++);
  assert.deepEqual([pool.host, pool.port], ['127.0.0.1', 9]);
  const user: Pick<UpstreamUser, 'failed'> = { failed: (failure) => void failures.push(failure) };
  pool.acquire(user as UpstreamUser);
  assert.equal(overflows, 1);
  assert.equal(failures[0]?.cause, 'overflow');
  pool.close();
});
