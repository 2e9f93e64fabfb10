// Upstreams die, freeze, hang, cut and lie while requests run (reliability.md B1-B8, B11, B12, B14; rows 9-16). Every upstream is a
// process that writes down what it executes, so "not twice" and "not cut" are counted.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { eventually } from '../support/eventually.ts';
import { assertFigure } from '../support/figure.ts';
import { type FaultBench, onBench, SERVICE, sleep } from './harness/bench.ts';
import { Client, type Outcome } from './harness/client.ts';
import { executions } from './harness/upstream-process.ts';
import { amplification, isIdempotent, noneFailed, notRoutedAfter, quantile, tally } from './harness/validators.ts';

async function plain(bench: FaultBench, n: number, policy = '') {
  const upstreams = await bench.farm(n);
  const file = bench.services(upstreams);
  const services = policy === '' ? '' : `services: [{match: "*", ${policy}}]\n`;
  const weir = await bench.weir(bench.config(`sources:\n  - {id: fixed, kind: file, path: ${file}}\n${services}`));
  await bench.ready(weir, n);
  return { upstreams, weir, file };
}

async function ask(port: number, id: string, method = 'GET'): Promise<Outcome> {
  const client = new Client(port, SERVICE);
  const outcome = await client.ask({ id, method, path: '/', body: method === 'POST' ? 'b' : '' });
  client.close();
  return outcome;
}

const idempotent = (outcomes: readonly Outcome[]): Outcome[] => outcomes.filter(isIdempotent);

