// A state directory with two whole generations of the last-good file, and a weir that is started on it with every source dead.
// Called by the C4 tests.
import assert from 'node:assert/strict';
import { appendFileSync, existsSync, mkdirSync, readdirSync, rmSync, statSync, truncateSync } from 'node:fs';
import type { Random } from '../../../src/kernel/random.ts';
import { eventually } from '../../support/eventually.ts';
import { closedPort } from '../../support/upstream-farm.ts';
import { type FaultBench, SERVICE } from './bench.ts';
import { type Corruption, keepFiles, restoreFiles } from './corruption.ts';
import { fakeEtcd } from './etcd-registry.ts';

const SERVICES = 40;

export interface TwoGenerations {
  readonly older: string;
  readonly newer: string;
  /** Spoils `which`, starts weir with dead sources, says what it found, stops it. */
  run(corruption: Corruption, which: 'newer' | 'both', random: Random): Promise<Found>;
}

export interface Found {
  readonly services: number;
  readonly instances: readonly number[];
  readonly fallbacks: number;
  readonly badRecords: number;
  readonly startedInMs: number;
}

/** Runs weir twice over a live etcd so that generation 1 and 2 hold the same services. */
export async function twoGenerations(bench: FaultBench, ports: readonly number[]): Promise<TwoGenerations> {
  const etcd = await fakeEtcd(bench);
  for (const [n, port] of ports.entries()) etcd.put(`u${n}`, port);
  for (let n = 1; n < SERVICES; n++) etcd.put('a', ports[0] ?? 1, `other-${n}`);
  const config = bench.config(`sources:\n${etcd.source()}`);
  const state = bench.path('state');
  mkdirSync(state, { mode: 0o700 });
  const [older, newer] = [`${state}/last-good.1`, `${state}/last-good.2`];
  for (const path of [older, newer]) {
    const weir = await bench.weir(config);
    await eventually(async () =>
      assert.equal((await weir.get<{ services: unknown[] }>('/v1/services?limit=500')).services.length, SERVICES),
    );
    assert.equal(await weir.terminate(), 0);
    assert.ok(existsSync(path), path);
    // A byte too many: the next start begins a new generation and keeps this one.
    if (path === older) appendFileSync(older, '!');
  }
  truncateSync(older, statSync(older).size - 1);
  assert.deepEqual(
    readdirSync(state)
      .filter((name) => name.startsWith('last-good.'))
      .sort(),
    ['last-good.1', 'last-good.2'],
  );
  const files = keepFiles([older, newer]);
  const dead = bench.config(
    `sources:\n  - {id: etcd, kind: etcd, endpoints: ["http://127.0.0.1:${await closedPort()}"], layout: grpc, prefix: /services/, allowLoopback: true}\n`,
    'dead.yaml',
  );
  return {
    older,
    newer,
    async run(corruption, which, random) {
      for (const name of readdirSync(state)) rmSync(`${state}/${name}`, { force: true, recursive: true });
      restoreFiles(files);
      for (const [path, bytes] of files) if (path === newer || which === 'both') corruption.spoil(path, bytes, random);
      const weir = await bench.weir(dead);
      try {
        const { services } = await weir.get<{ services: unknown[] }>('/v1/services?limit=500');
        const view = await weir.service(SERVICE).catch(() => null);
        return {
          services: services.length,
          instances: view === null ? [] : view.instances.map(({ port }) => port).sort(),
          fallbacks: await weir.metric('weir_events_total', 'last_good_fallback'),
          badRecords: await weir.metric('weir_last_good_bad_records_total'),
          startedInMs: weir.startedInMs,
        };
      } finally {
        await weir.kill();
      }
    },
  };
}

export { SERVICES };
