import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { type Access, AccessJudge, type Tokens } from './access.ts';
import { LoginLimiter, peerKey } from './login-limiter.ts';

const BOTH: Tokens = { read: 'r-token', write: 'w-token' };

function judgeOf(tokens: Tokens, clock = new FakeClock()) {
  const judge = new AccessJudge(tokens, new LoginLimiter(clock));
  return (need: Access, field?: string, peer = '10.0.0.1') =>
    judge.judge(need, field === undefined ? [] : [field], peer)?.error.code ?? 'ok';
}

describe('tokens', () => {
  const table: readonly [Tokens, Access, string | undefined, string][] = [
    [{ read: null, write: null }, 'write', undefined, 'ok'],
    [BOTH, 'free', undefined, 'ok'],
    [BOTH, 'read', undefined, 'UNAUTHORIZED'],
    [BOTH, 'read', 'Bearer r-token', 'ok'],
    [BOTH, 'read', 'bearer  w-token', 'ok'],
    [BOTH, 'write', 'Bearer w-token', 'ok'],
    [BOTH, 'write', 'Bearer r-token', 'FORBIDDEN'],
    [BOTH, 'write', 'Bearer w-toke', 'UNAUTHORIZED'],
    [BOTH, 'write', 'Bearer w-token2', 'UNAUTHORIZED'],
    [BOTH, 'read', 'Bearer ', 'UNAUTHORIZED'],
    [BOTH, 'read', 'r-token', 'UNAUTHORIZED'],
    [BOTH, 'read', 'Basic r-token', 'UNAUTHORIZED'],
    [{ read: 'r', write: null }, 'write', 'Bearer r', 'FORBIDDEN'],
    [{ read: 'r', write: null }, 'read', 'Bearer r', 'ok'],
    [{ read: null, write: 'w' }, 'read', undefined, 'UNAUTHORIZED'],
    [{ read: null, write: 'w' }, 'read', 'Bearer w', 'ok'],
  ];
  for (const [tokens, need, field, expected] of table) {
    it(`read=${tokens.read} write=${tokens.write}: ${need} with ${field ?? 'nothing'} is ${expected}`, () => {
      assert.equal(judgeOf(tokens)(need, field), expected);
    });
  }

  it('are refused when two Authorization fields are sent', () => {
    const judge = new AccessJudge(BOTH, new LoginLimiter(new FakeClock()));
    assert.equal(judge.judge('read', ['Bearer r-token', 'Bearer r-token'], undefined)?.error.code, 'UNAUTHORIZED');
  });

  it('may be guessed five times, then once every 6 s, and the right one waits, too', async () => {
    const clock = new FakeClock();
    const ask = judgeOf(BOTH, clock);
    for (let i = 0; i < 5; i++) assert.equal(ask('read', 'Bearer guess'), 'UNAUTHORIZED');
    assert.equal(ask('read', 'Bearer guess'), 'TOO_MANY_REQUESTS');
    assert.equal(ask('read', 'Bearer r-token'), 'TOO_MANY_REQUESTS');
    assert.equal(ask('read', 'Bearer r-token', '10.0.0.2'), 'ok', 'another peer is not concerned');
    assert.equal(ask('free'), 'ok', 'nor are probes');
    await clock.advance(6_001);
    assert.equal(ask('read', 'Bearer r-token'), 'ok');
    assert.equal(ask('read', 'Bearer guess'), 'UNAUTHORIZED');
    assert.equal(ask('read', 'Bearer guess'), 'TOO_MANY_REQUESTS');
  });

  it('are not counted as guesses when none was sent', () => {
    const ask = judgeOf(BOTH);
    for (let i = 0; i < 20; i++) assert.equal(ask('read'), 'UNAUTHORIZED');
    assert.equal(ask('read', 'Bearer r-token'), 'ok');
  });
});

describe('the table of failed logins', () => {
  it('is bounded, and a full one neither frees a limited peer nor lets newcomers through unlimited', async () => {
    const clock = new FakeClock();
    const limiter = new LoginLimiter(clock, 10);
    for (let i = 0; i < 5; i++) limiter.failed('10.0.0.1');
    for (let i = 0; i < 100; i++) limiter.failed(`10.0.1.${i}`);
    assert.ok(limiter.size <= 11);
    assert.ok(limiter.waitMs('10.0.0.1') > 0);
    assert.ok(limiter.waitMs('10.9.9.9') > 0, 'newcomers share one entry');
    await clock.advance(3_600_000);
    limiter.failed('10.9.9.9');
    assert.equal(limiter.waitMs('10.9.9.9'), 0);
    assert.ok(limiter.size <= 10, 'refilled entries made room');
  });

  it('counts IPv6 by /64 and every unix socket as one', () => {
    assert.equal(peerKey('2001:db8:1:2:3::4'), peerKey('2001:db8:1:2:ffff::1'));
    assert.notEqual(peerKey('2001:db8:1:2::4'), peerKey('2001:db8:1:3::4'));
    assert.equal(peerKey('::ffff:10.0.0.1'), '10.0.0.1');
    assert.equal(peerKey('2001:db8::1'), '2001:db8:0:0::/64');
    assert.equal(peerKey(undefined), 'local');
  });
});
