// Every failure in words that tell what to change.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SourceError } from '../../src/model/snapshot.ts';
import { codeError, PolarisFailure, sourceError } from './errors.ts';

describe('polaris errors', () => {
  it('transport failures name what to change', () => {
    for (const [status, details, cause, words] of [
      [14, 'connect ECONNREFUSED 127.0.0.1:1', 'lost', /nothing listens there: check servers/],
      [14, 'Name resolution failed for target dns:nope', 'lost', /does not resolve/],
      [14, 'self-signed certificate', 'denied', /check tls\.ca/],
      [14, "Hostname/IP does not match certificate's altnames", 'denied', /tls\.serverName/],
      [14, 'tlsv13 alert certificate required', 'denied', /tls\.cert and tls\.key/],
      [14, 'routines:ssl3_get_record:wrong version number', 'lost', /remove tls/],
      [14, 'Protocol error', 'lost', /8091.*8090/],
      [14, 'read ECONNRESET', 'lost', /set tls/],
      [12, 'unknown service v1.PolarisGRPC', 'malformed', /no Polaris.*8091/],
      [8, 'Received message larger than max (60000000 vs 52428800)', 'limit', /50 MiB/],
      [4, 'no answer within 5000 ms', 'lost', /no answer in time/],
      [2, 'whatever', 'lost', /the call failed/],
    ] as const) {
      const error = sourceError(new PolarisFailure(status, details, 'h:1'));
      assert.equal(error.causeKind, cause, details);
      assert.match(error.message, words);
      assert.match(error.message, /^polaris h:1: /);
    }
  });

  it('what is a SourceError stays one, and what is none counts as lost', () => {
    const own = new SourceError('limit', 'x');
    assert.equal(sourceError(own), own);
    assert.equal(sourceError(new TypeError('a bug')).causeKind, 'lost');
  });

  it('codes of answers become causes; only throttling asks for a wait', () => {
    for (const [code, cause, words] of [
      [401_000, 'denied', /auth\.token/],
      [401_001, 'denied', /auth\.token/],
      [401_003, 'denied', /disabled/],
      [401_004, 'denied', /replaced/],
      [401_999, 'denied', /auth\.token/],
      [403_001, 'denied', /rights/],
      [400_401, 'denied', /client API/],
      [400_110, 'refused', /namespace/],
      [400_999, 'refused', /refused/],
      [500_001, 'lost', /fault/],
      [0, 'malformed', /means nothing/],
      [700_000, 'malformed', /means nothing/],
    ] as const) {
      const error = codeError(code, 'server says\u0000', 'h:1', 'service a/b');
      assert.equal(error.causeKind, cause, String(code));
      assert.match(error.message, words);
      assert.ok(error.message.includes(`${code}`) && !error.message.includes('\u0000'));
      assert.equal(error.retryAfterMs, undefined);
    }
    for (const code of [403_003, 429_001, 429_002]) {
      const error = codeError(code, '', 'h:1', 'service a/b');
      assert.deepEqual([error.causeKind, error.retryAfterMs], ['lost', 5_000]);
    }
  });
});
