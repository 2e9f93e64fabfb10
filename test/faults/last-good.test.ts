// C4 on the process: the last-good file is spoiled between two runs in each way, every source is dead: it is detected, the generation
// before is used, weir starts and serves. 26 spoilings here, 500 in last-good.full.test.ts, thousands in src/catalog/last-good.test.ts.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { seededRandom } from '../../src/kernel/random.ts';
import { onBench } from './harness/bench.ts';
import { CORRUPTIONS } from './harness/corruption.ts';
import { SERVICES, twoGenerations } from './harness/two-generations.ts';

const ROOT = process.getuid?.() === 0;

describe('a spoiled last-good file', { concurrency: false }, () => {
  it('C4: each kind of spoiling of the newer generation is detected and answered by the one before', (t) =>
    onBench(async (bench) => {
      const ports = (await bench.farm(2)).map(({ port }) => port).sort();
      const generations = await twoGenerations(bench, ports);
      const random = seededRandom(bench.seed);
      for (const corruption of CORRUPTIONS) {
        if (corruption.root === true && !ROOT) {
          t.diagnostic(`${corruption.name}: not run here, it needs root`);
          continue;
        }
        const found = await generations.run(corruption, 'newer', random);
        assert.deepEqual([found.services, found.instances], [SERVICES, ports], corruption.name);
        assert.ok(found.fallbacks >= 1 && found.badRecords >= 1, `${corruption.name} was not detected: ${JSON.stringify(found)}`);
      }
    }));

  it('C4: both generations spoiled: no crash, and whatever is shown is true', (t) =>
    onBench(async (bench) => {
      const ports = (await bench.farm(2)).map(({ port }) => port).sort();
      const generations = await twoGenerations(bench, ports);
      const random = seededRandom(bench.seed);
      for (const corruption of CORRUPTIONS) {
        if (corruption.root === true && !ROOT) {
          t.diagnostic(`${corruption.name}: not run here, it needs root`);
          continue;
        }
        const found = await generations.run(corruption, 'both', random);
        assert.ok(found.fallbacks >= 2, `${corruption.name}: ${found.fallbacks} fallbacks`);
        assert.ok(found.instances.length === 0 || found.instances.join() === ports.join(), corruption.name);
        assert.ok(found.services <= SERVICES);
      }
    }));
});
