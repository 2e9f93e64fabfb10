import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  CONNECT_FAILURE,
  isBreakerFailure,
  isLocalOrigin,
  isProbeFailure,
  LOCAL_FAILURE,
  outlierStatus,
  TIMEOUT,
} from './outcome.ts';

test('every outcome is seen as its table says', () => {
  for (const [outcome, status, breaker, probe] of [
    [CONNECT_FAILURE, 503, true, true],
    [LOCAL_FAILURE, 500, true, true],
    [TIMEOUT, 504, true, true],
    [500, 500, false, false],
    [501, 501, false, false],
    [502, 502, true, true],
    [503, 503, true, true],
    [504, 504, true, true],
    [505, 505, false, false],
    [429, 429, false, true],
    [404, 404, false, false],
    [200, 200, false, false],
  ] as const) {
    assert.equal(outlierStatus(outcome), status, `outlier ${outcome}`);
    assert.equal(isBreakerFailure(outcome), breaker, `breaker ${outcome}`);
    assert.equal(isProbeFailure(outcome), probe, `probe ${outcome}`);
    assert.equal(isLocalOrigin(outcome), outcome < 0, `origin ${outcome}`);
  }
});
