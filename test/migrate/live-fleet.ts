// A fleet of weir processes around one real etcd that is the origin, the target and the fleet's store at once: one writer, the next one
// after kill -9, steps that wait for every report. Called by the live and full tests of migrations.
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { FaultBench } from '../faults/harness/bench.ts';
import { HEAD } from '../faults/harness/bench.ts';
import type { WeirProcess } from '../faults/harness/weir-process.ts';
import { type EtcdServer, startEtcd } from '../registries/start.ts';
import { eventually } from '../support/eventually.ts';

const FROM = '/services/hello/';
const TO = '/next/hello/';

export interface FleetFigures {
  readonly sidecars: number;
  /** From the kill of the writer until another one wrote what came meanwhile, ms. */
  readonly takeOverMs: number;
  readonly requestsOfSteps: number;
}

/** Plain calls of etcd's JSON gateway. */
class Keys {
  readonly #server: EtcdServer;

  constructor(server: EtcdServer) {
    this.#server = server;
  }

  async put(key: string, value: string): Promise<void> {
    await this.#call('put', { key: base64(key), value: base64(value) });
  }

  /** Key → value below a prefix. */
  async range(prefix: string): Promise<ReadonlyMap<string, string>> {
    const answer = await this.#call('range', { key: base64(prefix), range_end: base64(`${prefix.slice(0, -1)}0`) });
    const kvs: readonly { readonly key: string; readonly value: string }[] = Array.isArray(answer['kvs']) ? answer['kvs'] : [];
    return new Map(kvs.map(({ key, value }) => [text(key), text(value)]));
  }

  async #call(method: string, body: object): Promise<Record<string, unknown>> {
    const answer = await fetch(`http://${this.#server.endpoint}/v3/kv/${method}`, { method: 'POST', body: JSON.stringify(body) });
    if (!answer.ok) throw new Error(`etcd ${method}: ${answer.status}`);
    return Object(await answer.json());
  }
}

/** `n` sidecars; the whole claim of migration.md "Fleet". Throws where it is not kept. */
export async function fleetHistory(bench: FaultBench, n: number): Promise<FleetFigures> {
  const server = await startEtcd({ version: '3.6' });
  bench.defer(() => server.stop());
  const keys = new Keys(server);
  const upstreams = await bench.farm(3);
  const provide = (at: number): Promise<void> => {
    const { port } = upstreams[at] ?? assert.fail('no such upstream');
    return keys.put(`${FROM}native-${at}`, JSON.stringify({ Op: 0, Addr: `127.0.0.1:${port}`, Metadata: { weight: 100 } }));
  };
  for (const at of [0, 1]) await provide(at);
  const fleet = new Map<string, WeirProcess>();
  await Promise.all(
    Array.from({ length: n }, async (_, at) => {
      const name = `side-${at}`;
      fleet.set(name, await bench.weir(bench.write(`${name}.yaml`, configOf(bench, server, name))));
    }),
  );
  const [first = assert.fail('no fleet')] = fleet.values();
  await step(first, '', {
    id: 'm1',
    from: 'old',
    to: 'new',
    services: ['default/*'],
    gates: { soak: '0s' },
    limits: { grace: '1s' },
  });
  await eventually(() => step(first, '/m1/start'), 10_000, 200);
  const copies = async (): Promise<readonly string[]> => [...(await keys.range(TO)).keys()].sort();
  await eventually(async () => assert.equal((await copies()).length, 2), 15_000, 50);

  // Copies never vanish, whatever dies.
  let stopped = false;
  let fewest = 2;
  const watching = (async () => {
    for (; !stopped; await sleep(50)) fewest = Math.min(fewest, (await keys.range(TO)).size);
  })();
  try {
    await eventually(
      async () => {
        assert.deepEqual([...(await sidecarsOf(first))].sort(), [...fleet.keys()].sort());
      },
      15_000,
      200,
    );
    // A line of the log may come a little after the write.
    await eventually(async () => assert.equal(writersOf(fleet).length, 1, 'one sidecar writes'), 5_000, 50);
    let asked = await gated(first, '/m1/shift', { weight: 10 });
    const [writer = assert.fail('nobody writes')] = writersOf(fleet);
    // Before its report of this step, a death would forbid the next one, and rightly.
    await eventually(
      async () => {
        const reports = [...(await keys.range('/weir/migrations/report/m1/')).values()].map((text) => JSON.parse(text));
        assert.deepEqual(
          reports.map(({ weight }) => weight),
          Array(n).fill(10),
        );
      },
      15_000,
      20,
    );
    await fleet.get(writer)?.kill();
    const killedAt = performance.now();
    await provide(2);
    await eventually(async () => assert.equal((await copies()).length, 3), 10_000, 50);
    const takeOverMs = performance.now() - killedAt;
    const living = new Map([...fleet].filter(([name]) => name !== writer));
    await eventually(async () => assert.equal(writersOf(living).length, 1, 'one other sidecar writes'), 5_000, 50);
    const [other = assert.fail('nobody is left')] = living.values();
    // The dead one has reported the shift of 10, and never reports the next one.
    asked += await gated(other, '/m1/shift', { weight: 20 });
    await eventually(
      async () => {
        const answer = await other.send('POST', '/v1/migrations/m1/shift', { weight: 30 });
        const said = await answer.text();
        assert.equal(answer.status, 409, said);
        assert.deepEqual(waitsFor(said), [writer]);
      },
      15_000,
      200,
    );
    await step(other, '/m1/forget', { sidecar: writer });
    asked += await gated(other, '/m1/shift', { weight: 30 });
    for (const weir of living.values())
      await eventually(async () => assert.equal((await weir.get<{ weight: number }>('/v1/migrations/m1')).weight, 30), 2_000, 20);
    await eventually(() => step(other, '/m1/abort', { force: true }), 20_000, 200);
    stopped = true;
    await watching;
    await eventually(async () => assert.deepEqual(await copies(), []), 30_000, 100);
    assert.equal(fewest, 2, 'a copy was away for a while');
    // Forgotten, it leaves nothing in the fleet's store either: no order, ledger, report or lock.
    await step(other, '/m1/collect');
    await eventually(async () => assert.deepEqual([...(await keys.range('/weir/')).keys()], []), 15_000, 100);
    return { sidecars: n, takeOverMs, requestsOfSteps: asked };
  } finally {
    stopped = true;
    await watching;
  }
}

