// The npm client `nacos`, which none of us wrote, against the fake of three generations, beside our adapter. The same suite runs on real
// servers: test/live/nacos-npm.live.test.ts.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { describeNpmClient, NpmPeer, type NpmWorld } from '../../test/live/nacos-npm.ts';
import { eventually } from '../../test/support/eventually.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { type FakeNacos, type FakeVersion, startFakeNacos } from './fake.ts';

async function world(version: FakeVersion): Promise<NpmWorld & { readonly fake: FakeNacos; readonly clock: FakeClock }> {
  const clock = new FakeClock();
  const fake = await startFakeNacos(version, clock);
  return {
    fake,
    clock,
    address: fake.address,
    source: fake.config,
    generation: fake.profile.generation,
    advance: (ms) => clock.advance(ms),
    close: () => fake.close(),
  };
}

for (const version of ['1.4.6', '2.5.1', '3.0.3'] as const) describeNpmClient(`the fake ${version}`, () => world(version));

describe('the npm client nacos and what the fake refuses or forgets', () => {
  it('a beat registers again what a wiped server forgot', { timeout: 120_000 }, async () => {
    const { fake, address, advance, close } = await world('3.0.3');
    const peer = await NpmPeer.start(address);
    try {
      await peer.call('registerInstance', 'web', { ip: '192.0.2.1', port: 80, weight: 3, metadata: { a: 'b' } });
      fake.wipe();
      assert.equal(fake.store.everyHost('public@@DEFAULT_GROUP@@web'), null);
      await eventually(async () => {
        await advance(100);
        const [again] = fake.store.everyHost('public@@DEFAULT_GROUP@@web') ?? [];
        assert.deepEqual([again?.ip, again?.weight, again?.metadata], ['192.0.2.1', 3, { a: 'b' }]);
      }, 60_000);
    } finally {
      await peer.kill();
      await close();
    }
  });

  it('a user and a password in the parameters let it in where tokens are wanted; wrong ones do not', {
    timeout: 120_000,
  }, async () => {
    const { fake, address, close } = await world('3.0.3');
    fake.auth = new Map([['app', 'right']]);
    const good = await NpmPeer.start(address, { username: 'app', password: 'right' });
    const bad = await NpmPeer.start(address, { username: 'app', password: 'wrong' });
    try {
      const instance = { ip: '192.0.2.1', port: 80 };
      assert.equal(await good.call('registerInstance', 'web', instance), undefined);
      await assert.rejects(bad.call('registerInstance', 'web', { ...instance, port: 81 }), /after all servers/);
      assert.match(bad.log, /403/);
      assert.deepEqual(
        fake.store.everyHost('public@@DEFAULT_GROUP@@web')?.map(({ port }) => port),
        [80],
      );
    } finally {
      await good.kill();
      await bad.kill();
      await close();
    }
  });

  it('a 3.2 without the old API refuses it: this client is dead there', { timeout: 120_000 }, async () => {
    const { address, close } = await world('3.2.0');
    const peer = await NpmPeer.start(address);
    try {
      await assert.rejects(peer.call('registerInstance', 'web', { ip: '192.0.2.1', port: 80 }), /after all servers/);
      assert.match(peer.log, /404/);
      assert.equal(await peer.call('getServerStatus'), 'DOWN');
    } finally {
      await peer.kill();
      await close();
    }
  });
});
