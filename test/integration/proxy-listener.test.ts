// Listeners over real sockets: kinds and trust, changes while running, caps, the outbound policy, the access log, slow heads.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, renameSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import type { AccessLogSink } from '../../src/proxy/access-log.ts';
import { eventually } from '../support/eventually.ts';
import { MAIN_LISTENER, ProxyRig, RawClient, type RigOptions, request, SERVICE } from '../support/proxy-rig.ts';
import { hang, hello } from '../support/upstream-farm.ts';

let rig: ProxyRig;

async function restart(options: RigOptions = {}): Promise<void> {
  await rig?.close();
  rig = await new ProxyRig(options).open();
}

before(() => restart());
afterEach(() => restart());
after(() => rig.close());

const DEDICATED = { ...MAIN_LISTENER, id: 'own', service: 'demo/own' };
const INBOUND = { ...MAIN_LISTENER, id: 'in', service: SERVICE, direction: 'inbound' as const };

async function askOn(id: string, head: string) {
  const client = await rig.client(rig.plane.address(id)?.port ?? 0);
  client.write(head);
  const response = await client.response();
  client.destroy();
  return response;
}

test('a dedicated listener serves its service whatever the request says', async () => {
  const up = await rig.farm.add();
  rig.serve([up.port], {}, 'demo/own');
  await rig.plane.apply(rig.proxyUpdate({ listeners: [MAIN_LISTENER, DEDICATED] }));
  const response = await askOn('own', 'GET /svc/a/b HTTP/1.1\r\nHost: other.ns.weir\r\nx-weir-service: a/b\r\n\r\n');
  assert.equal(response.status, 200);
  assert.equal(up.seen[0]?.target, '/svc/a/b');
  assert.equal(up.seen[0]?.fields.has('x-weir-service'), false);
});

test('an inbound listener replaces what an untrusted peer says of itself', async () => {
  const up = await rig.farm.add();
  rig.serve([up.port]);
  await rig.plane.apply(rig.proxyUpdate({ listeners: [INBOUND] }));
  await askOn('in', request('GET', '/', 'X-Forwarded-For: 6.6.6.6', 'X-Forwarded-Proto: https', 'x-weir-identity: root'));
  const seen = up.seen[0]?.fields;
  assert.deepEqual([seen?.get('x-forwarded-for'), seen?.get('x-forwarded-proto')], [['127.0.0.1'], ['http']]);
  assert.equal(seen?.has('x-weir-identity'), false);
});

test('trust by trustedCidrs is taken over by open connections with their next request', async () => {
  const up = await rig.farm.add();
  rig.serve([up.port]);
  const listen = { host: '127.0.0.1', port: 0 };
  await rig.plane.apply(rig.proxyUpdate({ listeners: [{ ...INBOUND, listen }] }));
  const client = await rig.client(rig.plane.address('in')?.port);
  client.write(request('GET', '/', 'X-Forwarded-For: 6.6.6.6'));
  await client.response();
  await rig.plane.apply(rig.proxyUpdate({ listeners: [{ ...INBOUND, listen, trustedCidrs: ['127.0.0.0/8'] }] }));
  client.write(request('GET', '/', 'X-Forwarded-For: 6.6.6.6'));
  await client.response();
  assert.deepEqual(
    up.seen.map((seen) => seen.fields.get('x-forwarded-for')),
    [['127.0.0.1'], ['6.6.6.6, 127.0.0.1']],
  );
});

test('an unchanged listener keeps its port and connections; a removed one stops and lets its request end', async () => {
  const up = await rig.farm.add(hang);
  rig.serve([up.port]);
  rig.serve([up.port], {}, 'demo/own');
  await rig.plane.apply(rig.proxyUpdate({ listeners: [MAIN_LISTENER, DEDICATED] }));
  const { port } = rig;
  const kept = await rig.client();
  const leaving = await rig.client(rig.plane.address('own')?.port);
  const leavingPort = leaving.socket.remotePort ?? 0;
  leaving.write(request('GET', '/'));
  await eventually(() => assert.equal(up.seen.length, 1));
  await rig.plane.apply(rig.proxyUpdate({ extraMethods: ['PURGE'] }));
  assert.deepEqual([rig.port, rig.plane.address('own')], [port, null]);
  await eventually(() => assert.rejects(new RawClient(leavingPort).connected));
  up.sockets()[0]?.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
  const last = await leaving.response();
  assert.deepEqual([last.status, last.fields.get('connection')], [200, ['close']]);
  up.script = hello;
  kept.write(request('PURGE', '/'));
  assert.equal((await kept.response()).status, 200);
});

