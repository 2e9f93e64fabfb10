// Keys of the source: what is taken, with which defaults, and what is refused in words.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { SourceOptions } from '../../src/adapter/contract.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { parseServer, resolveConfig } from './config.ts';
import { factory } from './index.ts';
import { testDeps } from './test-support.ts';

const PLAIN: SourceOptions = { auth: {}, tls: null, timeout: 1_000, normalWeight: null };

describe('polaris configuration', () => {
  it('defaults: namespace default, one second, weight 100; HTTP servers stand behind gRPC ones', () => {
    assert.deepEqual(resolveConfig({ servers: ['http://a.example', 'b.example:9091', '[2001:db8::1]'] }, PLAIN), {
      servers: [
        { kind: 'grpc', address: 'b.example:9091', tls: false },
        { kind: 'grpc', address: '[2001:db8::1]:8091', tls: false },
        { kind: 'http', address: 'a.example:8090', tls: false },
      ],
      namespace: 'default',
      pollMs: 1_000,
      normalWeight: 100,
    });
  });

  it('a star is every namespace, an interval is a duration', () => {
    const config = resolveConfig({ servers: ['a'], namespace: '*', pollInterval: '500ms' }, { ...PLAIN, normalWeight: 10 });
    assert.ok(typeof config !== 'string');
    assert.deepEqual([config.namespace, config.pollMs, config.normalWeight], ['', 500, 10]);
  });

  it('tls turns servers without a scheme to TLS, and contradicts grpc://', () => {
    assert.deepEqual(parseServer('a:1', true), { kind: 'grpc', address: 'a:1', tls: true });
    assert.deepEqual(parseServer('grpcs://a', false), { kind: 'grpc', address: 'a:8091', tls: true });
    assert.deepEqual(parseServer('https://a', false), { kind: 'http', address: 'a:8090', tls: true });
    assert.match(String(parseServer('grpc://a', true)), /says plain text but tls is set/);
  });

  it('what cannot work is refused in words that name the key', () => {
    for (const [config, options, claim] of [
      [{ servers: [] }, PLAIN, /servers/],
      [{}, PLAIN, /servers/],
      [{ servers: ['a:70000'] }, PLAIN, /port/],
      [{ servers: ['ftp://a'] }, PLAIN, /expected host:port/],
      [{ servers: ['a'], namespace: 'a/b' }, PLAIN, /namespace/],
      [{ servers: ['a'], pollInterval: '10ms' }, PLAIN, /pollInterval/],
      [{ servers: ['a'], pollInterval: 'soon' }, PLAIN, /pollInterval/],
      [{ servers: ['a'], port: 1 }, PLAIN, /configuration/],
      [{ servers: ['a'] }, { ...PLAIN, auth: { username: 'u', password: 'secret' } }, /set auth\.token/],
    ] as const) {
      const refused = String(resolveConfig(config, options));
      assert.match(refused, claim);
      assert.ok(!refused.includes('secret'));
    }
  });

  it('a source that cannot work says so at every call and connects nowhere', async () => {
    const adapter = factory.create({ servers: ['a:0'] }, PLAIN, testDeps(new FakeClock()));
    const signal = new AbortController().signal;
    const key = { namespace: 'default', name: 'x' };
    const refused = (thrown: unknown): boolean => thrown instanceof SourceError && thrown.causeKind === 'refused';
    await assert.rejects(adapter.read(key, signal), refused);
    await assert.rejects(async () => {
      for await (const _ of adapter.watch(key, signal)) assert.fail('an item');
    }, refused);
    await adapter.close();
  });
});
