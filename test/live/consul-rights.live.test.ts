// The least rights with which weir works on a real Consul with default deny: exactly these policies work, and without one part of them
// the failing call names what is missing. The same texts stand in adapters/consul/README.md.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe } from 'node:test';
import type { Adapter, Write, WriteMode } from '../../src/adapter/contract.ts';
import { asSourceError, SourceError } from '../../src/model/snapshot.ts';
import { sampleInstance } from '../conformance/adapter.ts';
import { type ConsulServer, consulBinary, startConsul } from '../registries/consul.ts';
import { eventually } from '../support/eventually.ts';
import { itLive, key, makeAdapter, never, PLAIN, Raw, Rig, withCleanup } from './consul-support.ts';

const ROOT = 'root-token';
const NODE = 'weir-test';
const OWN: WriteMode = { as: 'own', ttl: 15_000, liveness: 'beat' };
const COPY: WriteMode = { as: 'copy', ttl: 15_000, liveness: 'beat' };

/** One line of a policy each, as the README prints them. */
const READ = ['service_prefix "" { policy = "read" }', 'node_prefix "" { policy = "read" }'];
const REGISTER = ['service "web" { policy = "write" }', `agent "${NODE}" { policy = "read" }`];
const MIRROR = ['service_prefix "" { policy = "write" }', 'node_prefix "weir-" { policy = "write" }'];
const LOCK = [`session "${NODE}" { policy = "write" }`, 'key_prefix "weir/" { policy = "write" }'];

let server: ConsulServer;
let raw: Raw;
let made = 0;

const { path, how } = await consulBinary(true);
const absent = path === null && process.env['CI'] === undefined ? `no Consul: ${how}` : false;

const instance = sampleInstance(1);
/** A copy of a migration of its own, so that the node of its copies does not stand yet. */
function copied(): Write {
  const markers = [
    ['weir-origin', 'nacos-sz'],
    ['weir-migration', `move-${++made}`],
    ['weir-hops', '1'],
  ] as const;
  return { key: key('copied'), instance: sampleInstance(1, { metadata: new Map(markers) }) };
}

/** A new token with exactly these rules. */
async function tokenWith(rules: readonly string[]): Promise<string> {
  const name = `policy-${++made}`;
  await raw.call('PUT', '/acl/policy', { Name: name, Rules: rules.join('\n') });
  return String(Object(await raw.call('PUT', '/acl/token', { Policies: [{ Name: name }] })).SecretID);
}

/** Runs `body` with an adapter that has exactly these rights; what it says: `ok`, or cause and text. */
async function says(
  rules: readonly string[] | null,
  body: (adapter: Adapter) => Promise<unknown>,
  config: object = {},
): Promise<string> {
  const auth = rules === null ? {} : { token: await tokenWith(rules) };
  const { adapter } = makeAdapter(server.address, { ...PLAIN, auth }, config);
  try {
    const result = await body(adapter);
    const failed = Array.isArray(result) ? result.find((one) => one instanceof SourceError) : undefined;
    if (failed !== undefined) throw failed;
    return 'ok';
  } catch (thrown) {
    const { causeKind, message } = asSourceError(thrown);
    return `${causeKind}: ${message}`;
  } finally {
    await adapter.close();
  }
}

function without(rules: readonly string[], part: string): readonly string[] {
  const rest = rules.filter((rule) => !rule.startsWith(part));
  assert.equal(rest.length, rules.length - 1, part);
  return rest;
}

async function readWeb(adapter: Adapter): Promise<void> {
  const snapshot = await adapter.read(key('read'), never());
  assert.equal(snapshot.kind === 'present' && snapshot.instances.length, 1);
}

async function register(adapter: Adapter): Promise<unknown> {
  const answers = (await adapter.put?.([{ key: key('web'), instance }], OWN, never())) ?? [];
  const receipts = answers.filter((one) => 'nativeId' in one);
  const [receipt] = receipts;
  if (receipt === undefined) return answers;
  await adapter.setHealth?.(receipt, 'unhealthy', never());
  // Six rounds: the sixth looks whether the agent still has the service.
  for (let n = 0; n < 6; n++) assert.deepEqual(await adapter.renew?.(receipts, never()), [{ kind: 'renewed', leaseMs: 15_000 }]);
  const isolated = sampleInstance(1, { isolated: true });
  const drained = await adapter.put?.([{ key: key('web'), instance: isolated, previous: receipt }], OWN, never());
  return [...(drained ?? []), ...((await adapter.remove?.(receipts, {}, never())) ?? [])];
}

async function mirror(adapter: Adapter): Promise<unknown> {
  const answers = (await adapter.put?.([copied()], COPY, never())) ?? [];
  const receipts = answers.filter((one) => 'nativeId' in one);
  const [receipt] = receipts;
  if (receipt === undefined) return answers;
  await adapter.setHealth?.(receipt, 'unhealthy', never());
  return adapter.remove?.(receipts, {}, never());
}

async function mirrorFenced(adapter: Adapter): Promise<unknown> {
  const store = adapter.stateStore?.() ?? assert.fail('no state store');
  const lock = await store.lock(`owners/${++made}`, 10_000, AbortSignal.timeout(20_000));
  const fenced = { ...COPY, fence: lock.fence };
  try {
    await store.cas('plan', String(made), null, never());
    return await adapter.put?.([copied()], fenced, never());
  } finally {
    await lock.release();
  }
}

