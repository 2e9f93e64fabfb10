// Registration, locks, authentication, TLS and process exit on real etcd servers of both versions.
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe } from 'node:test';
import { promisify } from 'node:util';
import { prefixEnd } from '../../adapters/etcd/protocol.ts';
import type { SourceOptions, WriteMode, WriteReceipt } from '../../src/adapter/contract.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { startEtcd } from '../registries/start.ts';
import { instance, KEY } from '../support/etcd-bench.ts';
import { eventually } from '../support/eventually.ts';
import { Follower, itPerVersion, makeAdapter, never, PLAIN, Raw, value } from './etcd-support.ts';

const run = promisify(execFile);
const OWN: WriteMode = { as: 'own', ttl: 5_000, liveness: 'beat' };

/** A server and what has to be closed before it, in reverse order. */
async function withServer(
  options: Parameters<typeof startEtcd>[0],
  body: (server: Awaited<ReturnType<typeof startEtcd>>, defer: (end: () => unknown) => void) => Promise<void>,
): Promise<void> {
  const server = await startEtcd(options);
  const ends: (() => unknown)[] = [() => server.stop()];
  try {
    await body(server, (end) => ends.push(end));
  } finally {
    for (const end of ends.reverse()) await end();
  }
}

function receipt(result: WriteReceipt | SourceError | undefined): WriteReceipt {
  if (result === undefined || result instanceof Error) throw result ?? new Error('no answer');
  return result;
}

