// The store of a fleet is opened through its adapter for that alone, and what cannot be a store is said before anything runs.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { etcdBench, NEVER, PLAIN } from '../../test/support/etcd-bench.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { WeirError } from '../kernel/errors.ts';
import { silentLog } from '../kernel/log.ts';
import { seededRandom } from '../kernel/random.ts';
import { adapterLoader } from './loader.ts';
import { openSharedState } from './shared-state.ts';

const deps = { loader: adapterLoader(), clock: new FakeClock(), random: seededRandom(1), log: silentLog };

function open(kind: string, config: object) {
  return openSharedState({ kind, config, options: PLAIN }, deps);
}

describe('the shared state', () => {
  it('is kept below its prefix, and closed ends every call', async () => {
    const bench = await etcdBench('3.6.16');
    const { store, close } = await open('etcd', { endpoints: [`http://${bench.fake.endpoint}`], prefix: '/weir/' });
    await store.cas('a', 'one', null, NEVER);
    assert.equal(bench.fake.store.range({ key: Buffer.from('/weir/a') }).kvs.length, 1);
    assert.equal(bench.fake.openWatches, 0, 'nothing is watched');
    await close();
    await assert.rejects(store.get('a', NEVER), /closed/);
    await bench.close();
  });

  it('does not connect before it is used', async () => {
    for (const [kind, config] of [
      ['etcd', { endpoints: ['http://192.0.2.1:1'], prefix: '/weir/' }],
      ['consul', { address: 'http://192.0.2.1:1' }],
    ] as const) {
      await (await open(kind, config)).close();
    }
  });

  it('of a kind that keeps none, or with keys that cannot work, is refused with the reason', async () => {
    const refused = (reason: RegExp) => (thrown: unknown) =>
      thrown instanceof WeirError && thrown.code === 'CONFIG_INVALID' && reason.test(thrown.message);
    await assert.rejects(open('nothing', {}), refused(/state\.shared: no kind nothing/));
    await assert.rejects(open('memory', {}), refused(/memory cannot be the shared store/));
    await assert.rejects(open('etcd', { endpoints: ['http://a:1'], prefix: '' }), refused(/etcd: .*set prefix/));
    await assert.rejects(open('consul', { address: 'ftp://a' }), refused(/consul: address/));
  });
});
