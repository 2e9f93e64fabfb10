// Faults of weir's own process and host while requests run (reliability.md C1, C2, C4, C6, C7, C10, C12).
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { openSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { randomBelow, seededRandom } from '../../src/kernel/random.ts';
import { eventually } from '../support/eventually.ts';
import { assertFigure } from '../support/figure.ts';
import { type FaultBench, onBench, SERVICE, sleep } from './harness/bench.ts';
import { Client, type Outcome } from './harness/client.ts';
import { fakeEtcd } from './harness/etcd-registry.ts';
import { startLimitMs } from './harness/machine-pace.ts';
import { executions } from './harness/upstream-process.ts';
import { atMostOnce, neverMissing, noneFailed, nothingWrongDelivered, quantile } from './harness/validators.ts';

/** A weir over a file with these upstreams. */
async function plain(bench: FaultBench, n = 3, more = '') {
  const upstreams = await bench.farm(n);
  const file = bench.services(upstreams);
  const sources = `sources:\n  - {id: fixed, kind: file, path: ${file}}\n`;
  const config = bench.config(sources + more);
  const weir = await bench.weir(config);
  await bench.ready(weir, n);
  return { upstreams, weir, config, sources, addresses: upstreams.map(({ address }) => address) };
}

/** Asks until it is answered 200; how long that took, ms. */
async function untilServed(port: number, since: number): Promise<number> {
  await eventually(
    async () => {
      const client = new Client(port, SERVICE);
      const { verdict } = await client.ask({ id: 'first', method: 'GET', path: '/', body: '' });
      client.close();
      assert.equal(verdict, 'ok');
    },
    20_000,
    5,
  );
  return performance.now() - since;
}

describe('faults of the process', { concurrency: false }, () => {
  it('C1: SIGKILL under load with every source dead: after exec the last-good file serves, right and stale', () =>
    onBench(async (bench) => {
      const upstreams = await bench.farm(3);
      const etcd = await fakeEtcd(bench);
      for (const { name, port } of upstreams) etcd.put(name, port);
      const config = bench.config(`sources:\n${etcd.source()}`);
      const times: number[] = [];
      let weir = await bench.weir(config);
      await bench.ready(weir, 3);
      await eventually(() => readdirSync(bench.path('state')).some((name) => name.startsWith('last-good.')));
      await sleep(1_200);
      await etcd.fake.down();
      for (let round = 0; round < 5; round++) {
        const load = bench.load(weir, { seed: bench.seed + round });
        await sleep(300);
        await weir.kill();
        const outcomes = await load.stop();
        nothingWrongDelivered(outcomes);
        atMostOnce(outcomes, executions(upstreams));
        const exec = performance.now();
        weir = await bench.weir(config);
        times.push(await untilServed(weir.proxyPort, exec));
        const view = await weir.service(SERVICE);
        assert.deepEqual(view.instances.map(({ port }) => port).sort(), upstreams.map(({ port }) => port).sort());
        assert.equal(view.stale, true);
        assert.equal(await weir.status('/readyz'), 200);
      }
      times.sort((a, b) => a - b);
      // Beside other tests only a start that waits for something shows; the figure itself is row 3 of long.full and the bench of starts.
      const limit = await startLimitMs(4_000);
      assert.ok(
        (times[2] ?? 0) < limit,
        `exec to first 200: ${times.map(Math.round).join(' ')} ms, limit ${Math.round(limit)} ms`,
      );
    }));

  it('C1: a lock left by a crash does not stop the next start, though its pid is in use by another process', () =>
    onBench(async (bench) => {
      const upstreams = await bench.farm(1);
      const config = bench.config(`sources:\n  - {id: fixed, kind: file, path: ${bench.services(upstreams)}}\n`);
      const first = await bench.weir(config);
      await first.kill();
      const lock = bench.path('state/lock');
      const [pid = '', ...birth] = readFileSync(lock, 'utf8').trim().split(' ');
      assert.equal(Number(pid), first.child.pid);
      writeFileSync(lock, `${process.pid} ${birth.join(' ')}\n`);
      const second = await bench.weir(config);
      await bench.ready(second, 1);
      // And a living one is respected.
      await assert.rejects(bench.weir(config), /STATE_LOCKED/);
    }));

  it('C2: SIGTERM with 200 requests in flight and busy keep-alive clients: 0 failed, exit 0 in time', (t) =>
    onBench(async (bench) => {
      const { weir, upstreams } = await plain(bench);
      const random = seededRandom(bench.seed);
      const client = new Client(weir.proxyPort, SERVICE);
      bench.defer(() => client.close());
      await client.warm(200);
      const inFlight = Array.from({ length: 200 }, (_, n) =>
        client.ask({
          id: `f${n}`,
          method: n % 5 === 0 ? 'POST' : 'GET',
          path: `/?delay=${randomBelow(random, 3_000)}&size=${n * 100}`,
          body: n % 5 === 0 ? 'b' : '',
        }),
      );
      // Clients that keep asking over connections they have, for as long as weir leaves them open.
      const keepers = new Client(weir.proxyPort, SERVICE);
      bench.defer(() => keepers.close());
      await keepers.warm(20);
      const kept: Outcome[] = [];
      let stopping = false;
      const keeping = Array.from({ length: 20 }, async (_, n) => {
        for (let i = 0; keepers.idle > 0; i++) {
          if (stopping && keepers.idle === 0) return;
          kept.push(await keepers.ask({ id: `k${n}-${i}`, method: 'GET', path: '/', body: '' }));
          await sleep(5 + randomBelow(random, 40));
        }
      });
      await sleep(400);
      const began = performance.now();
      stopping = true;
      weir.signal('SIGTERM');
      await eventually(async () => assert.notEqual(await weir.status('/readyz').catch(() => 0), 200), 10_000);
      const outcomes = await Promise.all(inFlight);
      await Promise.all(keeping);
      const code = await weir.ended;
      const took = performance.now() - began;
      noneFailed(outcomes, 'requests in flight');
      noneFailed(kept, 'requests over kept connections');
      atMostOnce(outcomes, executions(upstreams));
      assert.equal(code, 0);
      const longest = Math.max(...outcomes.map(({ ms }) => ms)) - (began - Math.min(...outcomes.map(({ at }) => at)));
      assertFigure(t, 'exit after the longest request', took - Math.max(longest, 1_500), 1_000, 'ms');
    }));

  it('C10: the whole process stands still for 2 s: late results eject nobody, 0 failed', () =>
    onBench(async (bench) => {
      const check = 'services: [{match: "*", healthCheck: {tcp: {}, interval: 500ms, timeout: 300ms}}]\n';
      const { weir } = await plain(bench, 3, check);
      const load = bench.load(weir);
      for (const ms of [300, 2_000, 500]) {
        await sleep(700);
        weir.signal('SIGSTOP');
        await sleep(ms);
        weir.signal('SIGCONT');
      }
      await sleep(700);
      const { instances } = await weir.service(SERVICE);
      assert.deepEqual(
        instances.map(({ verdict, ejected }) => [verdict, ejected]),
        Array(3).fill(['healthy', false]),
      );
      noneFailed(await bench.finish(load));
    }));

  it('C12: a log pipe that nobody reads never blocks a request; lines are dropped and counted', (t) =>
    onBench(async (bench) => {
      const fifo = bench.path('access.fifo');
      assert.equal(spawnSync('mkfifo', [fifo]).status, 0);
      // Opened for reading and never read: the pipe's 64 KiB fill at once. The log of the process goes into such a pipe, too.
      const reader = spawn('sleep', ['1000'], { stdio: [openSync(fifo, 'r+'), 'ignore', 'ignore'] });
      bench.defer(() => reader.kill('SIGKILL'));
      const { weir } = await plain(bench, 3, `accessLog: {to: "file:${fifo}"}\n`);
      weir.child.stdout?.pause();
      const before = bench.load(weir, { rate: 300, seed: bench.seed + 1, path: (n) => `/?pad=${'p'.repeat(1_000)}${n}` });
      await sleep(8_000);
      const outcomes = await bench.finish(before);
      noneFailed(outcomes);
      assertFigure(t, 'p50', quantile(outcomes, 0.5), 50, 'ms');
      assert.ok((await weir.metric('weir_access_log_dropped_total')) > 0, 'dropped lines are counted');
      weir.child.stdout?.resume();
    }));

  it('C6: bad configurations under load: the old one stays, each fault is named with its place, 0 failed', () =>
    onBench(async (bench) => {
      const { weir, sources, upstreams, addresses } = await plain(bench);
      const load = bench.load(weir);
      const reader = bench.watchCatalog(weir);
      const taken = `127.0.0.1:${upstreams[0]?.port}`;
      const bad: readonly (readonly [string, string])[] = [
        ['syntax', 'sources: [\n'],
        ['an unknown key', `${sources}sorces: []\n`],
        ['a wrong type', `${sources}services: [{match: "*", timeout: [1]}]\n`],
        ['a port in use', `${sources}listeners: [{listen: "${taken}", service: ${SERVICE}}]\n`],
        ['no such kind', 'sources: [{id: a, kind: zookeeper}]\n'],
        [
          'a YAML bomb',
          `${sources}a: &a [x,x,x,x,x,x,x,x,x]\n${'bcdefghi'
            .split('')
            .map(
              (c, i) =>
                `${c}: &${c} [${Array(9)
                  .fill(`*${i === 0 ? 'a' : 'bcdefghi'[i - 1]}`)
                  .join(',')}]`,
            )
            .join('\n')}\n`,
        ],
        ['50 MB', `# ${'x'.repeat(50 * 1024 * 1024)}\n`],
        ['a duplicate source', `${sources}  - {id: fixed, kind: memory}\n`],
        ['binary', '\u0000\u0001\u0002'],
        ['another proxy port', 'PORT'],
      ];
      for (const [what, text] of bad) {
        const result = text === 'PORT' ? 'ok' : 'refused';
        const before = await weir.metric('weir_config_reloads_total', result);
        if (text === 'PORT') bench.write('weir.yaml', `api: {listen: "127.0.0.1:0"}\nproxy: {listen: "127.0.0.1:1"}\n${sources}`);
        else bench.config(text);
        weir.signal('SIGHUP');
        await eventually(
          async () => assert.ok((await weir.metric('weir_config_reloads_total', result)) > before, what),
          30_000,
          50,
        );
        assert.equal((await weir.service(SERVICE)).instances.length, 3, what);
      }
      const faults = await eventually(() => {
        const seen = weir.events('config_reload_failed').map((event) => JSON.stringify(event));
        assert.ok(seen.length >= bad.length - 1, `refusals in the log: ${seen.length}`);
        return seen;
      });
      assert.ok(
        faults.some((fault) => /weir\.yaml:\d+:\d+/.test(fault)),
        faults[0],
      );
      noneFailed(await bench.finish(load));
      neverMissing(await reader.stop(), addresses);
    }));

  it('C7: 200 replacements, 10 % of them invalid, under load: the last valid one wins, 0 failed', () =>
    onBench(async (bench) => {
      const { weir, sources } = await plain(bench);
      const load = bench.load(weir);
      const random = seededRandom(bench.seed);
      for (let n = 0; n < 200; n++) {
        const invalid = random() < 0.1;
        const text = invalid
          ? `${sources}services: [{match: "*", timeout: ${n}}`
          : `${sources}services: [{match: "*", timeout: ${10_000 + n}ms}]\nlisteners: [{listen: "127.0.0.1:0", service: "x/y${n}"}]\n`;
        if (n % 2 === 0) bench.config(text);
        else {
          bench.config(text, 'next.yaml');
          renameSync(bench.path('next.yaml'), bench.path('weir.yaml'));
        }
        // Now in bursts that the debounce folds, now slowly enough that each is loaded.
        await sleep(n % 20 < 10 ? 5 : 40);
      }
      bench.config(`${sources}  - {id: marker, kind: memory}\n`);
      await eventually(async () => assert.equal((await weir.source('marker')).state, 'live'));
      assert.ok((await weir.metric('weir_config_reloads_total')) >= 5);
      noneFailed(await bench.finish(load));
    }));
});