describe('registration and locks on real etcd servers', () => {
  itPerVersion('an upstream of APISIX gets our nodes beside the rest of it, which stays, its lease included', 60_000, (version) =>
    withServer({ version }, async (server, defer) => {
      const makers = [1, 2].map(() => makeAdapter([server.endpoint], PLAIN, { layout: 'apisix' }).adapter);
      for (const adapter of makers) defer(() => adapter.close());
      const raw = new Raw(server.endpoint);
      defer(() => raw.close());
      const key = Buffer.from('/apisix/upstreams/7');
      const given = { id: '7', name: 'svc', type: 'roundrobin', nodes: { '10.9.9.9:80': 1 }, update_time: 5 };
      const lease = await raw.grant(60);
      await raw.client.call('Put', { key, value: Buffer.from(JSON.stringify(given)), lease }, never());
      const ports = Array.from({ length: 8 }, (_, n) => 8_000 + n);
      // Two processes at once: whoever comes second reads again.
      const answers = await Promise.all(
        ports.map((port, n) => makers[n % 2]?.put?.([{ key: KEY, instance: instance(port) }], OWN, never())),
      );
      const receipts = answers.map((answer) => receipt(answer?.[0]));
      const stored = async () => (await raw.client.call('Range', { key }, never())).kvs[0];
      const after = await stored();
      const { nodes, update_time, ...rest } = JSON.parse(after?.value.toString() ?? '');
      const { nodes: _nodes, update_time: _time, ...others } = given;
      assert.deepEqual(rest, others);
      assert.ok(Math.abs(update_time - Date.now() / 1_000) < 60);
      assert.deepEqual(Object.keys(nodes).sort(), [...ports.map((port) => `10.0.0.1:${port}`), '10.9.9.9:80'].sort());
      assert.equal(after?.lease, lease);
      assert.ok((await makers[0]?.remove?.(receipts, {}, never()))?.every((result) => result === true));
      assert.deepEqual(JSON.parse((await stored())?.value.toString() ?? '').nodes, given.nodes);
    }),
  );

  itPerVersion('a renewed registration outlives its ttl and a restart of the server; an unrenewed one ends', 60_000, (version) =>
    withServer({ version }, async (server, defer) => {
      const { adapter } = makeAdapter([server.endpoint]);
      defer(() => adapter.close());
      const raw = new Raw(server.endpoint);
      defer(() => raw.close());
      const [made] = (await adapter.put?.([{ key: KEY, instance: instance(80) }], OWN, never())) ?? [];
      const kept = receipt(made);
      for (let beat = 0; beat < 4; beat++) {
        await new Promise((resolve) => setTimeout(resolve, 1_700));
        assert.deepEqual(await adapter.renew?.([kept], never()), [{ kind: 'renewed', leaseMs: 5_000 }]);
      }
      await server.kill('SIGKILL');
      await server.restart();
      await eventually(async () =>
        assert.deepEqual(await adapter.renew?.([kept], never()), [{ kind: 'renewed', leaseMs: 5_000 }]),
      );
      assert.equal((await raw.truth()).size, 1);
      await eventually(async () => (await raw.truth()).size === 0, 12_000, 200);
      assert.deepEqual(await adapter.renew?.([kept], never()), [{ kind: 'forgotten' }]);
    }),
  );

  itPerVersion('a fence stops the old leader once its lease is gone, in every kind of write', 60_000, (version) =>
    withServer({ version }, async (server, defer) => {
      const old = makeAdapter([server.endpoint]).adapter;
      defer(() => old.close());
      const raw = new Raw(server.endpoint);
      defer(() => raw.close());
      const lock = (await old.stateStore?.().lock('lead', 6_000, never())) ?? assert.fail('no lock');
      const fenced = { ...OWN, fence: lock.fence };
      const made = receipt((await old.put?.([{ key: KEY, instance: instance(80) }], fenced, never()))?.[0]);
      await raw.client.call('LeaseRevoke', { id: lock.fence.leaseId }, never());
      await raw.client.call('Put', { key: Buffer.from(lock.fence.key), value: Buffer.alloc(0) }, never());
      const writes = [
        { key: KEY, instance: instance(80, { weight: 7 }) },
        { key: KEY, instance: instance(81) },
      ];
      const results = [
        ...((await old.put?.(writes, fenced, never())) ?? []),
        (await old.remove?.([made], { fence: lock.fence }, never()))?.[0],
      ];
      assert.equal(results.length, 3);
      for (const result of results) assert.ok(result instanceof SourceError && result.causeKind === 'fenced', String(result));
      await eventually(() => lock.lost.aborted, 4_000);
    }),
  );

  itPerVersion('10 candidates hold a lock one after another, never two at once', 60_000, (version) =>
    withServer({ version }, async (server, defer) => {
      let holders = 0;
      let most = 0;
      let served = 0;
      const candidate = async (): Promise<void> => {
        const { adapter } = makeAdapter([server.endpoint]);
        defer(() => adapter.close());
        const lock = (await adapter.stateStore?.().lock('lead', 6_000, never())) ?? assert.fail('no lock');
        most = Math.max(most, ++holders);
        await new Promise((resolve) => setTimeout(resolve, 20));
        holders--;
        served++;
        await lock.release();
      };
      await Promise.all(Array.from({ length: 10 }, candidate));
      assert.deepEqual([served, most], [10, 1]);
    }),
  );
});

