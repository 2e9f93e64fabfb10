// How long a change in a real etcd takes until a request is sent by it (reliability.md row 7): from etcd's answer to the put until a
// proxied request is answered by the endpoint that the change made eligible. `benchPropagation` measures; run alone it prints.
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { randomBelow, seededRandom } from '../../src/kernel/random.ts';
import { FaultBench } from '../faults/harness/bench.ts';
import { Client } from '../faults/harness/client.ts';
import { etcdSource, grpcValue } from '../faults/harness/etcd-registry.ts';
import { Raw } from '../live/etcd-support.ts';
import type { EtcdVersion } from '../registries/etcd.ts';
import { startEtcd } from '../registries/start.ts';
import { eventually } from '../support/eventually.ts';

export interface PropagationFigures {
  readonly services: number;
  readonly changes: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  /** One proxied request with nothing to wait for, median, ms: the resolution of the figures above. */
  readonly requestMs: number;
}

/** A weight that takes all but one in 65,536 of the picks from a neighbour of weight 1. */
const HEAVY = 65_535;
/** At most one change per service in this time, ms. */
const QUIET_MS = 200;

/** Weights of one instance in `services` services change one after another; the other instance is the fallback. */
export async function benchPropagation(options: {
  services: number;
  changes: number;
  version?: EtcdVersion;
}): Promise<PropagationFigures> {
  const bench = new FaultBench();
  try {
    const [a, b] = await bench.farm(2);
    assert.ok(a !== undefined && b !== undefined);
    const server = await startEtcd({ version: options.version ?? '3.6' });
    bench.defer(() => server.stop());
    const raw = new Raw(server.endpoint);
    bench.defer(() => raw.close());
    const names = Array.from({ length: options.services }, (_, n) => `s${n}`);
    for (let at = 0; at < names.length; at += 100) {
      const part = names.slice(at, at + 100);
      await Promise.all(
        part.flatMap((name) => [raw.put(name, 'a', grpcValue(a.port, 1)), raw.put(name, 'b', grpcValue(b.port, 0))]),
      );
    }
    const weir = await bench.weir(bench.config(`sources:\n${etcdSource(server.endpoint)}`));
    await eventually(async () => assert.equal((await weir.source('etcd')).services, options.services), 20_000, 50);
    const clients = new Map(names.map((name) => [name, new Client(weir.proxyPort, `default/${name}`)]));
    bench.defer(() => {
      for (const client of clients.values()) client.close();
    });
    const upstreamOf = async (name: string): Promise<string> => {
      const outcome = await clients.get(name)?.ask({ id: 'p', method: 'GET', path: '/', body: '' });
      assert.equal(outcome?.verdict, 'ok', outcome?.error);
      return outcome?.upstream ?? '';
    };
    const requests: number[] = [];
    for (const name of names) {
      const began = performance.now();
      assert.equal(await upstreamOf(name), a.address);
      requests.push(performance.now() - began);
    }
    const random = seededRandom(bench.seed);
    const heavy = new Set<string>();
    const changedAt = new Map<string, number>();
    const times: number[] = [];
    for (let n = 0; n < options.changes; n++) {
      const name = names[randomBelow(random, names.length)] ?? '';
      const quiet = performance.now() - (changedAt.get(name) ?? Number.NEGATIVE_INFINITY);
      if (quiet < QUIET_MS) await sleep(QUIET_MS - quiet);
      const wanted = heavy.delete(name) ? a.address : b.address;
      if (wanted === b.address) heavy.add(name);
      changedAt.set(name, performance.now());
      await raw.put(name, 'b', grpcValue(b.port, wanted === b.address ? HEAVY : 0));
      const answered = performance.now();
      while ((await upstreamOf(name)) !== wanted)
        assert.ok(performance.now() - answered < 10_000, `${name} is not routed after 10 s`);
      times.push(performance.now() - answered);
    }
    times.sort((x, y) => x - y);
    requests.sort((x, y) => x - y);
    const at = (list: readonly number[], q: number): number =>
      list[Math.min(list.length - 1, Math.floor(list.length * q))] ?? Number.NaN;
    return {
      services: options.services,
      changes: options.changes,
      p50Ms: at(times, 0.5),
      p99Ms: at(times, 0.99),
      maxMs: at(times, 1),
      requestMs: at(requests, 0.5),
    };
  } finally {
    await bench.close();
  }
}

if (import.meta.main) console.log(await benchPropagation({ services: 1_000, changes: Number(process.argv[2] ?? 500) }));
