// Registrations of a real `weir run` in real registries: etcd, Consul, Polaris and Polaris' Nacos face (with WEIR_TEST_NACOS=<host:port>
// a Nacos, too). What stands in them is read by plain calls, never through our adapters. A missing server fails in CI and skips elsewhere.
import assert from 'node:assert/strict';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { FaultBench, HEAD } from '../faults/harness/bench.ts';
import type { WeirProcess } from '../faults/harness/weir-process.ts';
import { type ConsulServer, consulBinary, startConsul } from '../registries/consul.ts';
import { etcdBinary } from '../registries/etcd.ts';
import { type PolarisServer, polarisBinary, startPolaris } from '../registries/polaris.ts';
import { type EtcdServer, startEtcd } from '../registries/start.ts';
import { eventually } from '../support/eventually.ts';
import { assertFigure } from '../support/figure.ts';
import { runWeir } from '../support/run-weir.ts';
import {
  consulReader,
  etcdReader,
  type Glimpse,
  nacosReader,
  polarisReader,
  type Reader,
  type Seen,
  watcher,
} from './registration-support.ts';

const TOKEN = 'e95b599e-166e-7d80-08ad-aee76e7ddf19';
const WRONG = 'c5a1ab1e-0000-4000-8000-00000badc0de';
const NACOS = process.env['WEIR_TEST_NACOS'];
const TTL_MS = 5_000;
/** Of the registration that outlives restarts of weir: a slow start on a slow machine is no expiry. */
const LONG_TTL_MS = 10_000;
/** Polaris answers reads from a cache that is renewed every second; now and then a change shows after 6 s only (seen, 1.18.1). */
const CACHE_MS = 6_000;

interface TargetState {
  readonly state: string;
  readonly nativeId?: string;
  readonly error?: string;
}
interface Answer {
  readonly targets: Readonly<Record<string, TargetState>>;
  readonly error?: { readonly code: string; readonly message: string; readonly details: { readonly targets: object } };
}

const binaries = [await etcdBinary('3.6', true), await consulBinary(true), await polarisBinary(true)];
const missing = binaries.filter(({ path }) => path === null).map(({ how }) => how);
const skip = missing.length > 0 && process.env['CI'] === undefined ? `missing: ${missing.join(', ')}` : false;

