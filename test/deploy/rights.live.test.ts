// Proves the least rights of docs/operations.md on real servers: the blocks of that page are taken from its text, given to the server, and are
// enough for what they promise and for nothing more.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { promisify } from 'node:util';
import type { Adapter, WriteMode, WriteReceipt } from '../../src/adapter/contract.ts';
import { adapterLoader } from '../../src/app/loader.ts';
import { systemClock } from '../../src/kernel/clock.ts';
import { silentLog } from '../../src/kernel/log.ts';
import { seededRandom } from '../../src/kernel/random.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { consulBinary, startConsul } from '../registries/consul.ts';
import { etcdBinary } from '../registries/etcd.ts';
import { polarisBinary, startPolaris } from '../registries/polaris.ts';
import { startEtcd } from '../registries/start.ts';
import { instance } from '../support/catalog-fixture.ts';
import { eventually } from '../support/eventually.ts';

const OWN: WriteMode = { as: 'own', ttl: 15_000, liveness: 'beat' };
const COPY: WriteMode = { as: 'copy', ttl: 15_000, liveness: 'persistent' };
const never = (): AbortSignal => new AbortController().signal;
const key = (name: string) => ({ namespace: 'default', name });

/** The code block that follows `<!-- rights:<what> … -->`. */
async function block(what: string): Promise<string> {
  const page = await readFile(join(import.meta.dirname, '../../docs/operations.md'), 'utf8');
  const found = new RegExp(`<!-- rights:${what} [^>]*-->\\n\`\`\`\\w+\\n([\\s\\S]*?)\`\`\``).exec(page)?.[1];
  assert.ok(found, `no block ${what}`);
  return found;
}

async function open(kind: string, config: object, auth: object): Promise<Adapter> {
  const factory = await adapterLoader().load(kind);
  assert.ok(factory);
  const deps = { sourceId: kind, clock: systemClock, random: seededRandom(3), dial: () => null, log: silentLog, count: () => {} };
  return factory.create(config, { auth, tls: null, timeout: 10_000, normalWeight: null }, deps);
}

async function listed(adapter: Adapter): Promise<readonly string[]> {
  const abort = new AbortController();
  try {
    for await (const { keys, complete } of adapter.services?.(abort.signal) ?? []) {
      assert.equal(complete, true, 'the whole list');
      return keys.map(({ name }) => name);
    }
  } finally {
    abort.abort();
  }
  return [];
}

async function addresses(adapter: Adapter, name: string): Promise<readonly string[]> {
  const abort = new AbortController();
  try {
    for await (const item of adapter.watch(key(name), abort.signal)) {
      if (item.kind === 'unchanged') continue;
      return item.kind === 'present' ? item.instances.map(({ host, port }) => `${host}:${port}`) : [];
    }
  } finally {
    abort.abort();
  }
  return [];
}

/** The receipt, or the refusal, whether it concerns this write or the call as a whole. */
async function written(adapter: Adapter, name: string, how: WriteMode): Promise<WriteReceipt | SourceError> {
  try {
    const answers = await adapter.put?.([{ key: key(name), instance: instance('192.0.2.7:80', { id: 'seven' }) }], how, never());
    assert.ok(answers?.[0]);
    return answers[0];
  } catch (thrown) {
    if (thrown instanceof SourceError) return thrown;
    throw thrown;
  }
}

/** Put, renew, remove: all of them allowed. */
async function mayWrite(adapter: Adapter, name: string, how: WriteMode): Promise<void> {
  const receipt = await written(adapter, name, how);
  assert.ok(!(receipt instanceof SourceError), `${name}: ${receipt instanceof SourceError ? receipt.message : ''}`);
  await eventually(async () => assert.ok((await addresses(adapter, name)).includes('192.0.2.7:80')), 10_000, 100);
  if (adapter.capabilities.heartbeat === 'core') {
    const renewed = (await adapter.renew?.([receipt], never()))?.[0];
    assert.ok(renewed !== undefined && 'kind' in renewed && renewed.kind === 'renewed');
  }
  assert.deepEqual(await adapter.remove?.([receipt], {}, never()), [true]);
}

