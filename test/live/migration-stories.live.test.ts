// The stories of docs/migration.md on real servers: Consul → Polaris' Nacos face, CL5 → Polaris (its L5 face plays CL5), etcd ⇄ Polaris.
// The same blocks of the same page as on embedded registries. A missing server fails in CI and skips elsewhere.
import assert from 'node:assert/strict';
import { after, before, describe, it, type TestContext } from 'node:test';
import { type ConsulServer, consulBinary, startConsul } from '../registries/consul.ts';
import { etcdBinary } from '../registries/etcd.ts';
import { type PolarisServer, polarisBinary, startPolaris } from '../registries/polaris.ts';
import { type EtcdServer, startEtcd } from '../registries/start.ts';
import { storyBlocks } from '../support/story-page.ts';
import { startStory } from '../support/story-run.ts';

const found = [await consulBinary(true), await etcdBinary('3.6', true), await polarisBinary(true)];
const lacks = found.filter(({ path }) => path === null).map(({ how }) => how);
const skip = lacks.length > 0 && process.env['CI'] === undefined ? `missing: ${lacks.join('; ')}` : false;

describe('the stories of docs/migration.md on real servers', { skip }, () => {
  let consul: ConsulServer;
  let etcd: EtcdServer;
  let polaris: PolarisServer;
  let variables: Readonly<Record<string, string>> = {};

  before(async () => {
    assert.deepEqual(lacks, [], 'servers are missing in CI');
    [consul, etcd, polaris] = await Promise.all([startConsul(), startEtcd({ version: '3.6' }), startPolaris()]);
    variables = {
      CONSUL: consul.endpoint,
      ETCD: etcd.endpoint,
      POLARIS: polaris.grpc,
      POLARIS_HTTP: polaris.http,
      POLARIS_L5: polaris.l5,
      POLARIS_NACOS: polaris.nacos,
      POLARIS_TOKEN: polaris.token,
    };
  });
  after(async () => {
    await Promise.all([consul?.stop(), etcd?.stop(), polaris?.stop()]);
  });

  it('Consul → Nacos (its face on Polaris)', { timeout: 300_000 }, (t) => play(t, 'consul-nacos', variables));
  it('CL5 → Polaris, the SID kept as an alias', { timeout: 300_000 }, (t) => play(t, 'cl5-polaris', variables));
  it('etcd ⇄ Polaris, side by side', { timeout: 300_000 }, (t) => play(t, 'etcd-polaris', variables));
});

async function play(t: TestContext, story: string, variables: Readonly<Record<string, string>>): Promise<void> {
  const run = await startStory(story, variables);
  try {
    for (const block of storyBlocks(story)) await run.play(block);
    const { callers } = run;
    await callers.stop();
    t.diagnostic(
      `${story}: ${callers.requests} requests of ours, ${callers.failures.length} failed, ${callers.lost.length} instances lost`,
    );
    assert.ok(callers.requests > 100, 'there was traffic');
    assert.deepEqual(callers.failures, []);
    assert.deepEqual(callers.lost, []);
  } finally {
    await run.close();
  }
}
