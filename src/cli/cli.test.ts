import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { conflict, type FakeApi, fakeApi, liveSource, viewInstance } from '../../test/support/api-fakes.ts';
import { eventually } from '../../test/support/eventually.ts';
import { collectingIo, runWeir } from '../../test/support/run-weir.ts';
import { runCli } from './program.ts';

describe('commands against a running sidecar', () => {
  let fake: FakeApi;
  let address = '';
  const weir = (...args: string[]) => runWeir(args, { WEIR_API: address, WEIR_TOKEN: 'w-token' });
  before(async () => {
    fake = await fakeApi({ tokens: { read: null, write: 'w-token' } });
    address = await fake.api.listen();
    fake.catalog.put(
      'game/lobby',
      [
        viewInstance('10.0.0.1', 80, { locality: { zone: 'a' }, metadata: new Map([['evil', 'a\u001b[2J']]) }),
        viewInstance('2001:db8::1', 81, { held: true }),
      ],
      ['healthy', 'unknown'],
    );
    fake.catalog.put('default/a/b', []);
  });
  after(() => fake.api.close());

  it('weir sources prints a table, and --json the answer as it came', async () => {
    fake.sources.push(
      liveSource({
        id: 'consul-sz',
        kind: 'consul',
        state: 'stale',
        ageMs: 90_000,
        cause: 'lost',
        message: 'connection refused',
      }),
    );
    const { code, out } = await weir('sources');
    assert.equal(code, 0);
    assert.match(out, /^SOURCE +KIND +STATE +AGE +SERVICES/);
    assert.match(out, /^consul-sz +consul +stale +90s .*lost: connection refused$/m);
    const json = JSON.parse((await weir('sources', '--json')).out);
    assert.equal(json.sources[1].capabilities.watch, 'push', 'fields that the table does not show are kept');
    fake.sources.pop();
  });

  it('weir services follows every page', async () => {
    for (let i = 0; i < 1_500; i++) fake.catalog.put(`many/s${i}`, []);
    const all = JSON.parse((await weir('services', '--json')).out);
    assert.equal(all.services.length, 1_502);
    const { out } = await weir('services', 'game/*');
    assert.match(out, /^game\/lobby +1 +2 +2 +local$/m);
    for (let i = 0; i < 1_500; i++) fake.catalog.remove(`many/s${i}`);
  });

  it('weir instances prints one line each, with flags, and escapes what a registry wrote', async () => {
    const { code, out } = await weir('instances', 'game/lobby');
    assert.equal(code, 0);
    assert.match(out, /^10\.0\.0\.1:80 +healthy +100 +a +local +evil=a\\u\{1b\}\[2J$/m);
    assert.match(out, /^\[2001:db8::1\]:81 +unknown +100 +local +held$/m);
    assert.match(out, /revision \d+ · local live 12ms/);
    assert.doesNotMatch((await weir('instances', 'game/lobby', '--healthy')).out, /2001/);
    assert.equal((await weir('instances', 'a/b')).code, 1, 'a slash in it makes the first part the namespace');
    assert.equal((await weir('instances', 'default/a/b')).code, 0, 'a name may hold a slash');
  });

  it('weir explain says why, and --steps every step', async () => {
    const { out } = await weir('explain', 'game/lobby');
    assert.match(out, /2 of 2 instances may be picked/);
    assert.match(out, /^10\.0\.0\.1:80 +yes +- +100 +healthy +no request has used the service yet$/m);
    assert.match((await weir('explain', 'game/lobby', '--steps')).out, /pass {2}isolated: nobody isolates it/);
  });

  it('an unknown service is exit 1 with the code', async () => {
    const { code, err } = await weir('instances', 'game/nobody');
    assert.equal(code, 1);
    assert.match(err, /^SERVICE_NOT_FOUND: /);
  });

  it('weir register asks for the check that was named, and says what a failing one does', async () => {
    const checks = [
      [['--check-tcp'], 'tcp', 'unhealthy'],
      [['--check-grpc'], 'grpc', 'unhealthy'],
      [['--check-grpc', 'game.Lobby', '--on-unhealthy', 'remove'], 'grpc', 'remove'],
    ] as const;
    for (const [args, kind, onUnhealthy] of checks) {
      const { code, err } = await weir('register', 'game/lobby', '10.0.0.5:8000', ...args);
      assert.equal(code, 0, err);
      const kept = fake.registrations.upserts.at(-1);
      assert.deepEqual([kept?.healthCheck?.kind, kept?.onUnhealthy], [kind, onUnhealthy]);
    }
    assert.equal(fake.registrations.upserts.at(-1)?.healthCheck?.grpcService, 'game.Lobby');
    assert.equal((await weir('deregister', 'game/lobby', '10.0.0.5:8000')).code, 0);
  });

  it('weir register and deregister go through the sidecar, id by address', async () => {
    const put = await weir(
      'register',
      'game/lobby',
      '[2001:db8::5]:8000',
      '--weight',
      '50',
      '--meta',
      'zone=a',
      '--meta',
      'k=v=w',
      '--to',
      'local',
      '--ttl',
      '20s',
      '--check-http',
      '/healthz',
    );
    assert.equal(put.code, 0, put.err);
    assert.match(put.out, /^game\/lobby \[2001:db8::5\]:8000 is kept as 2001_db8__5-8000$/m);
    assert.match(put.out, /^local +pending/m);
    const kept = fake.registrations.upserts.at(-1);
    assert.deepEqual(
      [kept?.weight, [...(kept?.metadata ?? [])], kept?.sources, kept?.ttl, kept?.healthCheck?.path],
      [
        50,
        [
          ['zone', 'a'],
          ['k', 'v=w'],
        ],
        ['local'],
        20_000,
        '/healthz',
      ],
    );
    const gone = await weir('deregister', 'game/lobby', '[2001:db8::5]:8000');
    assert.equal(gone.code, 0, gone.err);
    assert.equal(fake.registrations.kept.size, 0);
    assert.match((await weir('deregister', 'game/lobby', '[2001:db8::5]:8000')).err, /REGISTRATION_NOT_FOUND/);
    fake.registrations.refuse = conflict();
    const refused = await weir('register', 'game/lobby', '10.0.0.5:8000');
    assert.equal(refused.code, 1);
    assert.match(refused.err, /^REGISTRATION_CONFLICT: the address belongs to another owner$/m);
    fake.registrations.refuse = null;
  });

  it('weir isolate and release do what an operator wants', async () => {
    const { code, out } = await weir('isolate', 'game/lobby', '10.0.0.1:80', '--for', '1m');
    assert.equal(code, 0);
    assert.match(out, /^10\.0\.0\.1:80 of game\/lobby is isolated on this sidecar until \d{4}-/);
    assert.match((await weir('isolate', 'game/lobby', '10.0.0.1:80', '--end')).out, /isolated no more/);
    assert.match((await weir('isolate', 'game/lobby', '10.0.0.1:80', '--for', '25h')).err, /^BAD_REQUEST: body\.for/);
    fake.holds.all = [
      { service: 'game/lobby', source: 'local', kind: 'service', addresses: [], sinceMs: 1, confirmsInMs: null, missing: '' },
    ];
    assert.match((await weir('release', 'game/lobby', '--source', 'local')).out, /^1 held instance of game\/lobby released$/m);
  });

  it('weir watch prints changes until it is stopped', async () => {
    const { io, text, stop } = collectingIo({ WEIR_API: address, WEIR_TOKEN: 'w-token' });
    const done = runCli(['watch', 'game/*'], io, '1');
    await eventually(() => text.out.includes('game/lobby 1/2 healthy, 1 held'));
    fake.catalog.put('game/new', []);
    await eventually(() => /view +game\/new 0\/0 healthy, revision \d+/.test(text.out));
    fake.catalog.remove('game/new');
    await eventually(() => /removed +game\/new is gone/.test(text.out));
    stop.abort();
    assert.equal(await done, 0);
  });

  it('says which token is missing', async () => {
    const { code, err } = await runWeir(['services'], { WEIR_API: address });
    assert.equal(code, 1);
    assert.match(err, /^UNAUTHORIZED: [\s\S]*WEIR_TOKEN/);
  });

  it('--api wins over WEIR_API and takes host:port without a scheme', async () => {
    assert.equal(
      (
        await runWeir(['sources', '--api', address.replace('http://', '')], {
          WEIR_API: 'http://127.0.0.1:1',
          WEIR_TOKEN: 'w-token',
        })
      ).code,
      0,
    );
  });
});

describe('the command line', () => {
  it('talks over a unix socket', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'weir-cli-'));
    const path = join(directory, 'api.sock');
    const fake = await fakeApi({ listen: { host: '', port: 0, path } });
    await fake.api.listen();
    assert.equal((await runWeir(['sources'], { WEIR_API: `unix:${path}` })).code, 0);
    await fake.api.close();
    const gone = await runWeir(['sources'], { WEIR_API: `unix:${path}` });
    assert.equal(gone.code, 1);
    assert.match(
      gone.err,
      /^API_UNREACHABLE: no sidecar answers at unix:.* \(ENOENT\)\.\n {2}Is it running\? Start one with `weir run/,
    );
    await rm(directory, { recursive: true });
  });

  it('says what to try when no sidecar answers', async () => {
    const { code, err, out } = await runWeir(['services'], { WEIR_API: 'http://127.0.0.1:1' });
    assert.deepEqual([code, out], [1, '']);
    assert.match(err, /ECONNREFUSED[\s\S]*weir run -c weir\.yaml[\s\S]*WEIR_API/);
  });

  it('does not believe a server that is not weir', async () => {
    const server: Server = createServer((_request, response) => response.end('<html>'));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const { code, err } = await runWeir(['services'], { WEIR_API: `127.0.0.1:${port}` });
    assert.equal(code, 1);
    assert.match(err, /answered what weir does not/);
    server.closeAllConnections();
    server.close();
  });

  const usage: readonly (readonly string[])[] = [
    [],
    ['nothing'],
    ['instances'],
    ['instances', 'a/b', 'c'],
    ['sources', '--nothing'],
    ['services', '--api'],
    ['sources', '--api', 'ftp://x'],
    ['sources', '--api', 'http://x/path'],
    ['instances', '/x'],
    ['register', 'a/b', '10.0.0.1'],
    ['register', 'a/b', '10.0.0.1:0'],
    ['register', 'a/b', '10.0.0.1:80', '--weight', '-1'],
    ['register', 'a/b', '10.0.0.1:80', '--meta', 'novalue'],
    ['register', 'a/b', '10.0.0.1:80', '--to', ','],
    ['register', 'a/b', '10.0.0.1:80', '--check-tcp', '--check-http', '/'],
    ['register', 'a/b', '10.0.0.1:80', '--on-unhealthy', 'remove'],
    ['register', 'a/b', '10.0.0.1:80', '--check-tcp', '--on-unhealthy', 'drop'],
    ['deregister', 'a/b'],
    ['isolate', 'a/b', 'x'],
    ['migrate', 'plan'],
    ['migrate', 'plan', 'm1', '-f', '/nowhere/m.yaml'],
    ['migrate', 'shift', 'm1'],
    ['migrate', 'shift', 'm1', '--weight', '101'],
    ['migrate', 'forget', 'm1'],
    ['migrate', 'nothing', 'm1'],
    ['schema', '--out', 'x', '--check', 'y'],
    ['check', '-c', '/nowhere/weir.yaml'],
  ];
  for (const args of usage) {
    it(`weir ${args.join(' ')} is exit 2 with words`, async () => {
      const { code, err } = await runWeir(args, { WEIR_API: 'http://127.0.0.1:1' });
      assert.equal(code, 2, err);
      assert.ok(err.length > 10);
    });
  }

  it('prints help and version with exit 0', async () => {
    const help = await runWeir(['--help']);
    assert.equal(help.code, 0);
    for (const command of [
      'run',
      'demo',
      'check',
      'sources',
      'services',
      'instances',
      'explain',
      'watch',
      'register',
      'deregister',
      'isolate',
      'release',
      'schema',
      'migrate',
    ]) {
      assert.match(help.out, new RegExp(`^ +${command}\\b`, 'm'));
    }
    assert.deepEqual(await runWeir(['--version']), { code: 0, out: '1.2.3\n', err: '' });
  });
});