describe('faults of upstreams', { concurrency: false }, () => {
  it('B1: one of three is killed -9 again and again: idempotent 0 failed with bodies up to 64 KiB, no POST twice, no failure at it after 1 s', () =>
    onBench(async (bench) => {
      // Default settings: a breaker sleeps for 30 s, and within them all three are killed. None of them may be the outage.
      const { upstreams, weir } = await plain(bench, 3);
      const load = bench.load(weir, {
        rate: 300,
        methods: ['GET', 'PUT', 'GET', 'DELETE'],
        path: (n) => `/?delay=${n % 40}`,
        bodyBytes: 60_000,
      });
      await sleep(1_500);
      let inFlight = 0;
      for (let round = 0; round < 4; round++) {
        const victim = upstreams[round % 3];
        assert.ok(victim !== undefined);
        inFlight += load.pending;
        await victim.kill();
        const at = performance.now();
        await sleep(1_500);
        notRoutedAfter(
          load.outcomes.filter(({ verdict }) => verdict !== 'ok'),
          victim.address,
          at + 1_000,
        );
        await victim.start();
        await sleep(6_500);
      }
      const outcomes = await bench.finish(load);
      noneFailed(idempotent(outcomes), 'idempotent requests');
      const posts = outcomes.filter((one) => !isIdempotent(one));
      const failed = posts.filter(({ verdict }) => verdict !== 'ok');
      // Only what was in flight at the victim can fail: at most rate x delay / 3 a kill, and a margin; on a slow machine more is in flight.
      assert.ok(failed.length <= Math.max(4 * 6, inFlight), `POSTs: ${JSON.stringify(tally(posts))}`);
      assert.ok(amplification(outcomes, executions(upstreams)) <= 1.2);
    }));

  it('B2: one of three freezes: per-try timeout, another host, ejected: idempotent 0 failed', (t) =>
    onBench(async (bench) => {
      const { upstreams, weir } = await plain(bench, 3, 'retry: {perTryTimeout: 300ms}');
      const load = bench.load(weir, { rate: 150, posts: 0 });
      await sleep(1_000);
      const [frozen] = upstreams;
      assert.ok(frozen !== undefined);
      frozen.freeze();
      const frozenAt = performance.now();
      bench.defer(() => frozen.thaw());
      await eventually(async () => assert.ok((await weir.service(SERVICE)).instances.some(({ ejected }) => ejected)), 15_000);
      const ejectedAt = performance.now();
      assertFigure(t, 'ejected after', ejectedAt - frozenAt, 3_000, 'ms');
      await sleep(2_000);
      frozen.thaw();
      const outcomes = await bench.finish(load);
      noneFailed(outcomes);
      notRoutedAfter(outcomes, frozen.address, ejectedAt + 300);
    }));

  it('B3: a host that takes no SYN: connect timeout, another host, 0 failed', () =>
    onBench(async (bench) => {
      const upstreams = await bench.farm(2);
      // A listener of a frozen process whose queue is full: the kernel drops further SYNs.
      const hole = await bench.upstream('hole');
      hole.freeze();
      bench.defer(() => hole.thaw());
      const filler = new Client(hole.port, SERVICE);
      bench.defer(() => filler.close());
      void filler.warm(600).catch(() => {});
      await sleep(500);
      const file = bench.services([...upstreams, hole]);
      const policy = 'services: [{match: "*", connectTimeout: 300ms}]\n';
      const weir = await bench.weir(bench.config(`sources:\n  - {id: fixed, kind: file, path: ${file}}\n${policy}`));
      await bench.ready(weir, 3);
      const load = bench.load(weir, { rate: 100 });
      await sleep(4_000);
      const outcomes = await bench.finish(load);
      noneFailed(outcomes);
      assert.ok(
        outcomes.some(({ attempts }) => attempts > 1),
        'the hole was tried',
      );
    }));

  it('B4: all accept and never answer: 504 within the deadline, nothing hangs', (t) =>
    onBench(async (bench) => {
      const { upstreams, weir } = await plain(bench, 2, 'timeout: 1s, retry: {perTryTimeout: 400ms}, breaker: {enabled: false}');
      await Promise.all(upstreams.map((upstream) => upstream.set({ kind: 'hang' })));
      const load = bench.load(weir, { rate: 40 });
      await sleep(1_500);
      const outcomes = await bench.finish(load);
      assert.deepEqual(new Set(outcomes.map(({ status }) => status)), new Set([504]));
      assertFigure(t, 'slowest', quantile(outcomes, 1), 2_500, 'ms');
    }));

  it('B5 B6: 200 answers that hang, drip, are cut or reset are never delivered as complete, and never retried once begun', () =>
    onBench(async (bench) => {
      const { upstreams, weir } = await plain(
        bench,
        2,
        'timeout: 600ms, outlierDetection: {enabled: false}, breaker: {enabled: false}',
      );
      const part = 'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{id} half';
      const chunked = 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{id}';
      const cases = [
        { kind: 'raw', bytes: part } as const,
        { kind: 'raw', bytes: part, next: 'end' } as const,
        { kind: 'raw', bytes: part, next: 'reset' } as const,
        { kind: 'raw', bytes: `${chunked}`, next: 'end' } as const,
        { kind: 'raw', bytes: 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n', next: 'reset' } as const,
        { kind: 'raw', bytes: 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n', next: 'end' } as const,
        { kind: 'drip', everyMs: 300 } as const,
      ];
      const client = new Client(weir.proxyPort, SERVICE);
      bench.defer(() => client.close());
      const all: Outcome[] = [];
      for (const [n, mode] of cases.entries()) {
        await Promise.all(upstreams.map((upstream) => upstream.set(mode)));
        all.push(
          ...(await Promise.all(
            Array.from({ length: 29 }, (_, i) => client.ask({ id: `c${n}-${i}`, method: 'GET', path: '/', body: '' })),
          )),
        );
      }
      assert.equal(all.length, 203);
      assert.deepEqual(Object.keys(tally(all)), ['truncated']);
      const executed = executions(upstreams);
      assert.deepEqual([...new Set(executed.values())], [1], 'an answer that has begun is not asked for again');
    }));

  it('B7: upstreams close idle connections at random: no request is lost, no POST twice', (t) =>
    onBench(async (bench) => {
      const { upstreams, weir } = await plain(bench, 3);
      await Promise.all(upstreams.map((upstream) => upstream.set({ kind: 'closesIdle', withinMs: 1_000 })));
      const load = bench.load(weir, { rate: 300, posts: 0.1 });
      await sleep(5_000);
      const outcomes = await bench.finish(load);
      noneFailed(idempotent(outcomes), 'idempotent requests');
      const posts = outcomes.filter((one) => !isIdempotent(one));
      // How many POSTs race is the machine's; each that was sent and lost is told so, and no other fails.
      t.diagnostic(`POSTs: ${JSON.stringify(tally(posts))}`);
      noneFailed(
        posts.filter(({ error }) => error !== 'UPSTREAM_RESET'),
        'POSTs',
      );
    }));

  it('B8: 503 from all: executions per request stay at 1.20, breakers open within 1 s, refusals are quick, then it recovers', (t) =>
    onBench(async (bench) => {
      const { upstreams, weir } = await plain(bench, 3, 'breaker: {sleepWindow: 2s}, outlierDetection: {enabled: false}');
      const load = bench.load(weir, { rate: 300, posts: 0 });
      await sleep(3_000);
      const good = [...load.outcomes];
      const failing = performance.now();
      await Promise.all(upstreams.map((upstream) => upstream.set({ kind: 'status', status: 503 })));
      await eventually(() => load.outcomes.some(({ error }) => error === 'BREAKER_OPEN'), 10_000, 5);
      assertFigure(t, 'open after', performance.now() - failing, 1_000, 'ms');
      await sleep(1_200);
      const refused = load.outcomes.filter(({ error }) => error === 'BREAKER_OPEN');
      await Promise.all(upstreams.map((upstream) => upstream.set({ kind: 'ok' })));
      const mended = performance.now();
      await eventually(() => load.outcomes.some(({ at, verdict }) => at > mended && verdict === 'ok'), 30_000, 5);
      assertFigure(t, 'recovered after', performance.now() - mended, 6_000, 'ms');
      const outcomes = await bench.finish(load);
      assert.ok(good.length > 300);
      const during = outcomes.filter(({ at }) => at >= failing);
      assert.ok(amplification(during, executions(upstreams)) <= 1.2, `${amplification(during, executions(upstreams))}`);
      // Whatever the machine: not slower than what is served.
      assertFigure(t, 'fails fast in', quantile(refused, 0.5), Math.max(5, quantile(good, 0.5)), 'ms');
      assert.ok(outcomes.at(-1)?.verdict === 'ok');
    }));

  it('B8: with breakers off an all-503 flood is not amplified above 1.20', () =>
    onBench(async (bench) => {
      const { upstreams, weir } = await plain(bench, 3, 'breaker: {enabled: false}, outlierDetection: {enabled: false}');
      await Promise.all(upstreams.map((upstream) => upstream.set({ kind: 'status', status: 503 })));
      const load = bench.load(weir, { rate: 200, posts: 0 });
      await sleep(5_000);
      const outcomes = await bench.finish(load);
      const ratio = amplification(outcomes, executions(upstreams));
      assert.ok(ratio <= 1.2 && ratio > 1.1, `executions per request ${ratio}`);
    }));

  it('B11: malformed answers are 502, never passed on, and their sockets are not used again', () =>
    onBench(async (bench) => {
      const { upstreams, weir } = await plain(
        bench,
        1,
        'retry: {attempts: 0}, outlierDetection: {enabled: false}, breaker: {enabled: false}',
      );
      const [upstream] = upstreams;
      assert.ok(upstream !== undefined);
      const bad = [
        'HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc',
        'HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
        'HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n',
        'HTTP/1.1 200 OK\r\nx-a: b\r\n folded\r\ncontent-length: 0\r\n\r\n',
        'HTTP/1.1 200 OK\r\nx-a: b\u0000c\r\ncontent-length: 0\r\n\r\n',
        'HTTP/1.1 099 X\r\ncontent-length: 0\r\n\r\n',
        'HTTP/1.1 600 X\r\ncontent-length: 0\r\n\r\n',
        'HTTP/1.1 1000 X\r\ncontent-length: 0\r\n\r\n',
        `HTTP/1.1 200 OK\r\nx-a: ${'y'.repeat(20_000)}\r\ncontent-length: 0\r\n\r\n`,
        'HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n',
        'nonsense\r\n\r\n',
      ];
      for (const [n, bytes] of bad.entries()) {
        await upstream.set({ kind: 'raw', bytes });
        const { status, error } = await ask(weir.proxyPort, `bad${n}`);
        assert.deepEqual([status, error], [502, 'UPSTREAM_PROTOCOL'], JSON.stringify(bytes.slice(0, 80)));
        await upstream.set({ kind: 'ok' });
        assert.equal((await ask(weir.proxyPort, `good${n}`)).verdict, 'ok');
      }
    }));

  it('B12: late bytes on an idle connection reach nobody', () =>
    onBench(async (bench) => {
      const { upstreams, weir } = await plain(bench, 2);
      const stray = 'HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nSTRAY';
      await Promise.all(upstreams.map((upstream) => upstream.set({ kind: 'late', bytes: stray, afterMs: 3 })));
      // Time enough that the bytes arrive while the connection is idle: later nobody could tell them from an answer.
      const client = new Client(weir.proxyPort, SERVICE);
      bench.defer(() => client.close());
      const outcomes: Outcome[] = [];
      for (let n = 0; n < 60; n++) {
        outcomes.push(await client.ask({ id: `l${n}`, method: 'GET', path: '/', body: '' }));
        await sleep(60);
      }
      noneFailed(outcomes);
    }));

  it('B14: all dead: the answer is quick and has a reason; when one returns it is found', (t) =>
    onBench(async (bench) => {
      const { upstreams, weir } = await plain(
        bench,
        3,
        'healthCheck: {tcp: {}, interval: 200ms}, panicThreshold: 0, breaker: {enabled: false}, outlierDetection: {enabled: false}',
      );
      const traffic = bench.load(weir, { rate: 20 });
      const alive: Outcome[] = [];
      for (let n = 0; n < 10; n++) alive.push(await ask(weir.proxyPort, `alive${n}`));
      await Promise.all(upstreams.map((upstream) => upstream.kill()));
      await eventually(async () => {
        const { instances } = await weir.service(SERVICE);
        assert.deepEqual(
          instances.map(({ verdict }) => verdict),
          Array(3).fill('unhealthy'),
        );
      });
      await traffic.stop();
      const answers: Outcome[] = [];
      for (let n = 0; n < 30; n++) answers.push(await ask(weir.proxyPort, `dead${n}`));
      assert.deepEqual(tally(answers), { 'error 503 NO_HEALTHY_UPSTREAM': 30 });
      assertFigure(t, 'answered in', quantile(answers, 0.5), Math.max(10, quantile(alive, 0.5)), 'ms');
      await upstreams[0]?.start();
      await eventually(async () => assert.equal((await ask(weir.proxyPort, 'back')).verdict, 'ok'), 20_000);
    }));

  it('B14: below the panic threshold health is ignored, it is said so, and no host gets more than twice its share', () =>
    onBench(async (bench) => {
      // Three of five fail their checks (the checker's path answers 404 at these) but serve.
      const upstreams = await bench.farm(5);
      const sick = new Set<number>();
      const file = bench.services(upstreams);
      const policy = `services: [{match: "*", healthCheck: {http: {path: "/?check", expectedStatuses: [200]}, interval: 200ms, timeout: 150ms}, outlierDetection: {enabled: false}, breaker: {enabled: false}, retry: {attempts: 2}}]\n`;
      const weir = await bench.weir(bench.config(`sources:\n  - {id: fixed, kind: file, path: ${file}}\n${policy}`));
      await bench.ready(weir, 5);
      const warm = bench.load(weir, { rate: 20, posts: 0, seed: bench.seed + 1 });
      await sleep(200);
      for (const upstream of upstreams.slice(0, 3)) {
        // Slower than the check waits, quick enough for a request.
        await upstream.set({ kind: 'ok', delayMs: 400 });
        sick.add(upstream.port);
      }
      await eventually(async () => {
        const { instances } = await weir.service(SERVICE);
        assert.ok(instances.every(({ port, verdict }) => (verdict === 'unhealthy') === sick.has(port)));
      });
      noneFailed(await warm.stop());
      // Of two drawn at random the idler one is taken: 0.35 for each of the quick two, so that 0.4 takes 1,500 draws to be told from chance.
      const load = bench.load(weir, { rate: 250, posts: 0 });
      await sleep(6_000);
      const outcomes = await bench.finish(load);
      noneFailed(outcomes);
      assert.ok(
        outcomes.every(({ panic }) => panic),
        'panic is said',
      );
      const share = new Map<string, number>();
      for (const { upstream } of outcomes) share.set(upstream, (share.get(upstream) ?? 0) + 1);
      assert.ok(Math.max(...share.values()) <= (2 * outcomes.length) / 5, JSON.stringify([...share]));
    }));
});
