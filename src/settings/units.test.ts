// Durations, sizes, patterns, listen addresses, suggestions: the small pure parts of settings.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { configFaultText, didYouMean, hideUserInfo, pathText } from './config-fault.ts';
import { collide, isLocal, parseListen } from './listen-address.ts';
import { compilePattern, covers, patternFault } from './pattern.ts';
import { durationText, parseDuration, parseSize, sizeText } from './units.ts';

describe('durations and sizes', () => {
  it('are read with their units, and 0 without one', () => {
    const table = [
      ['250ms', 250],
      ['5s', 5_000],
      ['1.5s', 1_500],
      ['10m', 600_000],
      ['24h', 86_400_000],
      [0, 0],
    ] as const;
    for (const [text, ms] of table) assert.equal(parseDuration(text), ms);
    for (const [text, bytes] of [
      ['512B', 512],
      ['64KiB', 65_536],
      ['10MiB', 10_485_760],
      ['1GiB', 1_073_741_824],
    ] as const) {
      assert.equal(parseSize(text), bytes);
    }
  });

  it('are nothing without a unit, with another one, with a sign or with spaces', () => {
    for (const text of ['5', 5, '', 's', '-5s', '5 s', '5S', '5sec', '1e3s', '5d', '0x5s', '.5s', 'Infinitys'])
      assert.equal(parseDuration(text), null);
    for (const text of ['5', '5MB', '5kb', '1.5MiB', '5 MiB']) assert.equal(parseSize(text), null);
  });

  it('are printed so that reading gives the same', () => {
    fc.assert(fc.property(fc.integer({ min: 0, max: 900_000_000 }), (ms) => ms === 0 || parseDuration(durationText(ms)) === ms));
    fc.assert(fc.property(fc.integer({ min: 1, max: 900_000_000 }), (bytes) => parseSize(sizeText(bytes)) === bytes));
    assert.equal(durationText(90_000), '90s');
    assert.equal(sizeText(65_536), '64KiB');
  });
});

describe('patterns', () => {
  it('match like the regular expression with .* for each star', () => {
    const text = fc.stringMatching(/^[ab/]{0,8}$/);
    const pattern = fc.stringMatching(/^[ab/*]{1,6}$/);
    fc.assert(
      fc.property(pattern, text, (one, other) => {
        assert.equal(compilePattern(one)(other), new RegExp(`^${one.replaceAll('*', '.*')}$`).test(other));
      }),
      { numRuns: 5_000 },
    );
  });

  it('that cover another match everything the other matches', () => {
    const pattern = fc.stringMatching(/^[ab*]{1,5}$/);
    fc.assert(
      fc.property(pattern, pattern, fc.stringMatching(/^[ab]{0,7}$/), (wide, narrow, text) => {
        if (covers(wide, narrow) && compilePattern(narrow)(text))
          assert.ok(compilePattern(wide)(text), `${wide} ${narrow} ${text}`);
      }),
      { numRuns: 5_000 },
    );
  });

  it('take linear time where a backtracking match would not', () => {
    const before = performance.now();
    assert.equal(compilePattern(`${'a*'.repeat(200)}b`)('a'.repeat(100_000)), false);
    assert.ok(performance.now() - before < 200);
  });

  it('of another language are refused', () => {
    for (const bad of ['', 'a/[bc]', 'a/?', 'a/**', '{a,b}/c', '!a/b']) assert.notEqual(patternFault(bad), null, bad);
    for (const good of ['*', 'a/*', '*/b', 'a/*-x', 'a/b@@c:d']) assert.equal(patternFault(good), null, good);
  });
});

describe('listen addresses', () => {
  it('are an IP address and a port, localhost, or a unix socket', () => {
    assert.deepEqual(parseListen('127.0.0.1:7900'), { host: '127.0.0.1', port: 7_900 });
    assert.deepEqual(parseListen('localhost:0'), { host: '127.0.0.1', port: 0 });
    assert.deepEqual(parseListen('[::1]:80'), { host: '::1', port: 80 });
    assert.deepEqual(parseListen('unix:/run/w.sock'), { host: '', port: 0, path: '/run/w.sock' });
  });

  it('are nothing else', () => {
    for (const bad of [
      '',
      ':80',
      '80',
      '127.1:80',
      '::1:80',
      'example.org:80',
      '127.0.0.1',
      '127.0.0.1:65536',
      '127.0.0.1:-1',
      'unix:run',
      `unix:/${'x'.repeat(120)}`,
    ]) {
      assert.equal(parseListen(bad), null, bad);
    }
  });

  it('collide on the same port of one address or of a wildcard, and never on port 0', () => {
    const of = (text: string) => {
      const parsed = parseListen(text);
      assert.ok(parsed !== null);
      return parsed;
    };
    const table = [
      ['127.0.0.1:80', '127.0.0.1:80', true],
      ['127.0.0.1:80', '127.0.0.2:80', false],
      ['127.0.0.1:80', '0.0.0.0:80', true],
      ['[::]:80', '127.0.0.1:80', true],
      ['127.0.0.1:0', '127.0.0.1:0', false],
      ['unix:/a', 'unix:/a', true],
      ['unix:/a', '127.0.0.1:80', false],
    ] as const;
    for (const [a, b, expected] of table) assert.equal(collide(of(a), of(b)), expected, `${a} ${b}`);
    assert.deepEqual(
      ['127.0.0.9:1', '[::1]:1', 'unix:/a', '0.0.0.0:1', '10.0.0.1:1'].map((text) => isLocal(of(text))),
      [true, true, true, false, false],
    );
  });
});

describe('faults', () => {
  it('suggest the nearest known word, swaps counted once, and nothing for a far one', () => {
    const words = ['listen', 'tokens', 'interval', 'timeout'];
    assert.equal(didYouMean('listne', words), 'listen');
    assert.equal(didYouMean('Timeout', words), 'timeout');
    assert.equal(didYouMean('intervall', words), 'interval');
    assert.equal(didYouMean('zzz', words), null);
    assert.equal(didYouMean('', words), null);
  });

  it('print their place, path and hint', () => {
    const fault = { file: 'w.yaml', line: 3, col: 7, path: 'a.b', expected: 'x', got: 'y' };
    assert.equal(configFaultText(fault), 'w.yaml:3:7 a.b: expected x, got y');
    assert.equal(configFaultText({ ...fault, path: '', hint: 'do z' }), 'w.yaml:3:7 (file): expected x, got y (do z)');
    assert.equal(pathText(['a', 0, 'b c', 'd']), 'a[0]["b c"].d');
    assert.equal(hideUserInfo('http://u:p@h:1/x, https://q@h'), 'http://[hidden]@h:1/x, https://[hidden]@h');
  });
});