describe('the least rights on a real Consul with default deny', { skip: absent, concurrency: 4 }, () => {
  before(async () => {
    server = await startConsul({ rootToken: ROOT });
    raw = new Raw(server.address, ROOT);
    await raw.register('read', sampleInstance(1));
  });
  after(async () => {
    await server?.stop();
  });

  itLive('reading: service:read and node:read, nothing else', 20_000, async () => {
    assert.equal(await says(READ, readWeb), 'ok');
    assert.match(
      await says(without(READ, 'service_prefix'), readWeb),
      /^denied: .*filtered by ACLs: give the token service:read and node:read/,
    );
    assert.match(
      await says(without(READ, 'node_prefix'), readWeb),
      /^denied: .*filtered by ACLs: give the token service:read and node:read/,
    );
    assert.match(await says([], readWeb), /^denied: /);
    assert.match(await says(null, readWeb), /^denied: .*no token is set.*auth\.token/);
  });

  itLive('an unknown token is told as such', 20_000, () =>
    withCleanup(async (defer) => {
      const { adapter } = makeAdapter(server.address, { ...PLAIN, auth: { token: 'f0000000-0000-0000-0000-00000000000f' } });
      defer(() => adapter.close());
      const thrown = asSourceError(await adapter.read(key('read'), never()).catch((thrown: unknown) => thrown));
      assert.deepEqual([thrown.causeKind, /not known there: check auth\.token/.test(thrown.message)], ['denied', true]);
    }),
  );

  itLive(
    'a service that the token may not see is denied, never gone: its list and the list of names are not complete',
    30_000,
    () =>
      withCleanup(async (defer) => {
        await raw.register('secret', sampleInstance(1));
        const rules = ['service "read" { policy = "read" }', 'node_prefix "" { policy = "read" }'];
        assert.match(await says(rules, (adapter) => adapter.read(key('secret'), never())), /^denied: .*filtered/);
        const rig = new Rig(makeAdapter(server.address, { ...PLAIN, auth: { token: await tokenWith(rules) } }));
        defer(() => rig.close());
        await eventually(() => rig.addresses('read').length === 1, 20_000, 20);
        const { adapter } = rig.made;
        for await (const list of adapter.services?.(never()) ?? []) {
          assert.deepEqual([list.keys.map(({ name }) => name), list.complete], [['read'], false]);
          break;
        }
      }),
  );

  itLive('registering: service:write of the own services and agent:read of the node, or the node by name', 30_000, async () => {
    assert.equal(await says(REGISTER, register), 'ok');
    assert.equal(await says(without(REGISTER, 'agent'), register, { node: NODE }), 'ok');
    assert.match(await says(without(REGISTER, 'agent'), register), /^denied: .*give the token agent:read, or set node/);
    assert.match(await says(without(REGISTER, 'service'), register), /^denied: .*lacks permission 'service:write' on "web"/);
  });

  itLive('copies: service:write, and node:write of weir- nodes', 30_000, async () => {
    assert.equal(await says(MIRROR, mirror), 'ok');
    assert.match(
      await says(without(MIRROR, 'service_prefix'), mirror),
      /^denied: .*lacks permission 'service:write' on "copied"/,
    );
    assert.match(await says(without(MIRROR, 'node_prefix'), mirror), /^denied: .*lacks permission 'node:write' on "weir-move-/);
  });

  itLive('a missing right of a copy is told before anything is written, by its name', 30_000, async () => {
    const ask = (adapter: Adapter) => adapter.mayWrite?.([key('asked'), key('web')], never()) ?? Promise.resolve([]);
    assert.equal(await says(MIRROR, ask), 'ok');
    assert.match(await says(without(MIRROR, 'node_prefix'), ask), /^denied: .*lacks node:write on "weir-"/);
    const narrow = [...without(MIRROR, 'service_prefix'), 'service "web" { policy = "write" }'];
    assert.match(await says(narrow, ask), /^denied: .*lacks service:write on "asked"/);
    const owned = ['service_prefix "" { policy = "write" }', 'node_prefix "weir-move-" { policy = "write" }'];
    assert.equal(await says(owned, ask, { owner: 'move' }), 'ok');
    assert.match(await says(null, ask), /^denied: /);
    const many = Array.from({ length: 200 }, (_, n) => key(`m${n}`));
    assert.equal(await says(MIRROR, (adapter) => adapter.mayWrite?.(many, never()) ?? Promise.resolve([])), 'ok');
    const { adapter } = makeAdapter(server.address, { ...PLAIN, auth: { token: 'f0000000-0000-0000-0000-00000000000f' } });
    const [unknown] = await ask(adapter);
    await adapter.close();
    assert.match(String(unknown?.message), /not known there: check auth\.token/);
    assert.equal(Object.hasOwn(Object(await raw.call('GET', '/catalog/services')), 'asked'), false);
  });

  itLive('locks and the state store: session:write of the node and key:write of the prefix', 60_000, async () => {
    assert.equal(await says([...MIRROR, ...LOCK], mirrorFenced), 'ok');
    assert.match(
      await says([...MIRROR, ...without(LOCK, 'session')], mirrorFenced),
      /^denied: .*lacks permission 'session:write' on "weir-test"/,
    );
    assert.match(
      await says([...MIRROR, ...without(LOCK, 'key')], mirrorFenced),
      /^denied: .*lacks permission 'key:write' on "weir\/owners/,
    );
  });

  itLive('the README prints these very policies', 5_000, async () => {
    const readme = await readFile(new URL('../../adapters/consul/README.md', import.meta.url), 'utf8');
    const host = (rule: string): string => rule.replaceAll(`"${NODE}"`, '"<node>"');
    for (const rule of [...READ, ...REGISTER, ...MIRROR, ...LOCK]) assert.ok(readme.includes(host(rule)), host(rule));
  });
});
