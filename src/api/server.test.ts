import assert from 'node:assert/strict';
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type FakeApi, fakeApi, viewInstance } from '../../test/support/api-fakes.ts';
import { eventually } from '../../test/support/eventually.ts';

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

/** Writes bytes, reads until the other side closes. */
function raw(address: string, bytes: string): Promise<string> {
  const { hostname, port } = new URL(address);
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname);
    let text = '';
    socket.setEncoding('utf8').on('data', (chunk) => {
      text += chunk;
    });
    socket.on('error', reject).on('close', () => resolve(text));
    socket.write(bytes);
  });
}

function call(
  address: string,
  method: string,
  path: string,
  headers: Record<string, string> = {},
  body?: string,
): Promise<Answer> {
  const target = address.startsWith('unix:')
    ? { socketPath: address.slice(5) }
    : { hostname: new URL(address).hostname, port: new URL(address).port };
  return new Promise((resolve, reject) => {
    const sent = request({ ...target, method, path, headers: { host: 'localhost', ...headers }, agent: false }, (answer) => {
      let text = '';
      answer.setEncoding('utf8').on('data', (chunk) => {
        text += chunk;
      });
      answer.on('end', () => resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body: text }));
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

const JSON_TYPE = { 'content-type': 'application/json' };

describe('row 37: admin hardening over a real socket', () => {
  let fake: FakeApi;
  let address = '';
  before(async () => {
    fake = await fakeApi({ tokens: { read: 'reader-token', write: 'writer-token' } });
    fake.catalog.put('game/lobby', [viewInstance('10.0.0.1', 80)]);
    address = await fake.api.listen();
  });
  after(() => fake.api.close());

  const write = { authorization: 'Bearer writer-token' };
  const attacks: readonly [string, number, () => Promise<Answer>][] = [
    ['no token', 401, () => call(address, 'GET', '/v1/services')],
    ['no token on an unknown path', 401, () => call(address, 'GET', '/nowhere')],
    ['a wrong token', 401, () => call(address, 'GET', '/v1/services', { authorization: 'Bearer x' })],
    [
      'a read token for a write',
      403,
      () => call(address, 'POST', '/v1/holds/release', { ...JSON_TYPE, authorization: 'Bearer reader-token' }, '{}'),
    ],
    ['a foreign Host', 403, () => call(address, 'GET', '/v1/services', { ...write, host: 'evil.example' })],
    [
      'a foreign Origin',
      403,
      () => call(address, 'POST', '/v1/holds/release', { ...write, ...JSON_TYPE, origin: 'http://evil.example' }, '{}'),
    ],
    ['a cross-site fetch', 403, () => call(address, 'GET', '/v1/services', { ...write, 'sec-fetch-site': 'cross-site' })],
    ['a foreign Host on a free probe', 403, () => call(address, 'GET', '/livez', { host: 'evil.example' })],
    ['a mutation by GET', 404, () => call(address, 'GET', '/v1/holds/release', write)],
    [
      'a mutation by a form',
      415,
      () => call(address, 'POST', '/v1/holds/release', { ...write, 'content-type': 'text/plain' }, '{}'),
    ],
    [
      'a preflight',
      405,
      () =>
        call(address, 'OPTIONS', '/v1/holds/release', {
          ...write,
          origin: 'http://evil',
          'access-control-request-method': 'POST',
        }),
    ],
    ['a traversal', 404, () => call(address, 'GET', '/../../etc/passwd', write)],
    ['an encoded traversal', 404, () => call(address, 'GET', '/v1/%2e%2e/%2e%2e/etc/passwd', write)],
    ['an encoded slash', 404, () => call(address, 'GET', '/..%2f..%2fetc%2fpasswd', write)],
    [
      'a body bomb',
      413,
      () => call(address, 'POST', '/v1/holds/release', { ...write, ...JSON_TYPE }, `"${'x'.repeat(1_048_576)}"`),
    ],
    ['a nesting bomb', 400, () => call(address, 'POST', '/v1/holds/release', { ...write, ...JSON_TYPE }, '['.repeat(100_000))],
    ['a body that is no JSON', 400, () => call(address, 'POST', '/v1/holds/release', { ...write, ...JSON_TYPE }, '{')],
    [
      'bytes that are no UTF-8',
      400,
      () =>
        call(
          address,
          'POST',
          '/v1/holds/release',
          { ...write, ...JSON_TYPE, 'content-length': '1' },
          Buffer.from([0xff]).toString('latin1'),
        ),
    ],
    [
      'a compressed body',
      415,
      () => call(address, 'POST', '/v1/holds/release', { ...write, ...JSON_TYPE, 'content-encoding': 'gzip' }, '{}'),
    ],
    [
      '__proto__ in a body',
      400,
      () => call(address, 'POST', '/v1/holds/release', { ...write, ...JSON_TYPE }, '{"__proto__":{"service":"a/b"}}'),
    ],
  ];

  for (const [what, status, attack] of attacks) {
    it(`refuses ${what} with ${status} in the shape of every error`, async () => {
      const answer = await attack();
      assert.equal(answer.status, status, answer.body);
      const { error } = JSON.parse(answer.body);
      assert.match(error.code, /^[A-Z_]+$/);
      assert.ok(error.message.length > 0);
      assert.equal(answer.headers['cache-control'], 'no-store');
      assert.equal(answer.headers['access-control-allow-origin'], undefined);
      assert.doesNotMatch(answer.body, /token-|node:|\bat \/|writer|reader/);
      assert.equal(fake.holds.released.length, 0);
    });
  }

  it('refuses a second Host, an absolute target and CONNECT', async () => {
    const auth = 'Authorization: Bearer writer-token\r\n';
    assert.match(
      await raw(address, `GET /v1/services HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n${auth}\r\n`),
      /^HTTP\/1\.1 400 /,
    );
    assert.match(
      await raw(address, `GET http://localhost/v1/services HTTP/1.1\r\nHost: localhost\r\n${auth}\r\n`),
      /^HTTP\/1\.1 400 /,
    );
    assert.match(await raw(address, `GET /v1/services HTTP/1.0\r\n${auth}\r\n`), /^HTTP\/1\.1 400 /);
    assert.doesNotMatch(await raw(address, 'CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n'), /^HTTP\/1\.1 2/);
  });

  it('answers broken HTTP and a head of 17 KiB in the same shape', async () => {
    assert.match(await raw(address, 'GARBAGE\r\n\r\n'), /^HTTP\/1\.1 400 [\s\S]*"code":"BAD_REQUEST"/);
    assert.match(
      await raw(address, `GET / HTTP/1.1\r\nHost: localhost\r\nX: ${'a'.repeat(17_000)}\r\n\r\n`),
      /^HTTP\/1\.1 431 [\s\S]*"code":"HEAD_TOO_LARGE"/,
    );
  });

  it('answers probes without a token, and the calls with one', async () => {
    assert.equal((await call(address, 'GET', '/livez')).status, 200);
    assert.equal((await call(address, 'GET', '/readyz')).status, 200);
    assert.equal((await call(address, 'GET', '/v1/services', { authorization: 'Bearer reader-token' })).status, 200);
    assert.equal((await call(address, 'POST', '/v1/holds/release', { ...write, ...JSON_TYPE }, '{}')).status, 200);
  });

  it('answers 429 with Retry-After after five wrong tokens', async () => {
    let last: Answer | null = null;
    for (let i = 0; i < 6; i++) last = await call(address, 'GET', '/v1/services', { authorization: `Bearer guess${i}` });
    assert.equal(last?.status, 429);
    assert.match(String(last?.headers['retry-after']), /^\d+$/);
  });
});

describe('the API’s server', () => {
  it('refuses to listen beyond this host without a token', async () => {
    await assert.rejects(fakeApi({ listen: { host: '0.0.0.0', port: 0 } }), { code: 'API_INSECURE' });
    await assert.rejects(fakeApi({ listen: { host: '::', port: 0 } }), { code: 'API_INSECURE' });
    await assert.rejects(fakeApi({ listen: { host: '10.1.2.3', port: 0 } }), { code: 'API_INSECURE' });
    for (const host of ['127.0.0.1', '::1', 'localhost', '127.9.9.9'])
      await (await fakeApi({ listen: { host, port: 0 } })).api.close();
    await (await fakeApi({ listen: { host: '0.0.0.0', port: 0 }, tokens: { read: null, write: 'w' } })).api.close();
  });

  it('says which address it cannot open', async () => {
    const first = await fakeApi();
    const port = Number(new URL(await first.api.listen()).port);
    const second = await fakeApi({ listen: { host: '127.0.0.1', port } });
    await assert.rejects(second.api.listen(), { code: 'LISTEN_FAILED', message: new RegExp(`127.0.0.1:${port}`) });
    await second.api.close();
    await first.api.close();
  });

  it('opens a unix socket of mode 0600, takes over a dead one, refuses a living one and a plain file, and removes it at its end', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'weir-api-'));
    const path = join(directory, 'api.sock');
    const fake = await fakeApi({ listen: { host: '', port: 0, path } });
    assert.equal(await fake.api.listen(), `unix:${path}`);
    assert.equal((await stat(path)).mode & 0o777, 0o600);
    assert.equal((await call(`unix:${path}`, 'GET', '/livez')).status, 200);
    const other = await fakeApi({ listen: { host: '', port: 0, path } });
    await assert.rejects(other.api.listen(), { code: 'LISTEN_FAILED', message: /living/ });
    await other.api.close();
    await fake.api.close();
    await assert.rejects(stat(path), { code: 'ENOENT' });
    await writeFile(path, 'mine');
    const third = await fakeApi({ listen: { host: '', port: 0, path } });
    await assert.rejects(third.api.listen(), { code: 'LISTEN_FAILED', message: /no socket/ });
    await third.api.close();
    await rm(directory, { recursive: true });
  });

  it('never tells why it failed inside, but logs it', async () => {
    const fake = await fakeApi();
    fake.catalog.put('a/b', []);
    fake.catalog.states = () => {
      throw new TypeError('secret words of a bug');
    };
    const answer = await fake.api.app.inject({ url: '/v1/services/a/b', headers: { host: 'localhost' } });
    assert.equal(answer.statusCode, 500);
    assert.deepEqual(Object.keys(answer.json().error), ['code', 'message']);
    assert.doesNotMatch(answer.body, /secret|TypeError|\.ts/);
    assert.match(fake.errors.join(), /secret words of a bug/);
    await fake.api.close();
  });

  it('closes within the grace while a reader waits, streams and keeps connections', async () => {
    const fake = await fakeApi();
    const at = fake.catalog.put('a/b', []);
    const address = await fake.api.listen();
    const waiting = call(address, 'GET', `/v1/services/a/b?index=${at}&wait=10m`);
    const watching = raw(address, 'GET /v1/watch HTTP/1.1\r\nHost: localhost\r\n\r\n');
    const idle = raw(address, '');
    // The waiter's tick, the sweep of sockets and the heartbeat: both readers are in.
    await eventually(() => fake.clock.pending === 3 && fake.catalog.used.length === 1);
    const closed = fake.api.close(1_000);
    assert.equal((await waiting).status, 200);
    assert.match(await watching, /^HTTP\/1\.1 200 [\s\S]*event: reset/);
    // A connection that never asked anything is the last to go: after the grace.
    await fake.clock.advance(1_001);
    await closed;
    assert.equal(await idle, '');
    assert.equal(fake.clock.pending, 0);
  });

  it('refuses the ninth request that is pipelined on one connection', async () => {
    const fake = await fakeApi();
    const at = fake.catalog.put('a/b', []);
    const address = await fake.api.listen();
    const one = `GET /v1/services/a/b?index=${at}&wait=10m HTTP/1.1\r\nHost: localhost\r\n\r\n`;
    const answers = raw(address, one.repeat(9));
    await eventually(() => fake.catalog.used.length === 8);
    fake.catalog.put('a/b', []);
    const text = await answers;
    assert.equal(text.match(/HTTP\/1\.1 200/g)?.length, 8);
    assert.equal(text.match(/HTTP\/1\.1 429/g)?.length, 1);
    await fake.api.close();
  });
});