test('a port in use: a clear error, the old listeners stay, none of the new ones is left', async () => {
  const up = await rig.farm.add();
  rig.serve([up.port]);
  const taken = { ...DEDICATED, listen: { host: '127.0.0.1', port: up.port } };
  const free = { ...DEDICATED, id: 'free' };
  await assert.rejects(rig.plane.apply(rig.proxyUpdate({ listeners: [free, taken] })), {
    code: 'LISTEN_FAILED',
    message: `cannot listen on 127.0.0.1:${up.port}: the address is in use`,
  });
  assert.equal(rig.plane.address('free'), null);
  assert.equal((await rig.get()).status, 200);
});

test('a unix socket listens, and takes the place of one that a dead process left', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'weir-listen-'));
  t.after(() => rmSync(dir, { recursive: true }));
  const path = join(dir, 'proxy.sock');
  const stale = net.createServer();
  await new Promise<void>((resolve) => stale.listen(path, resolve));
  // A server unlinks its path when it closes; a dead one does not.
  const up = await rig.farm.add();
  rig.serve([up.port]);
  const update = rig.proxyUpdate({
    listeners: [MAIN_LISTENER, { ...MAIN_LISTENER, id: 'unix', listen: { host: '', port: 0, path } }],
  });
  await assert.rejects(rig.plane.apply(update), { code: 'LISTEN_FAILED' });
  renameSync(path, `${path}.kept`);
  stale.close();
  await eventually(() => assert.equal(stale.listening, false));
  renameSync(`${path}.kept`, path);
  await rig.plane.apply(update);
  const socket = net.connect({ path });
  socket.write(request('GET', '/'));
  const [chunk] = await new Promise<Buffer[]>((resolve) => socket.once('data', (data: Buffer) => resolve([data])));
  assert.match(String(chunk), /^HTTP\/1.1 200 /);
  assert.deepEqual(up.seen[0]?.fields.get('x-forwarded-for'), ['unknown']);
  socket.destroy();
});

test('an inherited descriptor is listened on: a hand-over keeps the port', async (t) => {
  const up = await rig.farm.add();
  const holder = net.createServer();
  await new Promise<void>((resolve) => holder.listen({ port: 0, host: '127.0.0.1' }, resolve));
  const handle: unknown = Reflect.get(holder, '_handle');
  const fd = typeof handle === 'object' && handle !== null ? Number(Reflect.get(handle, 'fd')) : -1;
  const address = holder.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const child = spawn(
    process.execPath,
    [new URL('../support/inherit-child.ts', import.meta.url).pathname, String(port), String(up.port)],
    {
      stdio: ['ignore', 'pipe', 'inherit', fd],
    },
  );
  t.after(() => child.kill());
  await new Promise<void>((resolve) => child.stdout?.once('data', () => resolve()));
  holder.close();
  const client = await rig.client(port);
  client.write(request('GET', '/'));
  assert.equal((await client.response()).body.toString(), 'hello');
});

test('an endpoint that is one of our own listeners is never connected to', async () => {
  const up = await rig.farm.add();
  rig.serve([rig.port]);
  const own = await rig.get();
  assert.deepEqual([own.status, own.fields.get('x-weir-error')], [502, ['UPSTREAM_CONNECT_FAILED']]);
  assert.ok(rig.metrics.counter('weir_addresses_refused_total', 'proxy', 'ownListener').value >= 1);
  await restart({ deps: { own: () => [{ host: '127.0.0.1', port: up.port }] } });
  rig.serve([up.port]);
  assert.equal((await rig.get()).status, 502);
});

test('a loop through another weir is seen by Via: 508', async () => {
  const other = await new ProxyRig({ proxy: { instanceId: 'other' } }).open();
  rig.serve([other.port]);
  other.serve([rig.port]);
  // The path names the service at each hop.
  const response = await rig.ask(`GET /svc/demo/hello/svc/demo/hello/svc/demo/hello/ HTTP/1.1\r\nHost: x\r\n\r\n`);
  assert.deepEqual([response.status, response.fields.get('x-weir-error')], [508, ['LOOP_DETECTED']]);
  await other.close();
});

