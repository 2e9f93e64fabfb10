// A cluster of three members: losing the leader loses nothing, losing the quorum is noticed, a frozen follower is left for another.
import assert from 'node:assert/strict';
import { describe } from 'node:test';
import type { EtcdServer } from '../registries/start.ts';
import { startEtcdCluster } from '../registries/start.ts';
import { eventually } from '../support/eventually.ts';
import {
  assertOrdered,
  assertSameState,
  expected,
  Follower,
  itPerVersion,
  makeAdapter,
  never,
  Raw,
  value,
} from './etcd-support.ts';

interface Cluster {
  readonly members: readonly EtcdServer[];
  readonly raws: readonly Raw[];
  readonly follower: Follower;
  readonly counts: ReadonlyMap<string, number>;
}

async function withCluster(version: '3.4' | '3.6', body: (cluster: Cluster) => Promise<void>): Promise<void> {
  const members = await startEtcdCluster(version, 3);
  const raws = members.map(({ endpoint }) => new Raw(endpoint));
  const { adapter, counts } = makeAdapter(members.map(({ endpoint }) => endpoint));
  const follower = new Follower(adapter, ['svc']);
  try {
    await eventually(() => follower.complete, 10_000);
    await body({ members, raws, follower, counts });
  } finally {
    await follower.stop();
    await adapter.close();
    for (const raw of raws) raw.close();
    for (const member of members) await member.stop();
  }
}

/** Index of the member that leads. */
async function leader({ raws }: Cluster): Promise<number> {
  const statuses = await Promise.all(raws.map((raw) => raw.client.call('Status', {}, never())));
  const index = statuses.findIndex(({ header, leader }) => leader !== '0' && leader === header?.memberId);
  assert.ok(index >= 0, 'no leader');
  return index;
}

/** Writes through any member that takes it. */
async function put({ raws }: Cluster, id: string, port: number, weight: number): Promise<void> {
  await eventually(() => Promise.any(raws.map((raw) => raw.put('svc', id, value(port, weight)))), 15_000, 50);
}

async function converged({ raws, follower }: Cluster, withinMs = 5_000): Promise<void> {
  await eventually(
    async () => assertSameState(follower.state(), expected(await Promise.any(raws.map((raw) => raw.truth())))),
    withinMs,
    50,
  );
}

describe('etcd adapter on a cluster of three members', () => {
  itPerVersion('the leader is killed, restarted, and another frozen: nothing is lost', 120_000, (version) =>
    withCluster(version, async (cluster) => {
      for (let n = 0; n < 20; n++) await put(cluster, `i${n}`, 8_000 + n, 1);
      await converged(cluster);
      const first = cluster.members[await leader(cluster)] ?? assert.fail('no leader');
      await first.kill('SIGKILL');
      for (let n = 0; n < 10; n++) await put(cluster, `i${n}`, 8_000 + n, 2);
      await converged(cluster);
      await first.restart();
      await converged(cluster);
      const second = cluster.members[await eventually(() => leader(cluster))] ?? assert.fail('no leader');
      await second.kill('SIGSTOP');
      for (let n = 5; n < 15; n++) await put(cluster, `i${n}`, 8_000 + n, 3);
      await converged(cluster, 30_000);
      await second.kill('SIGCONT');
      for (let n = 0; n < 20; n++) await put(cluster, `i${n}`, 8_000 + n, 4);
      await converged(cluster);
      assertOrdered(cluster.follower);
      assert.equal(cluster.counts.get('watch.missedEvents') ?? 0, 0);
      const epochs = new Set(cluster.follower.seen.map(({ snapshot }) => snapshot.epoch));
      assert.equal(epochs.size, 1, 'a change of leaders is no new epoch');
    }),
  );

  itPerVersion('a lost quorum loses the watch within 10 s, and nothing is shown as gone', 120_000, (version) =>
    withCluster(version, async (cluster) => {
      for (let n = 0; n < 5; n++) await put(cluster, `i${n}`, 8_000 + n, 1);
      await converged(cluster);
      const lostBefore = cluster.follower.losses.length;
      const [one, two] = cluster.members;
      await one?.kill('SIGKILL');
      await two?.kill('SIGKILL');
      await eventually(() => cluster.follower.losses.length > lostBefore, 10_000, 50);
      await new Promise((resolve) => setTimeout(resolve, 3_000));
      assert.equal(cluster.follower.state().size, 5);
      assert.ok(cluster.follower.losses.every(({ causeKind }) => causeKind === 'lost'));
      await Promise.all([one?.restart(), two?.restart()]);
      await put(cluster, 'i9', 9_000, 2);
      await converged(cluster);
      assert.equal(cluster.follower.state().size, 6);
    }),
  );
});
