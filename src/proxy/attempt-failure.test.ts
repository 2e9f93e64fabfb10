// The table of proxy-semantics §2, row by row.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OUTCOME_CONNECT_FAILURE, OUTCOME_IGNORED, OUTCOME_LOCAL_FAILURE } from '../cluster/pick-interface.ts';
import type { UpstreamFailure } from '../http1/exchange.ts';
import { meaningOf, outcomeOf } from './attempt-failure.ts';

type Row = readonly [UpstreamFailure['class'], UpstreamFailure['cause'], boolean, string, string, string | null, number];

const ROWS: readonly Row[] = [
  ['unsent', 'connect', true, 'connect', 'UPSTREAM_CONNECT_FAILED', 'connect', OUTCOME_CONNECT_FAILURE],
  ['unsent', 'connect', false, 'reset', 'UPSTREAM_CONNECT_FAILED', 'connect', OUTCOME_CONNECT_FAILURE],
  ['unsent', 'reset', true, 'connect', 'UPSTREAM_RESET', 'reset', OUTCOME_LOCAL_FAILURE],
  ['unsent', 'reset', false, 'reset', 'UPSTREAM_RESET', 'reset', OUTCOME_LOCAL_FAILURE],
  ['no-response', 'reset', true, 'reset', 'UPSTREAM_RESET', 'reset', OUTCOME_LOCAL_FAILURE],
  ['started', 'reset', true, 'final', 'UPSTREAM_RESET', 'reset', OUTCOME_LOCAL_FAILURE],
  ['started', 'protocol', true, 'reset', 'UPSTREAM_PROTOCOL', 'protocol', OUTCOME_LOCAL_FAILURE],
  ['no-response', 'protocol', true, 'reset', 'UPSTREAM_PROTOCOL', 'protocol', OUTCOME_LOCAL_FAILURE],
  ['unsent', 'overflow', true, 'final', 'UPSTREAM_OVERFLOW', null, OUTCOME_IGNORED],
  ['unsent', 'cancelled', true, 'connect', 'UPSTREAM_RESET', null, OUTCOME_IGNORED],
  ['no-response', 'cancelled', true, 'reset', 'UPSTREAM_RESET', null, OUTCOME_IGNORED],
];

for (const [kind, cause, replayable, end, code, counted, outcome] of ROWS) {
  test(`${kind} ${cause}${replayable ? '' : ' with its body gone'} is ${end}, ${code}, outcome ${outcome}`, () => {
    const failure: UpstreamFailure = { class: kind, cause, message: 'words', reused: false };
    assert.deepEqual(meaningOf(failure, replayable), { end, code, cause: counted, message: 'words' });
    assert.equal(outcomeOf(failure), outcome);
  });
}