async function mayNotWrite(adapter: Adapter, name: string, how: WriteMode): Promise<void> {
  const answer = await written(adapter, name, how);
  assert.ok(answer instanceof SourceError, `${name} was written`);
  assert.equal(answer.causeKind, 'denied', answer.message);
}

function needs(t: TestContext, what: string, { path, how }: { path: string | null; how: string }): boolean {
  if (path !== null) return true;
  if (process.env['CI'] !== undefined) assert.fail(`${what} is missing in CI: ${how}`);
  t.skip(`no ${what}: ${how}`);
  return false;
}

describe('least rights of docs/operations.md', () => {
  it('etcd: the read role reads the prefix and writes nothing; the other role registers below the prefix', {
    timeout: 60_000,
  }, async (t) => {
    if (!needs(t, 'etcd', await etcdBinary('3.6', true))) return;
    const server = await startEtcd({ version: '3.6', auth: { password: 'root-password' } });
    const ends: (() => unknown)[] = [() => server.stop()];
    try {
      const post = async (path: string, body: object, token = ''): Promise<Record<string, unknown>> => {
        const answer = await fetch(`http://${server.endpoint}/v3/${path}`, {
          method: 'POST',
          headers: token === '' ? {} : { authorization: token },
          body: JSON.stringify(body),
        });
        const text = await answer.text();
        assert.ok(answer.ok, `${path}: ${text}`);
        return JSON.parse(text);
      };
      const root = String((await post('auth/authenticate', { name: 'root', password: 'root-password' }))['token']);
      const base64 = (text: string): string => Buffer.from(text).toString('base64');
      const put = (at: string, value: string) => post('kv/put', { key: base64(at), value: base64(value) }, root);
      await put('/services/web/one', '{"Op":0,"Addr":"192.0.2.1:80"}');
      await put('/secret', 'x');
      for (const user of ['reader', 'writer']) await post('auth/user/add', { name: user, password: `${user}-password` }, root);
      for (const line of (await block('etcd')).split('\n')) {
        const add = /^etcdctl role add (\S+)$/.exec(line);
        const grant = /^etcdctl role grant-permission (\S+) --prefix=true (read|readwrite) (\S+)$/.exec(line);
        if (add !== null) await post('auth/role/add', { name: add[1] }, root);
        else if (grant !== null) {
          const prefix = Buffer.from(grant[3] ?? '');
          const end = Buffer.from(prefix);
          end[end.length - 1] = (end.at(-1) ?? 0) + 1;
          const perm = {
            permType: grant[2] === 'read' ? 'READ' : 'READWRITE',
            key: prefix.toString('base64'),
            range_end: end.toString('base64'),
          };
          await post('auth/role/grant', { name: grant[1], perm }, root);
        } else assert.match(line, /^(#.*|etcdctl user (add weir|grant-role weir weir-(read|register))|)$/);
      }
      await post('auth/user/grant', { user: 'reader', role: 'weir-read' }, root);
      await post('auth/user/grant', { user: 'writer', role: 'weir-register' }, root);
      const make = async (user: string, more: object = {}): Promise<Adapter> => {
        const config = { endpoints: [`http://${server.endpoint}`], layout: 'grpc', prefix: '/services/', ...more };
        const adapter = await open('etcd', config, { username: user, password: `${user}-password` });
        ends.push(() => adapter.close());
        return adapter;
      };
      const reader = await make('reader');
      assert.deepEqual(await listed(reader), ['web']);
      assert.deepEqual(await addresses(reader, 'web'), ['192.0.2.1:80']);
      await mayNotWrite(reader, 'shop', OWN);
      const writer = await make('writer');
      assert.deepEqual(await listed(writer), ['web']);
      await mayWrite(writer, 'shop', OWN);
      await mayWrite(writer, 'shop', { ...OWN, as: 'copy' });
      await mayNotWrite(await make('writer', { prefix: '/elsewhere/' }), 'shop', OWN);
    } finally {
      for (const end of ends.reverse()) await end();
    }
  });

  it('Consul: each policy is enough for what it names, and for nothing more', { timeout: 90_000 }, async (t) => {
    if (!needs(t, 'Consul', await consulBinary(true))) return;
    const root = '11111111-2222-3333-4444-555555555555';
    const server = await startConsul({ rootToken: root });
    const ends: (() => unknown)[] = [() => server.stop()];
    try {
      const call = async (path: string, body: object): Promise<Record<string, unknown>> => {
        const headers = { 'x-consul-token': root, 'content-type': 'application/json' };
        const answer = await fetch(`${server.address}/v1/${path}`, { method: 'PUT', headers, body: JSON.stringify(body) });
        const text = await answer.text();
        assert.ok(answer.ok, `${path}: ${text}`);
        return text === '' ? {} : JSON.parse(text);
      };
      await call('agent/service/register', { ID: 'one', Name: 'web', Address: '192.0.2.1', Port: 80 });
      for (const name of ['read', 'register', 'copies', 'state']) {
        await call('acl/policy', { Name: `weir-${name}`, Rules: await block(`consul-${name}`) });
      }
      const make = async (...policies: string[]): Promise<Adapter> => {
        const { SecretID } = await call('acl/token', { Policies: policies.map((name) => ({ Name: `weir-${name}` })) });
        const adapter = await open('consul', { address: server.address, owner: 'm1' }, { token: String(SecretID) });
        ends.push(() => adapter.close());
        return adapter;
      };
      const reader = await make('read');
      await eventually(async () => assert.deepEqual(await listed(reader), ['web']), 10_000, 100);
      assert.deepEqual(await addresses(reader, 'web'), ['192.0.2.1:80']);
      await mayNotWrite(reader, 'shop-cart', OWN);

      const registrar = await make('read', 'register');
      await mayWrite(registrar, 'shop-cart', OWN);
      await mayNotWrite(registrar, 'web', OWN);
      await mayNotWrite(registrar, 'shop-cart', COPY);

      await mayWrite(await make('read', 'copies'), 'web', COPY);

      const store = (await make('read', 'state')).stateStore?.();
      assert.ok(store);
      const lock = await store.lock('leader', 15_000, never());
      assert.ok(await store.cas('a', '1', null, never()));
      assert.equal((await store.get('a', never()))?.value, '1');
      await lock.release();
    } finally {
      for (const end of ends.reverse()) await end();
    }
  });

  it('Polaris: a user of its own reads everything and registers what is new; the strategy lets it into services of others', {
    timeout: 90_000,
  }, async (t) => {
    if (!needs(t, 'Polaris', await polarisBinary(true))) return;
    const server = await startPolaris({ clientAuth: 'strict' });
    const ends: (() => unknown)[] = [() => server.stop()];
    try {
      await server.console('POST', '/naming/v1/services', [{ name: 'web', namespace: 'default' }]);
      const lines = `${await block('polaris')}echo "user=$U"\n`.replace('P=http://127.0.0.1:8090', `P=http://${server.http}`);
      const env = { PATH: process.env['PATH'] ?? '', ADMIN_PASSWORD: 'polaris', WEIR_PASSWORD: 'weir-password' };
      const { stdout } = await promisify(execFile)('bash', ['-ceu', `T=; ${lines}`], { env });
      const [token = '', user = ''] = stdout.trim().split('\nuser=');
      assert.match(token, /^\S{40,}$/);
      const adapter = await open('polaris', { servers: [server.grpc], namespace: 'default' }, { token });
      ends.push(() => adapter.close());
      await eventually(async () => assert.deepEqual(await listed(adapter), ['web']), 20_000, 200);
      await mayNotWrite(adapter, 'web', OWN);
      await mayWrite(adapter, 'shop-cart', OWN);
      const strategy = (await block('polaris-register')).replace("'$U'", `'${user}'`);
      const post = `post() { curl -s -H "x-polaris-token: ${server.token}" -H 'content-type: application/json' "http://${server.http}$1" -d "$2"; }\n`;
      const made = await promisify(execFile)('bash', ['-ceu', post + strategy], { env });
      assert.match(made.stdout, /200000/);
      await eventually(() => mayWrite(adapter, 'web', OWN), 30_000, 500);
    } finally {
      for (const end of ends.reverse()) await end();
    }
  });
});