function configOf(bench: FaultBench, { endpoint }: EtcdServer, name: string): string {
  const etcd = (prefix: string): string => `kind: etcd, endpoints: ["http://${endpoint}"], prefix: ${prefix}`;
  return [
    `${HEAD}id: ${name}`,
    `state: {dir: ${bench.path(name)}, shared: {${etcd('/weir/')}}}`,
    'sources:',
    `  - {id: old, ${etcd('/services/')}, layout: grpc, allowLoopback: true}`,
    `  - {id: new, ${etcd('/next/')}, layout: grpc, allowLoopback: true}`,
    '',
  ].join('\n');
}

/** Those with lines of writes in their audit logs. */
function writersOf(fleet: ReadonlyMap<string, WeirProcess>): string[] {
  const wrote = (weir: WeirProcess): boolean => /"audit":true,"what":"put"/.test(weir.output());
  return [...fleet].filter(([, weir]) => wrote(weir)).map(([name]) => name);
}

async function sidecarsOf(weir: WeirProcess): Promise<readonly string[]> {
  const { fleet } = await weir.get<{ readonly fleet: { readonly sidecars: readonly string[] } }>('/v1/migrations/m1');
  return fleet.sidecars;
}

/** Names of sidecars in a refusal. */
function waitsFor(said: string): string[] {
  return [...new Set([...said.matchAll(/sidecar ([\w-]+) has not/g)].map(([, name = '']) => name))];
}

async function step(weir: WeirProcess, path: string, body: object = {}): Promise<void> {
  const answer = await weir.send('POST', `/v1/migrations${path}`, body);
  assert.equal(answer.status, 200, `${path}: ${await answer.text()}`);
}

/** Verifies and steps until it is taken; how often it was asked. */
async function gated(weir: WeirProcess, path: string, body: object): Promise<number> {
  let asked = 0;
  await eventually(
    async () => {
      asked++;
      await step(weir, '/m1/verify');
      await step(weir, path, body);
    },
    20_000,
    200,
  );
  return asked;
}

function base64(plain: string): string {
  return Buffer.from(plain).toString('base64');
}

function text(encoded: string): string {
  return Buffer.from(encoded, 'base64').toString();
}
