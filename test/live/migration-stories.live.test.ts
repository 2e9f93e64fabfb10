// The stories of docs/migration.md on real servers: Consul → Polaris' Nacos face, CL5 → Polaris (its L5 face plays CL5), etcd ⇄ Polaris.
// The same blocks of the same page as on embedded registries, and afterwards nothing of ours is left in any of them, by plain calls.
// A missing server fails in CI and skips elsewhere.
import assert from 'node:assert/strict';
import { after, before, describe, it, type TestContext } from 'node:test';
import { type ConsulServer, consulBinary, startConsul } from '../registries/consul.ts';
import { etcdBinary } from '../registries/etcd.ts';
import { type PolarisServer, polarisBinary, startPolaris } from '../registries/polaris.ts';
import { type EtcdServer, startEtcd } from '../registries/start.ts';
import { eventually } from '../support/eventually.ts';
import { storyBlocks } from '../support/story-page.ts';
import { startStory } from '../support/story-run.ts';

const found = [await consulBinary(true), await etcdBinary('3.6', true), await polarisBinary(true)];
const lacks = found.filter(({ path }) => path === null).map(({ how }) => how);
const skip = lacks.length > 0 && process.env['CI'] === undefined ? `missing: ${lacks.join('; ')}` : false;

const STORIES = [
  ['Consul → Nacos (its face on Polaris)', 'consul-nacos'],
  ['CL5 → Polaris, the SID kept as an alias', 'cl5-polaris'],
  ['etcd ⇄ Polaris, side by side', 'etcd-polaris'],
] as const;

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

  for (const [title, story] of STORIES) {
    it(title, { timeout: 300_000 }, async (t) => {
      await play(t, story, variables);
      await eventually(async () => assert.deepEqual(await left(consul, etcd, polaris), []), 90_000, 500);
      await sweep(polaris);
    });
  }
});

/** Whatever has our name on it: markers, keys of ledgers and locks, sessions, aliases. */
async function left(consul: ConsulServer, etcd: EtcdServer, polaris: PolarisServer): Promise<string[]> {
  const texts = [...(await ofConsul(consul)), ...(await ofEtcd(etcd)), ...(await ofPolaris(polaris))];
  // The agent of the test's own Consul is called weir-test.
  return texts.filter((text) => text.replaceAll('weir-test', '').includes('weir'));
}

async function ofConsul({ address }: ConsulServer): Promise<string[]> {
  const ask = async (path: string): Promise<string> => {
    const answer = await fetch(`${address}/v1${path}`);
    // Consul says so of a prefix without keys.
    return answer.status === 404 ? '' : answer.text();
  };
  const names = Object.keys(Object(JSON.parse(await ask('/catalog/services'))));
  // Nodes without a service stay: our catalog writer takes none away (adapters/consul).
  const paths = ['/kv/?keys', '/session/list', ...names.map((name) => `/health/service/${name}`)];
  return Promise.all(paths.map(async (path) => `consul ${path}: ${await ask(path)}`));
}

async function ofEtcd({ endpoint }: EtcdServer): Promise<string[]> {
  const body = JSON.stringify({ key: 'AA==', range_end: 'AA==' });
  const answer = Object(await (await fetch(`http://${endpoint}/v3/kv/range`, { method: 'POST', body })).json());
  const kvs: readonly { readonly key: string; readonly value?: string }[] = Array.isArray(answer.kvs) ? answer.kvs : [];
  const plain = (text = ''): string => Buffer.from(text, 'base64').toString();
  return kvs.map(({ key, value }) => `etcd ${plain(key)}: ${plain(value)}`);
}

/**
 * The next story begins on empty registries. A Polaris with a file store may go on showing a record that its provider took away, until it
 * is touched (seen, 1.18.1).
 */
async function sweep(polaris: PolarisServer): Promise<void> {
  for (const namespace of ['default', 'Production']) {
    const service = { service: 'hello', namespace };
    const { instances } = await polaris.console(
      'GET',
      `/naming/v1/instances?${new URLSearchParams({ ...service, limit: '100' })}`,
    );
    for (const { host, port } of Array.isArray(instances) ? instances : []) {
      await polaris.console('PUT', '/naming/v1/instances', [{ ...service, host, port, weight: 99 }], 'any');
      await polaris.console('POST', '/naming/v1/instances/delete', [{ ...service, host, port }], 'any');
    }
  }
}

async function ofPolaris(polaris: PolarisServer): Promise<string[]> {
  const list = async (path: string, of: string): Promise<readonly Record<string, string>[]> => {
    const found = (await polaris.console('GET', `/naming/v1/${path}`))[of];
    return Array.isArray(found) ? found : [];
  };
  const found = (await list('service/aliases?limit=100', 'aliases')).map(
    (one) => `polaris, an alias of weir: ${JSON.stringify(one)}`,
  );
  for (const { name = '', namespace = '' } of await list('services?limit=100', 'services')) {
    const query = new URLSearchParams({ service: name, namespace, limit: '100' });
    for (const one of await list(`instances?${query}`, 'instances')) {
      found.push(`polaris ${namespace}/${name}: ${JSON.stringify([one['host'], one['port'], one['metadata']])}`);
    }
  }
  return found;
}

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