const REFUSED_ADDRESSES = [
  '169.254.169.254',
  '0.0.0.0',
  '::',
  'fe80::1',
  '224.0.0.1',
  '255.255.255.255',
  '::ffff:169.254.169.254',
  '0177.0.0.1',
  '127.1',
];

for (const host of REFUSED_ADDRESSES) {
  test(`the outbound policy refuses ${host} at connect time`, async () => {
    rig.serve([{ host, port: 80 }]);
    const before = performance.now();
    const response = await rig.get();
    assert.deepEqual([response.status, response.fields.get('x-weir-error')], [502, ['UPSTREAM_CONNECT_FAILED']]);
    // Refused, not tried: the back-offs between the attempts are all that it takes.
    assert.ok(performance.now() - before < 2_500);
  });
}

test('a name is resolved, judged again and pinned: loopback only by a name that says so', async () => {
  const asked: string[] = [];
  await restart({
    deps: {
      resolve: (name, done) => {
        asked.push(name);
        if (name === 'meta.example') done(null, [{ address: '169.254.169.254', family: 4 }]);
        else if (name === 'gone.example') done(new Error('ENOTFOUND'), []);
        else done(null, [{ address: '127.0.0.1', family: 4 }]);
      },
    },
  });
  const up = await rig.farm.add();
  rig.serve([{ host: 'app.localhost', port: up.port }]);
  assert.equal((await rig.get()).status, 200);
  for (const host of ['rebound.example', 'meta.example', 'gone.example']) {
    rig.serve([{ host, port: up.port }]);
    assert.deepEqual((await rig.get()).fields.get('x-weir-error'), ['UPSTREAM_CONNECT_FAILED'], host);
  }
  assert.equal(up.seen.length, 1);
  assert.ok(asked.includes('rebound.example'));
});

test('first use of a name asks the catalog: a late answer serves, none within a second is 503, unknown is 404', async () => {
  const asked: string[] = [];
  await restart({ deps: { interest: { firstUse: (service) => void asked.push(service) } } });
  const up = await rig.farm.add();
  const waiting = rig.get();
  await eventually(() => assert.deepEqual(asked, [SERVICE]));
  rig.serve([up.port]);
  assert.equal((await waiting).status, 200);
  const before = performance.now();
  const late = await rig.ask('GET /svc/demo/late/ HTTP/1.1\r\nHost: x\r\n\r\n');
  assert.deepEqual(
    [late.status, late.fields.get('x-weir-error'), late.fields.get('retry-after')],
    [503, ['CATALOG_NOT_READY'], ['1']],
  );
  assert.ok(performance.now() - before >= 900);
  const gone = rig.ask('GET /svc/demo/gone/ HTTP/1.1\r\nHost: x\r\n\r\n');
  await eventually(() => assert.ok(asked.includes('demo/gone')));
  rig.plane.apply({ kind: 'absent', service: 'demo/gone', why: 'unknown' });
  assert.equal((await gone).status, 404);
});

test('a client that leaves while its request waits for the catalog is forgotten', async () => {
  await restart({ deps: { interest: { firstUse: () => {} } } });
  const client = await rig.client();
  client.write(request('GET', '/'));
  await eventually(() => assert.equal(rig.plane.counts().connections, 1));
  client.destroy();
  await eventually(() => assert.equal(rig.plane.counts().connections, 0));
  const up = await rig.farm.add();
  rig.serve([up.port]);
  assert.equal((await rig.get()).status, 200);
  assert.equal(up.seen.length, 1);
});

test('a service that goes away is 404, its series are removed; it comes back', async () => {
  const up = await rig.farm.add();
  rig.serve([up.port]);
  assert.equal((await rig.get()).status, 200);
  const series = rig.metrics.size;
  rig.plane.apply({ kind: 'absent', service: SERVICE, why: 'unknown' });
  assert.equal((await rig.get()).status, 404);
  assert.ok(rig.metrics.size < series);
  rig.serve([up.port]);
  assert.equal((await rig.get()).status, 200);
});

test('connections above the cap are cut, and room is given back', async () => {
  await restart({ deps: { maxConnections: 2 } });
  const up = await rig.farm.add();
  rig.serve([up.port]);
  const two = [await rig.client(), await rig.client()];
  await eventually(() => assert.equal(rig.plane.counts().connections, 2));
  const third = await rig.client();
  await third.waitClosed();
  two[0]?.destroy();
  await eventually(() => assert.equal(rig.plane.counts().connections, 1));
  assert.equal((await rig.get()).status, 200);
});