describe('authentication and TLS on real etcd servers', () => {
  const root: SourceOptions = { ...PLAIN, auth: { username: 'root', password: 'pass word' } };

  itPerVersion(
    'a user and password work over a restart that kills every token; a wrong or missing one is denied',
    60_000,
    (version) =>
      withServer({ version, auth: { password: 'pass word' } }, async (server, defer) => {
        const raw = new Raw(server.endpoint, root);
        defer(() => raw.close());
        await raw.put('svc', 'a', value(80, 1));
        const { adapter } = makeAdapter([server.endpoint], root);
        defer(() => adapter.close());
        const follower = new Follower(adapter, ['svc']);
        defer(() => follower.stop());
        await eventually(() => follower.state().size === 1);
        const made = receipt((await adapter.put?.([{ key: KEY, instance: instance(81) }], OWN, never()))?.[0]);
        await server.kill('SIGKILL');
        await server.restart();
        await eventually(async () =>
          assert.deepEqual(await adapter.renew?.([made], never()), [{ kind: 'renewed', leaseMs: 5_000 }]),
        );
        await eventually(() => raw.put('svc', 'b', value(82, 1)));
        await eventually(() => follower.state().size === 3);
        assert.ok(follower.losses.every(({ causeKind }) => causeKind === 'lost'));
        for (const [auth, hint] of [
          [{ username: 'root', password: 'wrong' }, /auth\.password/],
          [{}, /auth\.username/],
        ] as const) {
          const denied = makeAdapter([server.endpoint], { ...PLAIN, auth });
          defer(() => denied.adapter.close());
          await assert.rejects(denied.adapter.read(KEY, never()), (thrown) => {
            assert.ok(thrown instanceof SourceError);
            assert.equal(thrown.causeKind, 'denied');
            assert.match(thrown.message, hint);
            return true;
          });
        }
      }),
  );

  itPerVersion(
    'a user that may read everything and write some is told which services it may not write, and nothing is written',
    60_000,
    (version) =>
      withServer({ version, auth: { password: 'pass word' } }, async (server, defer) => {
        await addUser(server.endpoint, 'pass word');
        const raw = new Raw(server.endpoint, root);
        defer(() => raw.close());
        const { adapter } = makeAdapter([server.endpoint], { ...PLAIN, auth: { username: 'weir', password: 'weir' } });
        defer(() => adapter.close());
        const before = await raw.revision();
        const keys = ['mine', 'svc'].map((name) => ({ namespace: 'default', name }));
        const faults = (await adapter.mayWrite?.(keys, never())) ?? [];
        assert.deepEqual(
          faults.map(({ causeKind }) => causeKind),
          ['denied'],
        );
        assert.match(faults[0]?.message ?? '', /default\/svc may not be written.*"\/services\/svc\/".*permission denied/);
        assert.equal(await raw.revision(), before);
        // What the answer says is so.
        const put = async (name: string) =>
          (await adapter.put?.([{ key: { namespace: 'default', name }, instance: instance(81) }], OWN, never()))?.[0];
        receipt(await put('mine'));
        const refused = await put('svc');
        assert.ok(refused instanceof SourceError && refused.causeKind === 'denied', String(refused));
      }),
  );

  itPerVersion('TLS with client certificates works; every way to get it wrong says what to change', 60_000, async (version) => {
    const dir = await mkdtemp(join(tmpdir(), 'weir-tls-'));
    try {
      const files = await certificates(dir);
      await withServer({ version, tls: { ...files, clientCertAuth: true } }, async (server, defer) => {
        const tls = { ca: files.ca, cert: files.cert, key: files.key };
        const good = makeAdapter([server.endpoint], { ...PLAIN, tls });
        defer(() => good.adapter.close());
        assert.equal((await good.adapter.read(KEY, never())).kind, 'absent');
        const follower = new Follower(good.adapter, ['svc']);
        defer(() => follower.stop());
        await eventually(() => follower.complete);
        for (const [name, options, hint] of [
          ['no client certificate', { ...PLAIN, tls: { ca: files.ca } }, /tls\.cert|connection broke|dropped/i],
          ['an authority that did not sign it', { ...PLAIN, tls: { ...tls, ca: files.otherCa } }, /tls\.ca/],
          ['another name', { ...PLAIN, tls: { ...tls, serverName: 'other.example' } }, /tls\.serverName/],
          ['a file that is not there', { ...PLAIN, tls: { ...tls, ca: join(dir, 'missing') } }, /tls\.ca cannot be read/],
          ['plain text', PLAIN, /https:\/\//],
        ] as const) {
          const bad = makeAdapter([server.endpoint], options);
          defer(() => bad.adapter.close());
          await assert.rejects(bad.adapter.read(KEY, never()), (thrown) => {
            assert.ok(thrown instanceof SourceError);
            assert.match(thrown.message, hint, name);
            return true;
          });
        }
      });
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  });

  itPerVersion('TLS to a plain port says so', 30_000, (version) =>
    withServer({ version }, async (server, defer) => {
      const bad = makeAdapter([server.endpoint], { ...PLAIN, tls: {} });
      defer(() => bad.adapter.close());
      await assert.rejects(bad.adapter.read(KEY, never()), (thrown) => {
        assert.ok(thrown instanceof SourceError);
        assert.match(thrown.message, /http:\/\//);
        return true;
      });
    }),
  );
});

describe('a process with watches, leases and locks open', () => {
  for (const frozen of [false, true]) {
    itPerVersion(`ends by itself within 3 s of close()${frozen ? ', also when the server is frozen' : ''}`, 30_000, (version) =>
      withServer({ version }, async (server) => {
        const script = new URL('./etcd-process.ts', import.meta.url).pathname;
        const child = spawn(process.execPath, [script, server.endpoint], { stdio: ['pipe', 'pipe', 'inherit'] });
        const exit = new Promise((resolve) => child.once('exit', resolve));
        await new Promise((resolve) => child.stdout.once('data', resolve));
        if (frozen) await server.kill('SIGSTOP');
        const closing = performance.now();
        child.stdin.write('x');
        assert.equal(await exit, 0);
        assert.ok(performance.now() - closing < 3_000, 'it lingered after close()');
      }),
    );
  }
});

/** An authority, a certificate of it for 127.0.0.1 (server and client), and an authority that has nothing to do with them. */
async function certificates(dir: string): Promise<{ ca: string; cert: string; key: string; otherCa: string }> {
  const at = (name: string): string => join(dir, name);
  const openssl = (...args: string[]): Promise<unknown> => run('openssl', args, { cwd: dir });
  for (const name of ['ca', 'otherCa']) {
    await openssl(
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-days',
      '2',
      '-subj',
      `/CN=${name}`,
      '-keyout',
      `${name}.key`,
      '-out',
      `${name}.pem`,
    );
  }
  await openssl(
    'req',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-subj',
    '/CN=root',
    '-keyout',
    'node.key',
    '-out',
    'node.csr',
    '-addext',
    'subjectAltName=IP:127.0.0.1',
  );
  await openssl(
    'x509',
    '-req',
    '-in',
    'node.csr',
    '-CA',
    'ca.pem',
    '-CAkey',
    'ca.key',
    '-CAcreateserial',
    '-days',
    '2',
    '-copy_extensions',
    'copy',
    '-out',
    'node.pem',
  );
  return { ca: at('ca.pem'), cert: at('node.pem'), key: at('node.key'), otherCa: at('otherCa.pem') };
}

/** User `weir`, password `weir`: reads all services, writes one. By the JSON gateway: our own client knows no call that changes users. */
async function addUser(endpoint: string, rootPassword: string): Promise<void> {
  let token = '';
  const post = async (path: string, body: object): Promise<unknown> => {
    const headers = token === '' ? {} : { Authorization: token };
    const answer = await fetch(`http://${endpoint}/v3/auth/${path}`, { method: 'POST', body: JSON.stringify(body), headers });
    if (!answer.ok) throw new Error(`etcd auth ${path}: ${answer.status} ${await answer.text()}`);
    return answer.json();
  };
  const base64 = (text: string): string => Buffer.from(text).toString('base64');
  const grant = (permType: string, prefix: string): Promise<unknown> =>
    post('role/grant', {
      name: 'weir',
      perm: { permType, key: base64(prefix), range_end: prefixEnd(Buffer.from(prefix)).toString('base64') },
    });
  token = String(Object(await post('authenticate', { name: 'root', password: rootPassword })).token);
  await post('role/add', { name: 'weir' });
  await grant('READ', '/services/');
  await grant('READWRITE', '/services/mine/');
  await post('user/add', { name: 'weir', password: 'weir' });
  await post('user/grant', { user: 'weir', role: 'weir' });
}
