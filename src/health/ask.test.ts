// Thresholds: rise, fall, first success, definite failures, recovery, memory.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DEFAULT_HEALTH_CHECK, type HealthCheckKind } from '../model/policy.ts';
import { Ask, type AskMemory } from './ask.ts';
import { failed, PASS, targetOf } from './probe.ts';

function make(kind: HealthCheckKind = 'http', memory: AskMemory | null = null): Ask {
  const policy = { ...DEFAULT_HEALTH_CHECK, kind };
  const target = targetOf(policy, '', '10.0.0.1', 80);
  return new Ask({ service: 'a/b', target, policy, dial: () => null, pace: 2_000 }, memory, () => {});
}

/** P pass, F failure, D definite failure → verdicts after each. */
function run(ask: Ask, results: string): string {
  return [...results]
    .map((one, i) => {
      ask.apply(one === 'P' ? PASS : failed('x', one === 'D'), 1_000 + i);
      return { none: '-', pass: '+', fail: '!' }[ask.verdict];
    })
    .join('');
}

describe('thresholds', () => {
  const table = [
    ['P', '+', 'the first success ever makes it healthy at once'],
    ['FFF', '--!', 'three failures in a row make it unhealthy'],
    ['FFP', '--+', 'a first success before the third failure makes it healthy'],
    ['PFFPFF', '++++++', 'two failures in a row never do'],
    ['PFFF', '+++!', 'three in a row after a pass do'],
    ['PFFFP', '+++!!', 'one pass does not bring it back'],
    ['PFFFPP', '+++!!+', 'two in a row do'],
    ['PFFFPFP', '+++!!!!', 'two that are not in a row do not'],
    ['D', '!', 'an unexpected status makes it unhealthy at once'],
    ['PD', '+!', 'also after a pass'],
    ['PDPP', '+!!+', 'and it comes back by two passes'],
  ] as const;
  for (const [results, verdicts, claim] of table) {
    it(`${claim} (${results})`, () => assert.equal(run(make(), results), verdicts));
  }

  it('tells of the first result, of a changed verdict, and of the third failure in a row as evidence', () => {
    const ask = make();
    const told = [...'PPFFFFPP'].map((one) => ask.apply(one === 'P' ? PASS : failed('x'), 0));
    assert.deepEqual(told, [true, false, false, false, true, false, true, true]);
  });

  it('notes the wall time of a recovery for HTTP and gRPC, not for TCP, and only when failing becomes passing', () => {
    for (const [kind, expected] of [
      ['http', 1_005],
      ['grpc', 1_005],
      ['tcp', null],
    ] as const) {
      const ask = make(kind);
      run(ask, 'PFFF');
      assert.equal(ask.recoveredAt, null);
      const more = make(kind);
      run(more, 'PFFFPPP');
      assert.equal(more.recoveredAt, expected);
    }
  });

  it('remembers verdict and failures of an address that left and came back', () => {
    const gone = make();
    run(gone, 'PFFF');
    const back = make('http', gone.memory);
    assert.deepEqual([back.verdict, back.failures, back.answered], ['fail', 3, false]);
    assert.equal(run(back, 'PP'), '!+');
  });

  it('pardons failures that were our own fault, not a verdict that stood before', () => {
    const passing = make();
    run(passing, 'PFF');
    passing.pardon();
    assert.deepEqual([passing.failures, run(passing, 'FF')], [0, '++']);
    const failing = make();
    run(failing, 'FFF');
    failing.pardon();
    assert.deepEqual([failing.verdict, failing.failures], ['fail', 3]);
  });
});
