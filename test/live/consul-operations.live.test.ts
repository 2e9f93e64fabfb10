// What weir writes into a real Consul and reads back: registrations, copies, fences, locks, drains, and how a wrong setting is told.
// The tests of one group share a server and run side by side; each has services of its own.
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { after, before, describe } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { copyId } from '../../adapters/consul/catalog-writer.ts';
import type { Adapter, Write, WriteMode, WriteReceipt } from '../../src/adapter/contract.ts';
import type { StateStore } from '../../src/adapter/state-store.ts';
import type { Instance } from '../../src/model/instance.ts';
import { asSourceError, SourceError } from '../../src/model/snapshot.ts';
import { sampleInstance } from '../conformance/adapter.ts';
import { type ConsulServer, consulBinary, startConsul } from '../registries/consul.ts';
import { eventually } from '../support/eventually.ts';
import { itLive, key, makeAdapter, never, Raw, withCleanup } from './consul-support.ts';

const OWN: WriteMode = { as: 'own', ttl: 15_000, liveness: 'beat' };
const COPY: WriteMode = { as: 'copy', ttl: 15_000, liveness: 'beat' };

function copy(n: number, more: Partial<Instance> = {}): Instance {
  const markers = [
    ['weir-origin', 'nacos-sz'],
    ['weir-migration', 'move-1'],
    ['weir-hops', '1'],
  ] as const;
  return sampleInstance(n, { ...more, metadata: new Map([...markers, ['team', 'blue']]) });
}

async function put(adapter: Adapter, write: Write, how: WriteMode): Promise<WriteReceipt> {
  const [result] = (await adapter.put?.([write], how, never())) ?? [];
  if (result === undefined || result instanceof SourceError) throw result ?? new Error('no answer');
  return result;
}

async function seen(adapter: Adapter, name: string): Promise<readonly Instance[]> {
  const snapshot = await adapter.read(key(name), never());
  return snapshot.kind === 'present' ? snapshot.instances : [];
}

async function one(adapter: Adapter, name: string): Promise<Instance> {
  const [first, ...rest] = await seen(adapter, name);
  assert.equal(rest.length, 0);
  return first ?? assert.fail('nothing there');
}

/** An agent tells the servers of its services a moment after it took them. */
async function becomes(adapter: Adapter, name: string, claim: (only: Instance) => boolean): Promise<Instance> {
  let last: Instance | undefined;
  await eventually(
    async () => {
      const all = await seen(adapter, name);
      last = all[0];
      return all.length === 1 && last !== undefined && claim(last);
    },
    10_000,
    20,
  );
  return last ?? assert.fail('nothing there');
}

function storeOf(adapter: Adapter): StateStore {
  return adapter.stateStore?.() ?? assert.fail('no state store');
}

interface Entry {
  readonly Service: { readonly ID: string; readonly ModifyIndex: number };
  readonly Node: { readonly Node: string; readonly Address: string; readonly Meta: Record<string, string> };
  readonly Checks: { readonly CheckID: string; readonly Status: string; readonly Output: string; readonly Notes: string }[];
}

let server: ConsulServer;
let raw: Raw;

const { path, how } = await consulBinary(true);
const absent = path === null && process.env['CI'] === undefined ? `no Consul: ${how}` : false;