test('overload: 503 for new requests with Retry-After, Connection: close, and back to normal', async () => {
  let memory = 0;
  await restart({ deps: { sampler: () => ({ memory, fds: 0, loopDelay: 0 }) } });
  const up = await rig.farm.add();
  rig.serve([up.port]);
  memory = 0.93;
  await eventually(async () => assert.deepEqual((await rig.get()).fields.get('connection'), ['close']));
  memory = 0.96;
  await eventually(async () => {
    const response = await rig.get();
    assert.deepEqual(
      [response.status, response.fields.get('x-weir-error'), response.fields.get('retry-after')],
      [503, ['OVERLOADED'], ['1']],
    );
  });
  memory = 0.1;
  await eventually(async () => {
    const response = await rig.get();
    assert.deepEqual([response.status, response.fields.get('connection')], [200, undefined]);
  });
});

test('a slow head is answered 408; a silent connection is closed', async () => {
  await restart({ limits: { requestHeadersTimeoutMs: 150, idleTimeoutMs: 150 } });
  const slow = await rig.client();
  slow.write('GET / HT');
  const response = await slow.response();
  assert.deepEqual([response.status, response.fields.get('x-weir-error')], [408, ['BAD_REQUEST']]);
  const silent = await rig.client();
  await silent.waitClosed();
});

test('the access log tells of every request, also of cut and local ones', async () => {
  const lines: string[] = [];
  const sink: AccessLogSink = {
    write(batch, done) {
      lines.push(...batch.trimEnd().split('\n'));
      setImmediate(done, true);
    },
    reopen() {},
    close() {},
  };
  await restart({ deps: { openAccessLog: () => sink }, proxy: { accessLog: { to: { kind: 'stdout' } } } });
  const up = await rig.farm.add();
  rig.serve([up.port]);
  await rig.ask(request('POST', '/p?secret=1', 'X-Request-Id: one', 'Content-Length: 3'), 'abc');
  await rig.ask(request('GET', '/', 'X-Request-Id: two', 'Via: 1.1 weir-test'));
  up.script = hang;
  const client = await rig.client();
  client.write(request('GET', '/', 'X-Request-Id: three'));
  await eventually(() => assert.equal(up.seen.length, 2));
  client.destroy();
  await eventually(() => assert.equal(lines.length, 3));
  const records = lines.map((line) => {
    const { time, ms, ...rest } = JSON.parse(line);
    assert.ok(typeof ms === 'number' && !Number.isNaN(Date.parse(time)));
    return rest;
  });
  const upstream = `127.0.0.1:${up.port}`;
  assert.deepEqual(records, [
    {
      service: SERVICE,
      method: 'POST',
      path: '/p',
      status: 200,
      upstream,
      attempts: 1,
      error: '',
      bytesIn: 3,
      bytesOut: 5,
      requestId: 'one',
    },
    {
      service: '',
      method: 'GET',
      path: '/',
      status: 508,
      upstream: '',
      attempts: 0,
      error: 'LOOP_DETECTED',
      bytesIn: 0,
      bytesOut: 0,
      requestId: 'two',
    },
    {
      service: SERVICE,
      method: 'GET',
      path: '/',
      status: 0,
      upstream,
      attempts: 1,
      error: 'CLIENT_GONE',
      bytesIn: 0,
      bytesOut: 0,
      requestId: 'three',
    },
  ]);
});

test('requests are counted by service and class, local replies by code', async () => {
  const up = await rig.farm.add();
  rig.serve([up.port]);
  await rig.get();
  await rig.get();
  await rig.ask('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  await rig.ask('GET / HTTP/3.0\r\nHost: x\r\n\r\n');
  const text = [...rig.metrics.render()].join('');
  assert.match(text, /weir_requests_total\{service="demo\/hello",class="2xx"\} 2\n/);
  assert.match(text, /weir_request_duration_ms_count\{service="demo\/hello"\} 2\n/);
  assert.match(text, /weir_local_replies_total\{code="ROUTE_NOT_FOUND"\} 1\n/);
  assert.match(text, /weir_downstream_refused_total\{status="505"\} 1\n/);
  assert.match(text, /weir_requests_active 0\n/);
});
