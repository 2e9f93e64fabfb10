// Upstreams that start cold, never come to the point, hang up on an upload, fail at the end of a chain, close what we keep, or are
// ourselves (reliability.md B7, B9, B10, B13, B15, B16). weir is a process; what was executed is counted at the upstreams.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { eventually } from '../support/eventually.ts';
import { assertFigure } from '../support/figure.ts';
import { FakeUpstream, type Reply, type Script } from '../support/upstream-farm.ts';
import { type FaultBench, onBench, SERVICE, sleep } from './harness/bench.ts';
import { Client, type Outcome } from './harness/client.ts';
import { fakeEtcd } from './harness/etcd-registry.ts';
import { executions } from './harness/upstream-process.ts';
import { amplification, isIdempotent, neverMissing, noneFailed, tally } from './harness/validators.ts';

async function plain(bench: FaultBench, n: number, policy = '') {
  const upstreams = await bench.farm(n);
  const file = bench.services(upstreams);
  const services = policy === '' ? '' : `services: [{match: "*", ${policy}}]\n`;
  const weir = await bench.weir(bench.config(`sources:\n  - {id: fixed, kind: file, path: ${file}}\n${services}`));
  await bench.ready(weir, n);
  return { upstreams, weir, file };
}

const NO_JUDGE = 'outlierDetection: {enabled: false}, breaker: {enabled: false}';