describe('consul, real server: what is written', { skip: absent, concurrency: 8 }, () => {
  before(async () => {
    server = await startConsul({ data: true });
    raw = new Raw(server.address);
  });
  after(async () => {
    await server?.stop();
  });

  const entries = async (name: string): Promise<Entry[]> =>
    JSON.parse(JSON.stringify(await raw.call('GET', `/health/service/${name}`)));

  function itWith(
    name: string,
    body: (adapter: Adapter, another: (config?: object) => Adapter) => Promise<void>,
    timeout = 30_000,
  ): void {
    itLive(name, timeout, () =>
      withCleanup(async (defer) => {
        const another = (config: object = {}): Adapter => {
          const { adapter } = makeAdapter(server.address, undefined, config);
          defer(() => adapter.close());
          return adapter;
        };
        await body(another(), another);
      }),
    );
  }

  itWith('a copy stands under the synthetic node with one check, which alone changes with health', async (adapter) => {
    const instance = copy(1, { weight: 300, health: 'unhealthy', locality: { zone: 'a' }, protocol: 'grpc' });
    const receipt = await put(adapter, { key: key('copied'), instance }, COPY);
    const [entry] = await entries('copied');
    const id = copyId({ key: key('copied'), instance });
    assert.match(entry?.Node.Node ?? '', /^weir-move-1-\d+$/);
    assert.deepEqual([entry?.Node.Address, entry?.Service.ID], ['127.0.0.1', id]);
    assert.deepEqual(entry?.Node.Meta, { 'external-source': 'weir', 'weir-owner': 'move-1' });
    assert.deepEqual(
      entry?.Checks.map(({ CheckID, Status }) => [CheckID, Status]),
      [[`weir:${id}`, 'critical']],
    );
    const { health, weight, protocol, locality, metadata } = await one(adapter, 'copied');
    assert.deepEqual([health, weight, protocol, locality?.zone], ['unhealthy', 300, 'grpc', 'a']);
    assert.deepEqual([metadata.get('weir-origin'), metadata.get('team')], ['nacos-sz', 'blue']);
    await adapter.setHealth?.(receipt, 'healthy', never());
    const [later] = await entries('copied');
    assert.equal(later?.Checks[0]?.Status, 'passing');
    assert.equal(later?.Service.ModifyIndex, entry?.Service.ModifyIndex, 'the service itself was not touched');
    assert.deepEqual(await adapter.renew?.([receipt], never()), [{ kind: 'renewed', leaseMs: Number.POSITIVE_INFINITY }]);
    await raw.deregister(receipt.nativeId);
    assert.deepEqual(await adapter.renew?.([receipt], never()), [{ kind: 'forgotten' }]);
  });

  itWith('removing copies takes their records and no other, and keeps the node', async (adapter) => {
    const writes = [1, 2, 3].map((n) => ({ key: key('dropped'), instance: copy(n) }));
    const receipts = ((await adapter.put?.(writes, COPY, never())) ?? []).filter((one): one is WriteReceipt => 'nativeId' in one);
    assert.equal(receipts.length, 3);
    assert.deepEqual(await adapter.remove?.(receipts.slice(0, 2), {}, never()), [true, true]);
    assert.deepEqual(
      (await seen(adapter, 'dropped')).map(({ host }) => host),
      [copy(3).host],
    );
    assert.deepEqual(await adapter.remove?.(receipts, {}, never()), [true, true, true], 'what is gone counts as removed');
    const node = receipts[0]?.nativeId.split('/')[0];
    assert.ok(JSON.stringify(await raw.call('GET', `/catalog/node-services/${node}`)).includes('127.0.0.1'));
  });

  itWith('writers of the same copies at once end with one record each and no lost answer', async (adapter, another) => {
    const writers = [adapter, another(), another()];
    const writes = (weight: number): Write[] => [1, 2, 3, 4].map((n) => ({ key: key('raced'), instance: copy(n, { weight }) }));
    const answers = await Promise.all(writers.map((one, n) => one.put?.(writes(100 * (n + 1)), COPY, never())));
    for (const answer of answers.flat()) {
      assert.ok(answer !== undefined);
      if (answer instanceof SourceError) assert.match(answer.message, /changed by somebody else/);
    }
    assert.equal((await seen(adapter, 'raced')).length, 4);
  });

  itWith(
    'a fence lets the owner write; who lost the lock is refused for put and remove, and nothing is written',
    async (adapter, another) => {
      const first = await storeOf(adapter).lock('fence', 10_000, never());
      const receipt = await put(adapter, { key: key('fenced'), instance: copy(1) }, { ...COPY, fence: first.fence });
      await first.release();
      const other = another();
      const second = await storeOf(other).lock('fence', 10_000, never());
      const [stale] =
        (await adapter.put?.(
          [{ key: key('fenced'), instance: copy(1, { weight: 700 }) }],
          { ...COPY, fence: first.fence },
          never(),
        )) ?? [];
      assert.ok(stale instanceof SourceError && stale.causeKind === 'fenced', String(stale));
      const [kept] = (await adapter.remove?.([receipt], { fence: first.fence }, never())) ?? [];
      assert.ok(kept instanceof SourceError && kept.causeKind === 'fenced', String(kept));
      assert.equal((await one(adapter, 'fenced')).weight, 100);
      await put(other, { key: key('fenced'), instance: copy(1, { weight: 700 }) }, { ...COPY, fence: second.fence });
      assert.equal((await one(adapter, 'fenced')).weight, 700);
      await second.release();
      await assert.rejects(raw.call('GET', '/kv/weir%2Ffence'), /404/);
      assert.deepEqual(await raw.call('GET', `/session/info/${second.fence.leaseId}`), []);
    },
  );

  itWith('a service’s index, asked by a tag that nobody has, is that of its list and moves with whatever changes', async () => {
    const [service, node] = ['indexed', 'indexed-node'];
    const index = async (query: string): Promise<string> => {
      const answer = await fetch(`${server.address}/v1/health/service/${service}?${query}`);
      const text = await answer.text();
      assert.ok(query === '' || text.trim() === '[]', text.slice(0, 200));
      return answer.headers.get('x-consul-index') ?? '';
    };
    const of = (service: object) => ({
      Node: node,
      Address: '192.0.2.60',
      Service: { ID: 'i1', Service: 'indexed', ...service },
    });
    const check = { Node: node, CheckID: 'c1', Name: 'c', Status: 'passing', ServiceID: 'i1' };
    const changes: readonly (readonly [path: string, body: object])[] = [
      ['register', of({ Port: 80 })],
      ['register', of({ Port: 81 })],
      ['register', of({ Port: 81, Weights: { Passing: 7, Warning: 1 } })],
      ['register', of({ Port: 81, Meta: { a: 'b' } })],
      ['register', of({ Port: 81, Tags: ['t'] })],
      ['register', { Node: node, SkipNodeUpdate: true, Check: check }],
      ['register', { Node: node, SkipNodeUpdate: true, Check: { ...check, Status: 'critical' } }],
      ['deregister', { Node: node, CheckID: 'c1' }],
      ['register', { Node: node, SkipNodeUpdate: true, Check: { Node: node, CheckID: 'n1', Name: 'n', Status: 'critical' } }],
      ['deregister', { Node: node, CheckID: 'n1' }],
      ['register', { Node: node, Address: '192.0.2.61' }],
      ['register', of({ ID: 'i2', Port: 82 })],
      ['deregister', { Node: node, ServiceID: 'i2' }],
    ];
    let last = await index('tag=weir-none');
    for (const [path, body] of changes) {
      await raw.call('PUT', `/catalog/${path}`, body);
      const now = await index('tag=weir-none');
      assert.notEqual(now, last, JSON.stringify([path, body]));
      assert.equal(now, await index(''), JSON.stringify([path, body]));
      last = now;
    }
    await raw.call('PUT', '/catalog/deregister', { Node: node, ServiceID: 'i1' });
    assert.notEqual(await index('tag=weir-none'), last);
  });

  itWith('what no list is sent of tells that something changed: any check, any registration', async () => {
    const index = async (path: string, filter: string): Promise<number> => {
      const answer = await fetch(`${server.address}/v1${path}?filter=${encodeURIComponent(filter)}`);
      await answer.text();
      return Number(answer.headers.get('x-consul-index'));
    };
    const checks = () => index('/health/state/any', 'CheckID == "weir-none"');
    const services = () => index('/catalog/node-services/filtered-node', 'ID == "weir-none"');
    const record = { Node: 'filtered-node', Address: '192.0.2.62' };
    const before = [await checks(), await services()] as const;
    await raw.call('PUT', '/catalog/register', { ...record, Service: { ID: 'f1', Service: 'filtered', Port: 80 } });
    const between = await services();
    assert.ok(between > before[1]);
    await raw.call('PUT', '/catalog/register', {
      ...record,
      Check: { Node: record.Node, CheckID: 'c', Name: 'c', ServiceID: 'f1' },
    });
    assert.ok((await checks()) > before[0]);
  });

  itWith(
    'a session that was ended elsewhere is known at the next renewal, and its lock goes over after the delay',
    async (adapter, another) => {
      const holder = await storeOf(adapter).lock('ended', 10_000, never());
      const contender = storeOf(another()).lock('ended', 10_000, never());
      await raw.call('PUT', `/session/destroy/${holder.fence.leaseId}`);
      await eventually(() => holder.lost.aborted, 15_000, 20);
      assert.match(String(holder.lost.reason), /session is gone/);
      const next = await contender;
      assert.notEqual(next.fence.leaseId, holder.fence.leaseId);
      await next.release();
    },
  );

  itWith(
    'a holder that is killed loses its lock to the contender within two TTLs and the delay, not before its TTL',
    async (adapter) => {
      const program = fileURLToPath(new URL('./consul-lock-holder.ts', import.meta.url));
      const child = spawn(process.execPath, [program, server.address, 'killed'], { stdio: ['ignore', 'pipe', 'inherit'] });
      try {
        let said = '';
        child.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()));
        await eventually(() => said.includes('held'), 20_000, 20);
        const contender = storeOf(adapter).lock('killed', 10_000, never());
        child.kill('SIGKILL');
        const killed = performance.now();
        const won = await contender;
        assert.ok(performance.now() - killed > 6_000, 'the holder may have believed in its lock until then');
        await won.release();
      } finally {
        child.kill('SIGKILL');
      }
    },
    90_000,
  );

  itWith(
    'a drain is the maintenance of Consul, with its reason; it survives another write and ends when lifted',
    async (adapter) => {
      const write = (isolated: boolean, weight = 100): Write => ({
        key: key('drained'),
        instance: sampleInstance(1, { isolated, weight }),
      });
      const previous = await put(adapter, write(true), OWN);
      await becomes(adapter, 'drained', ({ isolated }) => isolated);
      const [entry] = await entries('drained');
      const maintenance = entry?.Checks.find(({ CheckID }) => CheckID.startsWith('_service_maintenance:'));
      assert.deepEqual([maintenance?.Status, maintenance?.Notes], ['critical', 'weir: isolated']);
      await put(adapter, { ...write(true, 200), previous }, OWN);
      assert.equal((await becomes(adapter, 'drained', ({ weight }) => weight === 200)).isolated, true);
      await put(adapter, { ...write(false, 200), previous }, OWN);
      await becomes(adapter, 'drained', ({ isolated }) => !isolated);
      await adapter.remove?.([previous], {}, never());
      await eventually(async () => (await seen(adapter, 'drained')).length === 0, 10_000, 20);
    },
  );

  itWith(
    'a TTL check turns critical without beats, a beat revives it, and a beat never lifts a failed health',
    async (adapter) => {
      const receipt = await put(adapter, { key: key('beaten'), instance: sampleInstance(1) }, { ...OWN, ttl: 1_000 });
      await becomes(adapter, 'beaten', ({ health }) => health === 'unhealthy');
      const beat = async (): Promise<void> =>
        assert.deepEqual(await adapter.renew?.([receipt], never()), [{ kind: 'renewed', leaseMs: 1_000 }]);
      await eventually(async () => beat().then(async () => (await one(adapter, 'beaten')).health === 'healthy'), 10_000, 100);
      await adapter.setHealth?.(receipt, 'unhealthy', never());
      await becomes(adapter, 'beaten', ({ health }) => health === 'unhealthy');
      await beat();
      const check = Object(await raw.call('GET', '/agent/checks'))[`service:${receipt.nativeId.split('/')[1]}`];
      assert.deepEqual(
        [check?.Status, check?.Output],
        ['critical', 'weir: critical'],
        'the word of the beat, not that of the agent',
      );
      await raw.call('PUT', `/agent/service/deregister/${receipt.nativeId.split('/')[1]}`);
      assert.deepEqual(await adapter.renew?.([receipt], never()), [{ kind: 'forgotten' }]);
    },
  );

  itWith(
    'several checks fold to the worst, those of the node included, and the warning weight counts while one warns',
    async (adapter) => {
      const check = (id: string, status: string, service = true): unknown => ({
        Node: 'many',
        CheckID: id,
        Name: id,
        Status: status,
        ...(service ? { ServiceID: 'f1' } : {}),
      });
      const register = async (...checks: unknown[]): Promise<void> => {
        const weights = { Passing: 4, Warning: 2 };
        const service = { ID: 'f1', Service: 'folded', Address: '192.0.2.9', Port: 80, Weights: weights };
        await raw.call('PUT', '/catalog/register', { Node: 'many', Address: '192.0.2.250', Service: service, Checks: checks });
      };
      const now = async (): Promise<unknown> => {
        const { health, weight, isolated } = await one(adapter, 'folded');
        return [health, weight, isolated];
      };
      await register(check('a', 'passing'), check('b', 'passing'));
      assert.deepEqual(await now(), ['healthy', 400, false]);
      await register(check('b', 'warning'));
      assert.deepEqual(await now(), ['healthy', 200, false]);
      await register(check('c', 'critical', false));
      assert.deepEqual(await now(), ['unhealthy', 400, false]);
      await register(check('c', 'passing', false), check('a', 'nonsense'));
      assert.deepEqual(await now(), ['unhealthy', 400, false]);
      await register(check('a', 'passing'), check('b', 'passing'), check('_node_maintenance', 'critical', false));
      assert.deepEqual(await now(), ['healthy', 400, true]);
    },
  );

  itWith('tags, Meta, tagged addresses and weights of a registration by its agent are read', async (adapter, another) => {
    await raw.call('PUT', '/agent/service/register', {
      ID: 'r1',
      Name: 'richly',
      Address: '192.0.2.20',
      Port: 80,
      Tags: ['blue', 'version=2.1', 'lang=go'],
      Meta: { zone: 'z1', team: 'x' },
      TaggedAddresses: { wan: { Address: '198.51.100.20', Port: 8_443 } },
      Weights: { Passing: 3, Warning: 1 },
    });
    const plain = await becomes(adapter, 'richly', () => true);
    assert.deepEqual([plain.host, plain.port, plain.weight, plain.version], ['192.0.2.20', 80, 300, '2.1']);
    assert.deepEqual([plain.locality, plain.metadata.get('team')], [{ zone: 'z1' }, 'x']);
    assert.equal(plain.metadata.get('consul.tags'), 'blue,version=2.1,lang=go');
    const wan = await one(another({ taggedAddress: 'wan', tagFields: true }), 'richly');
    assert.deepEqual([wan.host, wan.port, wan.metadata.get('lang')], ['198.51.100.20', 8_443, 'go']);
  });

  itWith("Consul's own command line reads what we wrote, and we read what it registered", async (adapter, another) => {
    const cli = async (...args: string[]): Promise<string> => {
      const env = { ...process.env, CONSUL_HTTP_ADDR: server.address };
      return (await promisify(execFile)(path ?? '', args, { env })).stdout;
    };
    await put(adapter, { key: key('ours'), instance: copy(1) }, COPY);
    assert.match(await cli('catalog', 'nodes', '-service=ours'), /^weir-move-1-\d+ /m);
    await storeOf(adapter).cas('cli', 'text of ours', null, never());
    assert.equal(await cli('kv', 'get', 'weir/cli'), 'text of ours\n');
    const meta = '-meta=zone=z2';
    await cli('services', 'register', '-name=theirs', '-id=t1', '-address=192.0.2.30', '-port=8080', '-tag=v7', meta);
    const theirs = await becomes(adapter, 'theirs', () => true);
    assert.deepEqual([theirs.host, theirs.port], ['192.0.2.30', 8_080]);
    assert.deepEqual([theirs.locality?.zone, theirs.metadata.get('consul.tags')], ['z2', 'v7']);
    await cli('maint', '-enable', '-service=t1', '-reason=repairs');
    await becomes(adapter, 'theirs', ({ isolated }) => isolated);
    await cli('kv', 'put', 'weir/cli', 'theirs');
    assert.equal((await storeOf(another()).get('cli', never()))?.value, 'theirs');
  });

  itWith(
    'namespace, partition, datacenter and peer that are not there are told in words that say what to change',
    async (_, another) => {
      const why = async (config: object, namespace = 'default'): Promise<string> => {
        const adapter = another(config);
        const name = { namespace, name: 'web' };
        const thrown = await adapter.read(name, never()).catch(asSourceError);
        return thrown instanceof SourceError ? `${thrown.causeKind}: ${thrown.message}` : thrown.kind;
      };
      assert.match(await why({ namespace: 'team' }, 'team'), /^refused: .*community edition: remove namespace/);
      assert.match(await why({ partition: 'blue' }), /^refused: .*community edition: remove partition/);
      assert.match(await why({ datacenter: 'dc9' }), /^lost: .*cannot reach that datacenter: check datacenter/);
      assert.match(await why({ peer: 'west', peerServices: ['web'] }), /^refused: .*west.*check peer/);
      const [refused] =
        (await another({ datacenter: 'dc9' })
          .put?.([{ key: key('x'), instance: sampleInstance(1) }], OWN, never())
          .catch((thrown: unknown) => [asSourceError(thrown)])) ?? [];
      assert.match(String(refused), /belongs to dc1, not to dc9/);
    },
  );
});

