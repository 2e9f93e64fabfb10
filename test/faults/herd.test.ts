// A19: 200 sidecars reconnect after an outage of two minutes (reliability.md row 27, catalog-rules.md R7). Time is fake and the random
// numbers are seeded, so every run of this file gives the same figures.
//
// Each sidecar is the real supervisor and the real adapter down to the call into its transport (grpc-js' Client for etcd and nacos,
// undici's Agent for consul and nacos, node:net's connect for l5, the `stream` of its own gRPC client for polaris); from there on it
// speaks to a fake registry in memory. Not simulated: what happens below that call (TCP, HTTP/2, grpc-js' own reconnect timer, which
// no call of ours waits for).
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { HERD, type HerdFigures } from './herd/herd.ts';
import { KINDS } from './herd/kinds.ts';

const RUN = fileURLToPath(new URL('./herd/herd.ts', import.meta.url));
const SEEDS = [1, 2, 3, 4, 5].map(String);
/** Part of the herd in any one second, %. */
const MOST = 12;
/** R7: the longest wait; a server may have been tried just before it came back. */
const LATEST_MS = 30_000;
/** Two back-offs, the adapter's and the supervisor's, one after the other at the worst. */
const LATEST_OF_TWO_MS = 40_000;

describe(`A19: ${HERD} sidecars after two minutes without their registry`, { concurrency: 2 }, () => {
  for (const kind of KINDS) {
    it(`${kind}: at most ${MOST} % come back in any one second, and none later than R7 allows`, async (t) => {
      const { stdout } = await promisify(execFile)(process.execPath, ['--disable-proto=throw', RUN, kind, ...SEEDS]);
      const runs: readonly HerdFigures[] = JSON.parse(stdout);
      const middle = (what: keyof HerdFigures): number =>
        runs.map((run) => run[what]).sort((a, b) => a - b)[runs.length >> 1] ?? Number.NaN;
      const [connects, requests, whole] = [middle('connects'), middle('requests'), middle('whole')];
      const [tries, latest] = [middle('triesPerSecond'), middle('wholeAfterMs')];
      t.diagnostic(
        `${kind}: in one second at most ${connects.toFixed(1)} % of the first contacts, ${requests.toFixed(1)} % of the requests, ` +
          `${whole.toFixed(1)} % of the sidecars that are whole again; the last after ${latest} ms; ${tries.toFixed(2)} tries/s each before`,
      );
      assert.equal(runs.length, SEEDS.length);
      assert.ok(connects <= MOST, `${connects} % of the first contacts in one second`);
      assert.ok(requests <= MOST, `${requests} % of the requests in one second`);
      assert.ok(latest <= (kind === 'nacos' ? LATEST_OF_TWO_MS : LATEST_MS + 1_000), `the last one after ${latest} ms`);
      // One try in 22.5 s once the cap is reached; a try may be more than one request.
      assert.ok(tries <= 0.2, `${tries} tries a second of each while the registry is away`);
    });
  }
});
