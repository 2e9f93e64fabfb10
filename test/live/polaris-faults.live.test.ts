// The polaris adapter on a real server under faults, judged at the catalog: nothing is wrongly removed, and all is well again without
// a restart of ours.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe } from 'node:test';
import { promisify } from 'node:util';
import type { ServiceKey } from '../../src/model/service.ts';
import { sampleInstance } from '../conformance/adapter.ts';
import { type PolarisServer, type StartPolarisOptions, startPolaris } from '../registries/polaris.ts';
import { eventually } from '../support/eventually.ts';
import { startFaultProxy } from '../support/fault-proxy.ts';
import { Bench, never, PLAIN, Raw } from './polaris-support.ts';
import { itPolaris } from './source-bench.ts';

type Defer = (end: () => unknown) => void;

const SERVICES: readonly ServiceKey[] = Array.from({ length: 5 }, (_, n) => ({ namespace: 'default', name: `svc-${n}` }));
const THREE = [sampleInstance(1), sampleInstance(2), sampleInstance(3)];

async function server(defer: Defer, options: StartPolarisOptions = {}): Promise<PolarisServer> {
  const started = await startPolaris(options);
  defer(() => started.stop());
  return started;
}

async function fill(grpc: string, token: string | null = null): Promise<void> {
  const raw = new Raw(grpc, token);
  try {
    for (const key of SERVICES) await raw.put(key, THREE);
  } finally {
    raw.close();
  }
}

function bench(defer: Defer, ...args: ConstructorParameters<typeof Bench>): Bench {
  const made = new Bench(...args);
  defer(() => made.close());
  return made;
}

async function complete(b: Bench, instances = 3, deadlineMs = 30_000): Promise<void> {
  await eventually(() => SERVICES.every((key) => b.view(key).length === instances), deadlineMs, 50);
}

/** A fourth instance of each service reaches the views: the source is heard again. */
async function heardAgain(b: Bench, grpc: string, token: string | null = null): Promise<void> {
  const raw = new Raw(grpc, token);
  try {
    await eventually(async () => {
      for (const key of SERVICES) await raw.put(key, [sampleInstance(4)]);
    }, 20_000);
    await complete(b, 4);
    assert.equal(b.supervisor.summary().state, 'live');
  } finally {
    raw.close();
  }
}