describe('manners of upstreams', { concurrency: 2 }, () => {
  it('B7: upstreams close within 60 ms of an answer: idempotent 0 failed, no POST twice', (t) =>
    onBench(async (bench) => {
      const { upstreams, weir } = await plain(bench, 3);
      await Promise.all(upstreams.map((upstream) => upstream.set({ kind: 'closesIdle', withinMs: 60 })));
      const load = bench.load(weir, { rate: 200, posts: 0.1, methods: ['GET', 'PUT', 'DELETE'] });
      await sleep(5_000);
      const outcomes = await bench.finish(load);
      noneFailed(outcomes.filter(isIdempotent), 'idempotent requests');
      const raced = outcomes.filter(({ attempts }) => attempts > 1).length;
      const posts = outcomes.filter((one) => !isIdempotent(one));
      t.diagnostic(`${outcomes.length} requests, ${raced} repeated; POSTs: ${JSON.stringify(tally(posts))}`);
      assert.ok(Math.max(...outcomes.filter(isIdempotent).map(({ attempts }) => attempts)) <= 3);
    }));

  it('B9: a cold upstream joins and warms up: it gets less until it is warm, nobody is ejected, no breaker opens, 0 failed', (t) =>
    onBench(async (bench) => {
      // 8 s stand for the 20 s of the catalogue; the slow start by weights is not built (its key is refused), so what shields the
      // newcomer is least_request alone.
      const warmMs = 8_000;
      const { upstreams, weir, file } = await plain(bench, 2, 'healthCheck: {http: {path: /}, interval: 500ms}');
      const cold = await bench.upstream('cold');
      await cold.set({ kind: 'warming', fromMs: 800, overMs: warmMs });
      const load = bench.load(weir, { rate: 150 });
      await sleep(1_000);
      const joinedAt = performance.now();
      bench.services([...upstreams, cold], file.slice(bench.directory.length + 1));
      await bench.ready(weir, 3);
      await eventually(
        async () => {
          const { instances } = await weir.service(SERVICE);
          assert.ok(instances.every(({ ejected }) => !ejected));
          assert.ok(performance.now() - joinedAt > warmMs + 500);
        },
        warmMs + 10_000,
        100,
      );
      await sleep(2_000);
      const outcomes = await bench.finish(load);
      noneFailed(outcomes);
      assert.equal(await weir.metric('weir_ejections_total'), 0, 'nobody is ejected');
      assert.equal(await weir.metric('weir_breaker_opened_total'), 0, 'no breaker opens');
      const share = (from: number, to: number): number => {
        const then = outcomes.filter(({ at }) => at >= joinedAt + from && at < joinedAt + to);
        return then.filter(({ upstream }) => upstream === cold.address).length / then.length;
      };
      const [early, late] = [share(500, 3_500), share(warmMs + 200, warmMs + 2_500)];
      t.diagnostic(`share of the newcomer: ${early.toFixed(2)} while cold, ${late.toFixed(2)} when warm (fair: 0.33)`);
      assert.ok(early > 0 && early < 0.25, `${early} while cold`);
      assert.ok(late > 0.22 && late < 0.45, `${late} when warm`);
    }));

  it('B9: slow start ramps over 10 to 30 s', { skip: 'slow start is a later issue; until then its key is refused' }, () => {});

  it('B10: 1xx without end: 502 at the seventeenth, or after 10 s of them; not repeated for a POST, and the socket is not used again', (t) =>
    onBench(async (bench) => {
      const { upstreams, weir } = await plain(bench, 2, `retry: {attempts: 0}, ${NO_JUDGE}`);
      const client = new Client(weir.proxyPort, SERVICE);
      bench.defer(() => client.close());
      const ask = (id: string, method: string): Promise<Outcome> =>
        client.ask({ id, method, path: '/', body: method === 'POST' ? 'b' : '' });
      const both = (id: string): Promise<Outcome[]> =>
        Promise.all(Array.from({ length: 12 }, (_, n) => ask(`${id}${n}`, n % 3 === 0 ? 'POST' : 'GET')));
      const refused = (outcomes: readonly Outcome[]): void =>
        assert.deepEqual(tally(outcomes), { 'error 502 UPSTREAM_PROTOCOL': outcomes.length });
      for (const status of [100, 102, 103]) {
        await Promise.all(upstreams.map((one) => one.set({ kind: 'interim', status, atOnce: 17, everyMs: 1_000 })));
        refused(await both(`cap${status}-`));
      }
      // Sixteen are within the cap; time ends them: one a second never reaches it.
      await Promise.all(upstreams.map((one) => one.set({ kind: 'interim', status: 103, atOnce: 1, everyMs: 1_000 })));
      const slow = await both('time-');
      refused(slow);
      const longest = Math.max(...slow.map(({ ms }) => ms));
      const shortest = Math.min(...slow.map(({ ms }) => ms));
      assert.ok(shortest >= 9_500, `ended after ${shortest} ms`);
      assertFigure(t, 'interim responses end after', longest, 11_000, 'ms');
      await Promise.all(upstreams.map((one) => one.set({ kind: 'ok' })));
      noneFailed(await both('good-'));
      assert.deepEqual([...new Set(executions(upstreams).values())], [1], 'nothing was executed twice');
    }));

  it('B13: an upstream hangs up in the middle of an upload: its early answer is passed on, else 502; nothing hangs, nothing runs twice', () =>
    onBench(async (bench) => {
      const head = (status: number): string => `HTTP/1.1 ${status} X\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno`;
      // After the first bytes of the body, so that the upload is under way.
      const onFirst = (reply: Reply, then: () => void): void => void reply.socket.once('data', () => setImmediate(then));
      const ways: readonly (readonly [string, Script, string])[] = [
        ['413 and FIN', (_seen, reply) => onFirst(reply, () => reply.socket.end(head(413))), 'error 413'],
        ['503 and FIN', (_seen, reply) => onFirst(reply, () => reply.socket.end(head(503))), 'error 503'],
        [
          '413 without reading on',
          (_seen, reply) =>
            onFirst(reply, () => {
              reply.raw(head(413));
              reply.socket.pause();
            }),
          'error 413',
        ],
        ['FIN alone', (_seen, reply) => onFirst(reply, () => reply.socket.end()), 'error 502 UPSTREAM_RESET'],
        ['reset', (_seen, reply) => onFirst(reply, () => reply.reset()), 'error 502 UPSTREAM_RESET'],
      ];
      const upstream = new FakeUpstream(ways[0]?.[1] ?? (() => {}), { atHead: true });
      await upstream.listen();
      bench.defer(() => upstream.kill());
      const config = bench.config(
        `sources:\n  - {id: fixed, kind: file, path: ${bench.services([upstream])}}\nservices: [{match: "*", ${NO_JUDGE}}]\n`,
      );
      const weir = await bench.weir(config);
      await bench.ready(weir, 1);
      for (const [n, [what, script, want]] of ways.entries()) {
        upstream.script = script;
        const client = new Client(weir.proxyPort, SERVICE);
        bench.defer(() => client.close());
        const uploads = Array.from({ length: 6 }, (_, i) =>
          client.ask({ id: `w${n}-${i}`, method: i % 2 === 0 ? 'PUT' : 'POST', path: '/', body: 'b'.repeat(4_000_000) }),
        );
        const outcomes = await Promise.all(uploads);
        assert.deepEqual(tally(outcomes), { [want]: 6 }, what);
        for (const { id } of outcomes) assert.equal(upstream.executed(id), 1, `${what}: ${id}`);
      }
      upstream.script = async (seen, reply) => {
        await reply.whole;
        reply.send(200, `${seen.id} .`);
      };
      const client = new Client(weir.proxyPort, SERVICE);
      bench.defer(() => client.close());
      noneFailed([await client.ask({ id: 'after', method: 'PUT', path: '/', body: 'b'.repeat(1_000_000) })]);
      assert.equal(await weir.metric('weir_requests_active'), 0, 'nothing is left in flight');
    }));

  it('B15: three weirs in a row over leaves that fail all: the leaves execute at most 1.2 requests for each of the client', (t) =>
    onBench(async (bench) => {
      const leaves = await bench.farm(2);
      await Promise.all(leaves.map((leaf) => leaf.set({ kind: 'status', status: 503 })));
      let behind: readonly { readonly port: number }[] = leaves;
      for (const id of ['last', 'middle', 'first']) {
        const source = `sources:\n  - {id: fixed, kind: file, path: ${bench.services(behind, `${id}.services.yaml`)}}\n`;
        const text = `api: {listen: "127.0.0.1:0"}\nproxy: {listen: "127.0.0.1:0"}\nid: ${id}\nstate: {dir: ${bench.path(id)}}\n`;
        const weir = await bench.weir(bench.write(`${id}.yaml`, `${text}${source}services: [{match: "*", ${NO_JUDGE}}]\n`));
        await bench.ready(weir, behind.length);
        behind = [{ port: weir.proxyPort }];
      }
      const [first] = behind;
      assert.ok(first !== undefined);
      // The first hop is named by the field, the others by the path.
      const path = `/svc/${SERVICE}`.repeat(2);
      const load = bench.load({ proxyPort: first.port }, { rate: 150, posts: 0.1, path: () => `${path}/` });
      await sleep(5_000);
      const outcomes = await bench.finish(load);
      assert.deepEqual([...new Set(outcomes.map(({ status }) => status))], [503]);
      const ratio = amplification(outcomes, executions(leaves));
      t.diagnostic(`${outcomes.length} requests, ${ratio.toFixed(3)} executions each`);
      // A window of 10 s has its least of 3 retries beside the 20 %.
      assert.ok(ratio <= 1.2 + 3 / outcomes.length, `executions per request ${ratio}`);
      assert.ok(ratio > 1.05, 'the failing answers were repeated at all');
    }));

  it('B16: our own listeners in the catalog are dropped with a reason and reach nobody; a loop through another weir is 508', () =>
    onBench(async (bench) => {
      const upstreams = await bench.farm(2);
      const etcd = await fakeEtcd(bench);
      for (const { name, port } of upstreams) etcd.put(name, port);
      const conf = (id: string, source: string): string =>
        bench.write(
          `${id}.yaml`,
          `api: {listen: "127.0.0.1:0"}\nproxy: {listen: "127.0.0.1:0"}\nid: ${id}\nstate: {dir: ${bench.path(id)}}\nsources:\n${source}`,
        );
      const weir = await bench.weir(conf('one', etcd.source()));
      await bench.ready(weir, 2);
      const load = bench.load(weir, { rate: 150 });
      const reader = bench.watchCatalog(weir);
      const apiPort = Number(weir.api.split(':')[1]);
      const own = [weir.proxyPort, apiPort];
      for (const [n, port] of own.entries()) etcd.put(`own${n}`, port);
      await eventually(async () => {
        const { sources } = await weir.get<{ sources: { recentRejected: { reason: string }[] }[] }>('/v1/sources');
        const recentRejected = sources.flatMap((source) => source.recentRejected);
        const said = recentRejected.filter(({ reason }) => /own listeners/.test(reason));
        assert.ok(said.length >= own.length, JSON.stringify(recentRejected));
      });
      // A service that is nothing but ourselves has nobody to send to, and says so at once.
      etcd.put('self', weir.proxyPort, 'mirror');
      await sleep(1_500);
      const outcomes = await bench.finish(load);
      noneFailed(outcomes);
      assert.ok(outcomes.every(({ upstream }) => !own.some((port) => upstream.endsWith(`:${port}`))));
      const reads = await reader.stop();
      neverMissing(
        reads,
        upstreams.map(({ address }) => address),
      );
      const seen = reads.flatMap(({ addresses }) => addresses);
      assert.ok(!own.some((port) => seen.some((address) => address.endsWith(`:${port}`))), 'they never were in the view');
      const lonely = new Client(weir.proxyPort, 'default/mirror');
      bench.defer(() => lonely.close());
      const answer = await lonely.ask({ id: 'mirror', method: 'GET', path: '/', body: '' });
      assert.ok(answer.status === 404 || answer.status === 503, `${answer.status} ${answer.error}`);

      // Two weirs that lead to each other: only Via can show it, at the second visit.
      const other = await bench.weir(conf('two', etcd.source()));
      await bench.ready(other, 4);
      etcd.put('a', other.proxyPort, 'loop');
      etcd.put('b', weir.proxyPort, 'loop');
      await bench.ready(weir, 1, 'default/loop');
      await bench.ready(other, 1, 'default/loop');
      const looping = new Client(weir.proxyPort, 'default/loop');
      bench.defer(() => looping.close());
      for (let n = 0; n < 10; n++) {
        const path = '/svc/default/loop'.repeat(4);
        const { status, error } = await looping.ask({ id: `loop${n}`, method: 'GET', path: `${path}/`, body: '' });
        assert.deepEqual([status, error], [508, 'LOOP_DETECTED']);
      }
    }));

  it('B16: a dropped own listener is an event and a count', () =>
    onBench(async (bench) => {
      const etcd = await fakeEtcd(bench);
      const weir = await bench.weir(bench.config(`sources:\n${etcd.source()}`));
      etcd.put('own', weir.proxyPort);
      await eventually(() => assert.ok(weir.events('own_listener_dropped').length >= 1), 15_000);
      assert.ok((await weir.metric('weir_addresses_refused_total', 'ownListener')) >= 1);
    }));
});