describe('registrations in real registries', { skip }, () => {
  const bench = new FaultBench();
  let etcd: EtcdServer;
  let consul: ConsulServer;
  let polaris: PolarisServer;
  let weir: WeirProcess;
  /** Output of the processes that are over. */
  let said = '';
  let app: Server;
  let appPort = 0;
  let ill = false;
  /** By source id. */
  const readers = new Map<string, Reader>();
  /** Those whose records outlive the connection that made them. */
  const LEASED = ['etcd', 'consul', 'polaris'];

  before(async () => {
    assert.deepEqual(missing, [], 'servers are missing');
    [etcd, consul, polaris] = await Promise.all([
      startEtcd({ version: '3.6' }),
      startConsul({ data: true, rootToken: TOKEN }),
      startPolaris(),
    ]);
    for (const server of [etcd, consul, polaris]) bench.defer(() => server.stop());
    readers.set('etcd', etcdReader(etcd.endpoint));
    readers.set('consul', consulReader(consul.address, TOKEN));
    readers.set('polaris', polarisReader(polaris.http));
    readers.set('face', nacosReader(polaris.nacos));
    if (NACOS !== undefined) readers.set('nacos', nacosReader(NACOS));
    app = createServer((_, response) => response.writeHead(ill ? 500 : 200).end());
    await new Promise<void>((resolve) => app.listen(0, '127.0.0.1', resolve));
    bench.defer(() => app.close());
    const address: AddressInfo | string | null = app.address();
    appPort = typeof address === 'object' ? (address?.port ?? 0) : 0;
    weir = await bench.weir(configured());
  });
  after(() => bench.close());

  /** Writes weir.yaml; more lines after the sources. */
  function configured(more = '', timeout = '2s'): string {
    return bench.write(
      'weir.yaml',
      `${HEAD}state: {dir: ${bench.path('state')}}
sources:
  - {id: etcd, kind: etcd, endpoints: ["http://${etcd.endpoint}"], layout: grpc, prefix: /services/, allowLoopback: true, register: true, timeout: ${timeout}}
  - {id: consul, kind: consul, address: "${consul.address}", auth: {token: ${TOKEN}}, allowLoopback: true, register: true, timeout: ${timeout}}
  - {id: denied, kind: consul, address: "${consul.address}", auth: {token: ${WRONG}}, allowLoopback: true}
  - {id: polaris, kind: polaris, servers: ["${polaris.grpc}"], namespace: default, allowLoopback: true, register: true, timeout: ${timeout}}
  - {id: face, kind: nacos, servers: ["${polaris.nacos}"], allowLoopback: true, register: true, timeout: ${timeout}}
  - {id: cl5, kind: l5, servers: ["${polaris.l5}"], allowLoopback: true}
${NACOS === undefined ? '' : `  - {id: nacos, kind: nacos, servers: ["${NACOS}"], allowLoopback: true, register: true}\n`}services:
  - {match: "default/*", names: {face: "n-{name}"}}
${more}`,
    );
  }

  /** What a registry has of `default/<name>`. */
  async function there(source: string, name: string): Promise<readonly Seen[]> {
    const read = readers.get(source) ?? assert.fail(`no reader of ${source}`);
    return read(source === 'face' ? `n-${name}` : name);
  }

  /** Waits until every one of these registries shows what `claim` wants; ms by source. */
  async function everywhere(
    name: string,
    claim: (seen: readonly Seen[], source: string) => void,
    sources: readonly string[] = [...readers.keys()],
    within = 20_000,
  ): Promise<ReadonlyMap<string, number>> {
    const from = performance.now();
    const took = new Map<string, number>();
    await Promise.all(
      sources.map(async (source) => {
        await eventually(async () => claim(await there(source, name), source), within, 50);
        took.set(source, performance.now() - from);
      }),
    );
    return took;
  }

  function gone(seen: readonly Seen[], source: string): void {
    assert.deepEqual(seen, [], source);
  }

  function serving(...ports: readonly number[]) {
    const wanted = ports.map((port) => `127.0.0.1:${port} true`).sort();
    return (seen: readonly Seen[], source: string): void =>
      assert.deepEqual(seen.map((one) => `${one.address} ${one.serving}`).sort(), wanted, source);
  }

  async function put(name: string, id: string, body: object): Promise<Answer & { readonly status: number }> {
    const path = name.includes('/') ? name : `default/${name}`;
    const full = { host: '127.0.0.1', ttl: `${TTL_MS}ms`, ...body };
    const answer = await weir.send('PUT', `/v1/registrations/${path}/${id}`, full);
    const value: Answer = JSON.parse(await answer.text());
    return { ...value, status: answer.status };
  }

  function states({ targets }: Answer): Record<string, string> {
    return Object.fromEntries(Object.entries(targets).map(([source, { state }]) => [source, state]));
  }

  const allLive = (): Record<string, string> => Object.fromEntries([...readers.keys()].map((source) => [source, 'live']));

  /** Another life of the process on the same state. */
  async function again(more = ''): Promise<void> {
    said += weir.output();
    weir = await bench.weir(configured(more));
  }

  /** Another weir.yaml, taken by the running process. */
  async function reloaded(more = '', timeout = '2s'): Promise<void> {
    const done = await weir.metric('weir_config_reloads_total', 'ok');
    configured(more, timeout);
    weir.signal('SIGHUP');
    await eventually(async () => assert.ok((await weir.metric('weir_config_reloads_total', 'ok')) > done), 5_000, 25);
  }

  function audited(): readonly Readonly<Record<string, unknown>>[] {
    return `${said}${weir.output()}`
      .split('\n')
      .filter((line) => line.includes('"audit":true'))
      .map((line) => JSON.parse(line));
  }

  it('register once, appear everywhere: one command, one record in each registry, and the same command again writes nothing', {
    timeout: 30_000,
  }, async (t) => {
    const words = ['register', 'default/one', '127.0.0.1:8000', '--id', 'one-1', '--weight', '200', '--ttl', '10s', '--json'];
    const { code, out, err } = await runWeir([...words, '--api', weir.api]);
    assert.equal(code, 0, err);
    const answer: Answer = JSON.parse(out);
    assert.deepEqual(states(answer), allLive());
    const took = await everywhere('one', serving(8000));
    for (const [source, ms] of took)
      assertFigure(t, `seen by plain calls in ${source}`, ms, (isCached(source) ? CACHE_MS : 0) + 500, 'ms');
    // 200 is twice the normal weight: 2 where that is 1.
    for (const source of readers.keys()) assert.equal((await there(source, 'one'))[0]?.weight, nativeWeight(source, 200), source);
    const stamps = async (): Promise<string> =>
      JSON.stringify(await Promise.all([...readers.keys()].map((source) => there(source, 'one'))));
    const first = await stamps();
    assert.equal((await runWeir([...words, '--api', weir.api])).code, 0);
    assert.equal(await stamps(), first);
    // The log is buffered for half a second.
    await eventually(() => {
      const puts = audited().filter(({ what, service }) => what === 'put' && String(service).endsWith('one'));
      assert.deepEqual(puts.map(({ registry }) => registry).sort(), [...readers.keys()].sort());
    });
  });

  it('bad input is refused with a reason for each target, before anything is written', { timeout: 20_000 }, async () => {
    const writes = await weir.metric('weir_registry_writes_total');
    const mixed = await put('bad', 'b1', { port: 8001, sources: ['etcd', 'cl5', 'nowhere'] });
    assert.deepEqual([mixed.status, mixed.error?.code], [400, 'REGISTRATION_TARGET']);
    assert.deepEqual(mixed.error?.details.targets, {
      cl5: 'source cl5 takes no registrations',
      nowhere: 'there is no source nowhere',
    });
    const unknown = await put('bad', 'b1', { port: 8001, sources: ['nowhere'] });
    assert.deepEqual([unknown.status, unknown.error?.code], [404, 'SOURCE_NOT_FOUND']);
    // Neither etcd (this layout) nor Consul nor Nacos have a place for another namespace than their source's.
    const unmapped = await put('game/bad', 'b1', { port: 8001 });
    assert.deepEqual([unmapped.status, unmapped.error?.code], [400, 'REGISTRATION_TARGET'], JSON.stringify(unmapped.error));
    const reasons = Object.entries(unmapped.error?.details.targets ?? {});
    for (const source of ['etcd', 'consul', 'face']) {
      const [, reason] = reasons.find(([id]) => id === source) ?? assert.fail(`no reason for ${source}`);
      assert.match(String(reason), /game\/bad has no name in source/);
    }
    const body = await put('bad', 'b1', { port: 0, ttl: '1s', weight: -1 });
    assert.deepEqual([body.status, body.error?.code], [400, 'BAD_REQUEST']);
    await everywhere('bad', gone);
    assert.deepEqual(await readers.get('polaris')?.('bad'), []);
    assert.equal(await weir.metric('weir_registry_writes_total'), writes, 'nothing was written');
    const list: { registrations: readonly { id: string }[] } = await weir.get('/v1/registrations');
    assert.deepEqual(
      list.registrations.map(({ id }) => id),
      ['one-1'],
    );
  });

  it('a failing check drains or removes in every registry within its period, a passing one brings back', {
    timeout: 40_000,
  }, async (t) => {
    const check = { http: { path: '/healthz' }, interval: '200ms', timeout: '200ms', healthyThreshold: 2, unhealthyThreshold: 2 };
    const one = await put('drained', 'd1', { port: appPort, healthCheck: check });
    const two = await put('removed', 'r1', { port: appPort, healthCheck: check, onUnhealthy: 'remove' });
    assert.deepEqual([one.status, two.status], [200, 200]);
    await Promise.all([everywhere('drained', serving(appPort)), everywhere('removed', serving(appPort))]);
    /** Two checks and the waits between them, and one call. */
    const period = 2 * (200 + 200) + 500;
    const limit = (source: string): number => period + (isCached(source) ? CACHE_MS : 0);
    ill = true;
    const drained = everywhere('drained', (seen, source) =>
      assert.deepEqual(
        seen.filter((one) => one.serving),
        [],
        source,
      ),
    );
    const removed = everywhere('removed', gone);
    for (const [source, ms] of await drained) assertFigure(t, `drained in ${source}`, ms, limit(source), 'ms');
    for (const [source, ms] of await removed) assertFigure(t, `removed from ${source}`, ms, limit(source), 'ms');
    for (const source of readers.keys())
      assert.equal((await there(source, 'drained')).length, 1, `${source}: drained is not removed`);
    // A beat means "alive" in each of them: neither the beats nor a new process may turn it healthy.
    // Polaris' face alone calls every record of a living connection healthy by itself (its own checker, every few seconds).
    const keepers = [...readers.keys()].filter((source) => source !== 'face');
    const watchers = keepers.map((source) => ({ source, watch: watcher((name) => there(source, name), 'drained') }));
    await passed(TTL_MS / 2);
    await weir.kill();
    await again();
    await passed(TTL_MS / 2);
    for (const { source, watch } of watchers) {
      const glimpses = await watch.stop();
      assert.ok(!glimpses.some(({ seen }) => seen.some((one) => one.serving)), `${source}: ${told(glimpses)}`);
    }
    ill = false;
    const back = everywhere('drained', serving(appPort));
    const backToo = everywhere('removed', serving(appPort));
    for (const [source, ms] of await back) assertFigure(t, `healthy again in ${source}`, ms, limit(source), 'ms');
    for (const [source, ms] of await backToo) assertFigure(t, `registered again in ${source}`, ms, limit(source), 'ms');
    for (const [name, id] of [
      ['drained', 'd1'],
      ['removed', 'r1'],
    ])
      assert.equal((await weir.send('DELETE', `/v1/registrations/default/${name}/${id}`)).status, 200);
  });

  it('kill -9 and a restart: a reader of each registry sees no gap, no second record and no new write', {
    timeout: 40_000,
  }, async (t) => {
    const watchers = LEASED.map((source) => ({ source, watch: watcher(readers.get(source) ?? assert.fail(), 'one') }));
    const nacos = [...readers.keys()].filter((source) => !LEASED.includes(source));
    const others = nacos.map((source) => ({ source, watch: watcher((name) => there(source, name), 'one') }));
    await weir.kill();
    await again();
    if (weir.startedInMs > LONG_TTL_MS / 2) {
      for (const { watch } of [...watchers, ...others]) await watch.stop();
      t.skip(`weir took ${weir.startedInMs.toFixed(0)} ms to start: the leases may be over`);
      return;
    }
    // Longer than the lease: had nobody renewed it, the record would be gone.
    await passed(LONG_TTL_MS + 1_500);
    for (const { source, watch } of watchers) {
      const glimpses = await watch.stop();
      assert.ok(glimpses.length > 50, `${source}: ${glimpses.length} reads`);
      assert.equal(changes(glimpses).length, 1, `${source}: ${told(glimpses)}`);
      assert.ok(glimpses[0]?.seen.length === 1 && glimpses[0].seen[0]?.serving === true);
      t.diagnostic(`${source}: the same record in ${glimpses.length} reads`);
    }
    // Nacos ends what lived by a connection with it: there is a gap, and never two.
    for (const { source, watch } of others) {
      const glimpses = await watch.stop();
      assert.ok(
        glimpses.every(({ seen }) => seen.length <= 1),
        source,
      );
      t.diagnostic(`${source}: absent for ${absentMs(glimpses).toFixed(0)} ms`);
      serving(8000)(await there(source, 'one'), source);
    }
    assert.equal(await weir.metric('weir_registry_writes_total', 'what="put"'), nacos.length, 'receipts were reused');
    const { registrations }: { registrations: readonly Answer[] } = await weir.get('/v1/registrations');
    assert.deepEqual(registrations.map(states), [allLive()]);
  });

  it('a registry that is down while registering is named, and has the record when it is back', { timeout: 40_000 }, async (t) => {
    await consul.kill('SIGKILL');
    const answer = await put('late', 'l1', { port: 8002 });
    assert.equal(answer.status, 200);
    assert.deepEqual(states(answer), { ...allLive(), consul: 'pending' });
    assert.match(answer.targets['consul']?.error ?? '', /consul/);
    await everywhere(
      'late',
      serving(8002),
      [...readers.keys()].filter((source) => source !== 'consul'),
    );
    await consul.restart();
    const took = await everywhere('late', serving(8002), ['consul']);
    assertFigure(t, 'registered after the registry came back', took.get('consul') ?? Number.NaN, againMs(TTL_MS), 'ms');
    await everywhere('one', serving(8000), ['consul']);
  });

  it('a registry that lost everything has the record again within a third of the ttl and a second', {
    timeout: 60_000,
  }, async (t) => {
    await Promise.all(
      [
        { source: 'etcd', server: etcd },
        { source: 'consul', server: consul },
        { source: 'polaris', server: polaris },
      ].map(async ({ source, server }) => {
        await server.wipe();
        const took = await everywhere('one', serving(8000), [source]);
        const cache = isCached(source) ? CACHE_MS : 0;
        assertFigure(
          t,
          `${source} was wiped: registered again`,
          took.get(source) ?? Number.NaN,
          againMs(LONG_TTL_MS) + cache,
          'ms',
        );
      }),
    );
    await everywhere('one', serving(8000));
    await everywhere('late', serving(8002));
    await weir.send('DELETE', '/v1/registrations/default/late/l1');
    await everywhere('late', gone);
  });

  it('a source that is configured anew takes its records over, also where they live by the connection', {
    timeout: 30_000,
  }, async (t) => {
    await reloaded('', '3s');
    const took = await everywhere('one', serving(8000));
    await passed(1_500);
    for (const [source, ms] of await everywhere('one', serving(8000)))
      assertFigure(t, `${source} configured anew: there`, ms + (took.get(source) ?? 0) + 1_500, 5_000, 'ms');
    await reloaded();
    await everywhere('one', serving(8000));
  });

  it('registrations of weir.yaml are added, changed, renamed and removed by a reload, and a change leaves no gap', {
    timeout: 40_000,
  }, async () => {
    const reload = (...entries: readonly string[]): Promise<void> =>
      reloaded(`registrations:\n${entries.map((entry) => `  - {${entry}}\n`).join('')}`);
    const first = 'service: default/declared, id: one, host: 127.0.0.1, port: 8010, ttl: 5s';
    const other = 'service: default/declared, id: two, host: 127.0.0.1, port: 8011, ttl: 5s';
    await reload(first, other);
    await everywhere('declared', serving(8010, 8011));
    const watchers = [...readers].map(([source]) => ({ source, watch: watcher((name) => there(source, name), 'declared') }));
    await reload(`${first}, weight: 300`, other);
    await everywhere('declared', (seen, source) => {
      const found = seen.find(({ address }) => address.endsWith(':8010'));
      assert.equal(found?.weight, nativeWeight(source, 300), source);
    });
    await reload(`${first.replace('id: one', 'id: renamed')}, weight: 300`);
    await everywhere('declared', serving(8010));
    const { registrations }: { registrations: readonly { id: string }[] } = await weir.get('/v1/registrations');
    assert.deepEqual(registrations.map(({ id }) => id).sort(), ['one-1', 'renamed']);
    for (const { source, watch } of watchers) {
      const glimpses = await watch.stop();
      const always = glimpses.every(({ seen }) => seen.some((one) => one.serving && one.address.endsWith(':8010')));
      assert.ok(always, `${source}: ${told(glimpses)}`);
    }
    const change = await put('declared', 'renamed', { port: 8010 });
    assert.deepEqual([change.status, change.error?.code], [409, 'REGISTRATION_CONFLICT']);
    await reloaded();
    await everywhere('declared', gone);
    await everywhere('one', serving(8000));
  });

  it('a registry that refuses the token is named and tried again, and the log keeps the token to itself', {
    timeout: 20_000,
  }, async () => {
    const answer = await put('denied', 'n1', { port: 8003, sources: ['denied', 'etcd'] });
    assert.deepEqual([answer.status, states(answer)], [200, { denied: 'pending', etcd: 'live' }]);
    assert.match(answer.targets['denied']?.error ?? '', /token|ACL|denied|Permission/i);
    await eventually(() => audited().filter(({ registry }) => registry === 'denied').length >= 2, 10_000);
    assert.ok(audited().some(({ registry, result }) => registry === 'denied' && String(result).startsWith('denied: ')));
    assert.equal((await weir.send('DELETE', '/v1/registrations/default/denied/n1')).status, 200);
    await everywhere('denied', gone, ['etcd', 'consul']);
    await eventually(async () => {
      const lines = weir.output().split('\n');
      const writes = lines.filter((line) => line.includes('"audit":true') && line.includes('"registry"'));
      assert.equal(await weir.metric('weir_registry_writes_total'), writes.length, 'the metric counts what the audit log says');
    });
  });

  it('SIGTERM with `shutdown: {registrations: keep}` leaves the records, and the next process goes on with them', {
    timeout: 40_000,
  }, async (t) => {
    const keep = 'shutdown: {registrations: keep}\n';
    await reloaded(keep);
    const watchers = LEASED.map((source) => ({ source, watch: watcher(readers.get(source) ?? assert.fail(), 'one') }));
    assert.equal(await weir.terminate(), 0);
    await again(keep);
    if (weir.startedInMs > LONG_TTL_MS / 2) {
      for (const { watch } of watchers) await watch.stop();
      t.skip(`weir took ${weir.startedInMs.toFixed(0)} ms to start: the leases may be over`);
      return;
    }
    await passed(TTL_MS / 2);
    for (const { source, watch } of watchers) {
      const glimpses = await watch.stop();
      assert.equal(changes(glimpses).length, 1, `${source}: ${told(glimpses)}`);
    }
    await everywhere('one', serving(8000));
    t.diagnostic('kept and taken up again without a write');
  });

  it('SIGTERM takes the records out of every registry and exits with 0', { timeout: 30_000 }, async (t) => {
    await reloaded();
    const fresh = await put('fresh', 'f1', { port: 8004 });
    assert.deepEqual(states(fresh), allLive());
    await everywhere('fresh', serving(8004));
    const from = performance.now();
    const wall = Date.now();
    const exit = weir.terminate();
    // A standalone Polaris goes on showing a record that nobody has changed for some seconds until its beats are missed, though it
    // has answered the deregistration with success (seen, 1.18.1): there the younger one must do.
    const seen = everywhere('fresh', gone);
    const old = everywhere(
      'one',
      gone,
      [...readers.keys()].filter((source) => source !== 'polaris'),
    );
    assert.equal(await exit, 0);
    assertFigure(t, 'SIGTERM to exit', performance.now() - from, 3_500, 'ms');
    const removed = audited().filter(
      ({ what, registry, time }) => what === 'remove' && registry !== undefined && Number(time) >= wall,
    );
    assert.equal(removed.length, 2 * readers.size);
    for (const { registry, time, result, service } of removed) {
      assert.equal(result, 'ok');
      assertFigure(t, `${service} deregistered in ${registry}`, Number(time) - wall, 1_000, 'ms');
    }
    for (const took of [await seen, await old]) {
      for (const [source, ms] of took)
        assertFigure(t, `gone from ${source} after SIGTERM`, ms, 500 + (isCached(source) ? CACHE_MS : 0), 'ms');
    }
  });

  it('every write is one line of the audit log, and no secret is in any line', () => {
    const lines = audited().filter(({ registry }) => registry !== undefined);
    assert.ok(lines.length > 30, `${lines.length} lines`);
    for (const line of lines) {
      const { time, registry, service, instance, what, result } = line;
      assert.ok(typeof time === 'number' && [...readers.keys(), 'denied'].includes(String(registry)), JSON.stringify(line));
      if (what === 'redo') {
        // Of its own accord, on a new connection: in the registry's own words.
        assert.match(
          `${registry} ${service} ${instance} ${result}`,
          /^face DEFAULT_GROUP@@[a-z-]+ 127\.0\.0\.1:\d+ (ok|lost.*)$/,
        );
        continue;
      }
      assert.match(String(service), /^default\/[a-z-]+$/);
      assert.match(String(instance), /^[\w-]+ 127\.0\.0\.1:\d+$/);
      assert.match(String(what), /^(put|remove|renew-failed|health (un)?healthy|health unknown)$/);
      assert.match(String(result), /^(ok|(lost|denied|limit|malformed|refused): .+)$/);
    }
    for (const secret of [TOKEN, WRONG]) assert.ok(!`${said}${weir.output()}`.includes(secret), 'a token is in the output');
  });
});