describe('polaris adapter under faults of a real server', () => {
  for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
    itPolaris(`${signal} and a restart remove nothing, and changes are heard again`, 120_000, async (defer) => {
      const polaris = await server(defer);
      await fill(polaris.grpc);
      const b = bench(defer, [polaris.grpc]);
      await complete(b);
      await polaris.kill(signal);
      await eventually(() => b.supervisor.summary().state === 'stale', 20_000);
      await complete(b);
      await polaris.restart();
      await heardAgain(b, polaris.grpc);
      assert.deepEqual(b.removed, []);
    });
  }

  itPolaris(
    'a wiped server (400202 for every service) removes nothing, and what registers again is taken',
    120_000,
    async (defer) => {
      const polaris = await server(defer);
      await fill(polaris.grpc);
      const b = bench(defer, [polaris.grpc]);
      await complete(b);
      await polaris.wipe();
      await eventually(() => SERVICES.every((key) => b.held(key) === 3), 30_000, 50);
      await complete(b);
      await fill(polaris.grpc);
      await eventually(() => SERVICES.every((key) => b.held(key) === 0), 30_000, 50);
      await heardAgain(b, polaris.grpc);
      assert.deepEqual(b.removed, []);
    },
  );

  itPolaris('older data after a restore removes nothing, and the epoch is another one', 120_000, async (defer) => {
    const polaris = await server(defer);
    await fill(polaris.grpc);
    await polaris.snapshotData();
    const raw = new Raw(polaris.grpc);
    defer(() => raw.close());
    const [key = SERVICES[0]] = SERVICES;
    const b = bench(defer, [polaris.grpc]);
    await complete(b);
    const before = await b.made.adapter.read(key ?? assert.fail(), never());
    await eventually(
      () =>
        raw.put(
          key ?? assert.fail(),
          [4, 5, 6, 7].map((n) => sampleInstance(n)),
        ),
      10_000,
    );
    await eventually(() => b.view(key ?? assert.fail()).length === 7, 20_000);
    await polaris.restoreData();
    await eventually(() => b.held(key ?? assert.fail()) === 4, 30_000, 50);
    const after = await b.made.adapter.read(key ?? assert.fail(), never());
    assert.equal(after.sourceRevision, before.sourceRevision);
    assert.notEqual(after.epoch, before.epoch);
    assert.deepEqual(b.removed, []);
  });

  itPolaris(
    'a frozen server is noticed by the answer timeout, removes nothing, and is heard again when it wakes',
    120_000,
    async (defer) => {
      const polaris = await server(defer);
      await fill(polaris.grpc);
      const b = bench(defer, [polaris.grpc]);
      await complete(b);
      await polaris.kill('SIGSTOP');
      const frozenAt = performance.now();
      await eventually(() => b.supervisor.summary().state === 'stale', 30_000, 50);
      assert.ok(performance.now() - frozenAt < 30_000);
      assert.match(b.lastError, /no (first )?answer within/);
      await complete(b);
      await polaris.kill('SIGCONT');
      await heardAgain(b, polaris.grpc);
      assert.deepEqual(b.removed, []);
    },
  );

  itPolaris('a half-open connection is noticed within 30 s and replaced', 120_000, async (defer) => {
    const polaris = await server(defer);
    await fill(polaris.grpc);
    const proxy = await startFaultProxy(polaris.grpc);
    defer(() => proxy.close());
    const b = bench(defer, [proxy.endpoint]);
    await complete(b);
    proxy.halfOpen();
    const raw = new Raw(polaris.grpc);
    defer(() => raw.close());
    for (const key of SERVICES) await raw.put(key, [sampleInstance(4)]);
    await complete(b, 4, 30_000);
    assert.deepEqual(b.removed, []);
  });

  itPolaris(
    'a watch that is reset every second, and a slow link that cuts everything in pieces, lose nothing',
    120_000,
    async (defer) => {
      const polaris = await server(defer);
      await fill(polaris.grpc);
      const proxy = await startFaultProxy(polaris.grpc);
      defer(() => proxy.close());
      const b = bench(defer, [proxy.endpoint]);
      await complete(b);
      for (let n = 0; n < 5; n++) {
        proxy.cut();
        await new Promise<void>((resolve) => setTimeout(resolve, 1_000));
      }
      Object.assign(proxy.link, { delayMs: 40, jitterMs: 40, sliceBytes: 300 });
      await heardAgain(b, polaris.grpc);
      assert.deepEqual(b.removed, []);
    },
  );

  itPolaris(
    'a wrong token is "denied" in words that hold no part of it, and a source with the right one goes on',
    120_000,
    async (defer) => {
      const polaris = await server(defer, { clientAuth: 'strict' });
      await fill(polaris.grpc, polaris.token);
      const good = { ...PLAIN, auth: { token: polaris.token } };
      const b = bench(defer, [polaris.grpc], good);
      await complete(b);
      const wrong = bench(defer, [polaris.grpc], { ...PLAIN, auth: { token: `${polaris.token.slice(0, 40)}wrong` } });
      await eventually(() => wrong.supervisor.summary().state === 'failed', 20_000);
      assert.equal(wrong.supervisor.summary().cause, 'denied');
      assert.match(wrong.lastError, /set auth\.token/);
      assert.ok(!wrong.lastError.includes(polaris.token.slice(0, 40)));
      const none = bench(defer, [polaris.grpc]);
      await eventually(() => /set auth\.token/.test(none.lastError), 20_000);
      await heardAgain(b, polaris.grpc, polaris.token);
      assert.deepEqual(b.removed, []);
    },
  );

  itPolaris('a token that is refused later makes the source stale and removes nothing', 120_000, async (defer) => {
    const polaris = await server(defer, { clientAuth: 'strict' });
    const token = polaris.token;
    await fill(polaris.grpc, token);
    const b = bench(defer, [polaris.grpc], { ...PLAIN, auth: { token } });
    await complete(b);
    const { users } = await polaris.console('GET', '/core/v1/users?limit=10&offset=0');
    const [user] = Object(users);
    await polaris.console('PUT', '/core/v1/user/token/refresh', { id: user.id });
    await eventually(() => b.supervisor.summary().cause === 'denied', 30_000, 50);
    await complete(b);
    assert.deepEqual(b.removed, []);
  });

  itPolaris('a wrong namespace, and servers of other kinds, are told in words', 120_000, async (defer) => {
    const polaris = await server(defer);
    await fill(polaris.grpc);
    const words = async (servers: readonly string[], config: object, claim: RegExp): Promise<void> => {
      const b = bench(defer, servers, { ...PLAIN, timeout: 3_000 }, config);
      await eventually(() => assert.match(b.lastError, claim), 30_000, 50);
      assert.deepEqual(b.removed, []);
    };
    await words([polaris.grpc], { namespace: 'Default' }, /namespace Default is unknown .* services in: Polaris, default/);
    await words([polaris.http], {}, /8091/);
    await words([polaris.l5], {}, /8091/);
    await words([polaris.nacos], {}, /8091/);
    const nacosGrpc = `127.0.0.1:${Number(polaris.nacos.split(':')[1]) + 1_000}`;
    await words([nacosGrpc], {}, /no Polaris|8091/);
    await words([`http://${polaris.nacos}`], {}, /8090/);
    await words(['127.0.0.1:1'], {}, /nothing listens there/);
    await words([`grpcs://${polaris.grpc}`], {}, /remove tls/);
  });

  itPolaris(
    'TLS where TLS is spoken works; plain text and a certificate of somebody else are told in words',
    120_000,
    async (defer) => {
      const folder = await mkdtemp(join(tmpdir(), 'weir-tls-'));
      defer(() => rm(folder, { recursive: true, force: true }));
      const [cert, key, other] = ['cert.pem', 'key.pem', 'other.pem'].map((name) => join(folder, name));
      for (const [certificate, keyFile] of [
        [cert, key],
        [other, join(folder, 'other-key.pem')],
      ]) {
        const subject = ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1'];
        const files = ['-keyout', keyFile ?? '', '-out', certificate ?? ''];
        await promisify(execFile)('openssl', [
          'req',
          '-x509',
          '-newkey',
          'rsa:2048',
          '-nodes',
          '-days',
          '2',
          ...subject,
          ...files,
        ]);
      }
      const polaris = await server(defer, { tls: { ca: cert ?? '', cert: cert ?? '', key: key ?? '' } });
      const client = { ca: cert ?? '', cert: cert ?? '', key: key ?? '' };
      const b = bench(defer, [polaris.grpc], { ...PLAIN, tls: client });
      await eventually(() => assert.equal(b.supervisor.summary().state, 'live', b.lastError), 20_000);
      const plain = bench(defer, [polaris.grpc], { ...PLAIN, timeout: 3_000 });
      await eventually(() => assert.match(plain.lastError, /set tls/), 30_000, 50);
      const untrusting = bench(defer, [polaris.grpc], { ...PLAIN, tls: { ...client, ca: other ?? '' } });
      await eventually(() => assert.match(untrusting.lastError, /not trusted: check tls\.ca/), 30_000, 50);
    },
  );
});
