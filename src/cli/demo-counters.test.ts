import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DemoCounters } from './demo-counters.ts';

const UPSTREAMS = [
  { name: 'a', port: 1, alive: true },
  { name: 'b', port: 2, alive: false },
];

test('a line says the rate, who answered, retries, failures and who is out, and starts anew', () => {
  const counters = new DemoCounters(UPSTREAMS);
  for (let i = 0; i < 10; i++) counters.answered(200, 1, '127.0.0.1:1');
  counters.answered(200, 2, '127.0.0.1:1');
  counters.answered(503, 3, '127.0.0.1:2');
  counters.answered(0, 0, '');
  const service = { instances: [{ host: '127.0.0.1', port: 2, verdict: 'unknown', ejected: true }] };
  assert.equal(counters.line(service, 1_000), '13/s  answered by a 11  b† 1  retried 2  failed 2  [b ejected]');
  assert.equal(counters.line({ instances: [] }, 1_000), '0/s  answered by a 0  b† 0  retried 0  failed 0');
  assert.equal(counters.line('not what was expected', 1_000), '0/s  answered by a 0  b† 0  retried 0  failed 0');
});
