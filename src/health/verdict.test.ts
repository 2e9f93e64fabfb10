// The table of M5.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { RegistryHealth } from '../model/instance.ts';
import { judge, type ProbeWord } from './verdict.ts';

const word = (kind: ProbeWord['kind'], verdict: ProbeWord['verdict'], failures = 0, reason = ''): ProbeWord => ({
  kind,
  verdict,
  failures,
  reason,
});

describe('M5', () => {
  const table: readonly (readonly [RegistryHealth, ProbeWord | null, string])[] = [
    ['healthy', null, 'healthy'],
    ['unhealthy', null, 'unhealthy'],
    ['unknown', null, 'unknown'],
    ['healthy', word('http', 'none'), 'healthy'],
    ['unhealthy', word('http', 'none'), 'unhealthy'],
    ['unknown', word('tcp', 'none'), 'unknown'],
    ['healthy', word('http', 'pass'), 'healthy'],
    ['unhealthy', word('http', 'pass'), 'healthy'],
    ['unknown', word('http', 'pass'), 'healthy'],
    ['unhealthy', word('grpc', 'pass'), 'healthy'],
    ['healthy', word('tcp', 'pass'), 'healthy'],
    ['unhealthy', word('tcp', 'pass'), 'unhealthy'],
    ['unknown', word('tcp', 'pass'), 'healthy'],
    ['healthy', word('http', 'fail', 3), 'unhealthy'],
    ['healthy', word('tcp', 'fail', 3), 'unhealthy'],
    ['healthy', word('grpc', 'fail', 3), 'unhealthy'],
    ['unknown', word('tcp', 'fail', 3), 'unhealthy'],
  ];
  for (const [registryHealth, probe, expected] of table) {
    const check = probe === null ? 'no check' : `${probe.kind} ${probe.verdict}`;
    it(`registries say ${registryHealth}, ${check}: ${expected}`, () => {
      assert.equal(judge({ isolated: false, registryHealth }, false, probe).verdict, expected);
    });
    it(`isolation by a registry or an operator wins over ${registryHealth} and ${check}`, () => {
      assert.equal(judge({ isolated: true, registryHealth }, false, probe).verdict, 'isolated');
      assert.equal(judge({ isolated: false, registryHealth }, true, probe).verdict, 'isolated');
    });
  }

  it('says why wherever it is more than the registries’ word', () => {
    const reason = (registryHealth: RegistryHealth, probe: ProbeWord | null) =>
      judge({ isolated: false, registryHealth }, false, probe).reason;
    assert.equal(reason('healthy', null), null);
    assert.equal(reason('healthy', word('http', 'fail', 3, 'status 503')), 'HTTP check failed 3 times in a row: status 503');
    assert.equal(reason('healthy', word('http', 'fail', 1, 'status 503')), 'HTTP check failed: status 503');
    assert.equal(reason('healthy', word('http', 'fail', 0)), 'HTTP check failed and has not recovered');
    assert.equal(reason('unhealthy', word('grpc', 'pass')), 'gRPC check passes');
    assert.equal(reason('unknown', word('tcp', 'pass')), 'no registry’s word counts; a TCP connect passes');
    assert.match(judge({ isolated: true, registryHealth: 'healthy' }, true, null).reason ?? '', /operator/);
  });

  it('a TCP check never makes anything better than what the registries say, unknown aside', () => {
    const health = fc.constantFrom<RegistryHealth>('healthy', 'unhealthy');
    const verdict = fc.constantFrom<ProbeWord['verdict']>('none', 'pass', 'fail');
    fc.assert(
      fc.property(health, verdict, (registryHealth, probe) => {
        const judged = judge({ isolated: false, registryHealth }, false, word('tcp', probe)).verdict;
        assert.ok(judged === registryHealth || judged === 'unhealthy');
      }),
    );
  });
});