describe('consul, real servers', { skip: absent, concurrency: 2 }, () => {
  itLive("an agent's own anti-entropy removes a stranger from its node and leaves copies alone (W9)", 60_000, () =>
    withCleanup(async (defer) => {
      const own = await startConsul({ data: true });
      defer(() => own.stop());
      const { adapter } = makeAdapter(own.address);
      defer(() => adapter.close());
      const native = new Raw(own.address);
      await put(adapter, { key: key('copied'), instance: copy(1) }, COPY);
      const stranger = { ID: 's1', Service: 'stranger', Address: '192.0.2.77', Port: 80 };
      await native.call('PUT', '/catalog/register', { Node: 'weir-test', Address: '127.0.0.1', Service: stranger });
      assert.equal((await seen(adapter, 'stranger')).length, 1);
      // An agent compares its node with the catalog when it starts.
      await own.kill('SIGKILL');
      await own.restart();
      await eventually(async () => (await seen(adapter, 'stranger').catch(() => [1])).length === 0, 30_000, 100);
      assert.equal((await one(adapter, 'copied')).host, copy(1).host);
      assert.equal((await one(adapter, 'copied')).health, 'healthy');
    }),
  );

  itLive('services of a cluster peering are read and followed, and cannot be written', 60_000, () =>
    withCleanup(async (defer) => {
      const peering = { peering: true };
      const [there, here] = await Promise.all([startConsul(peering), startConsul(peering)]);
      defer(() => Promise.all([there.stop(), here.stop()]));
      const [far, near] = [new Raw(there.address), new Raw(here.address)];
      await far.register('web', sampleInstance(1));
      const exported = [{ Name: 'web', Consumers: [{ Peer: 'east' }] }];
      await far.call('PUT', '/config', { Kind: 'exported-services', Name: 'default', Services: exported });
      const made: unknown = await far.call('POST', '/peering/token', { PeerName: 'east' });
      await near.call('POST', '/peering/establish', { PeerName: 'west', PeeringToken: Object(made).PeeringToken });
      const { adapter } = makeAdapter(here.address, undefined, { peer: 'west', peerServices: ['web'] });
      defer(() => adapter.close());
      await eventually(async () => (await seen(adapter, 'web').catch(() => [])).length === 1, 20_000, 100);
      assert.equal((await one(adapter, 'web')).metadata.get('consul.peer'), 'west');
      const sizes: number[] = [];
      const stop = new AbortController();
      const follow = async (): Promise<void> => {
        for await (const item of adapter.watch(key('web'), stop.signal)) {
          if (item.kind === 'present') sizes.push(item.instances.length);
        }
      };
      const following = follow();
      await eventually(() => sizes.length > 0, 10_000, 20);
      await far.register('web', sampleInstance(2));
      await eventually(() => sizes.at(-1) === 2, 10_000, 20);
      assert.equal(adapter.capabilities.register, false);
      stop.abort(new Error('enough'));
      await following;
    }),
  );
});