/** A third of the ttl, ± 10 % of it, and a second for the calls. */
function againMs(ttl: number): number {
  return (ttl / 3) * 1.1 + 1_000;
}

function isCached(source: string): boolean {
  return source === 'polaris' || source === 'face';
}

/** Normal is 100 here, 1 there. */
function nativeWeight(source: string, weight: number): number {
  return source === 'etcd' || source === 'polaris' ? weight : weight / 100;
}

/** The glimpses that differ from the one before. */
function changes(glimpses: readonly Glimpse[]): readonly Glimpse[] {
  return glimpses.filter(({ seen }, n) => n === 0 || JSON.stringify(seen) !== JSON.stringify(glimpses[n - 1]?.seen));
}

/** What was seen, in words: `+0 [10.0.0.1:80 serving] +900 []`. */
function told(glimpses: readonly Glimpse[]): string {
  const from = glimpses[0]?.at ?? 0;
  const record = (one: Seen): string => `${one.address} ${one.serving ? 'serving' : 'drained'} ${one.stamp}`;
  return changes(glimpses)
    .map(({ at, seen }) => `+${(at - from).toFixed(0)} [${seen.map(record).join(', ')}]`)
    .join(' ');
}

/** Time in which something must not happen. */
function passed(ms: number): Promise<unknown> {
  const from = performance.now();
  return eventually(() => performance.now() - from >= ms, ms + 5_000, 50);
}

/** The longest time without a record, ms. */
function absentMs(glimpses: readonly Glimpse[]): number {
  let worst = 0;
  let since: number | null = null;
  for (const { at, seen } of glimpses) {
    if (seen.length > 0) since = null;
    else {
      since ??= at;
      worst = Math.max(worst, at - since);
    }
  }
  return worst;
}
