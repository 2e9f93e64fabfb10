// What the npm client `nacos` (2.6.3: HTTP v1, beats, polls) and our adapter see of each other on one server: a suite for the fake
// (adapters/nacos/npm-client.test.ts) and for real ones (nacos-npm.live.test.ts), and the client as a child process.
import assert from 'node:assert/strict';
import { type ChildProcess, fork } from 'node:child_process';
import { describe, it } from 'node:test';
import type { Adapter, WriteMode, WriteReceipt } from '../../src/adapter/contract.ts';
import { isRecord } from '../../src/kernel/decode.ts';
import type { Instance } from '../../src/model/instance.ts';
import type { ServiceKey } from '../../src/model/service.ts';
import { sampleInstance } from '../conformance/adapter.ts';
import { eventually } from '../support/eventually.ts';
import { makeAdapter, PLAIN } from './nacos-support.ts';

/** The client's timers run so many times faster: its first beat and its polls come after up to 10 s. */
const SPEED = 50;
const LIMIT_MS = 60_000;

/** The client in its process. */
export class NpmPeer {
  /** Beats that the server has answered. */
  beats = 0;
  readonly #child: ChildProcess;
  readonly #calls = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  readonly #hosts = new Map<string, readonly unknown[]>();
  readonly #log: string[] = [];
  #ready = false;
  #ids = 0;

  private constructor(child: ChildProcess) {
    this.#child = child;
    child.on('message', (message) => this.#onMessage(message));
  }

  static async start(server: string, user?: { readonly username: string; readonly password: string }): Promise<NpmPeer> {
    const args = [server, String(SPEED), ...(user === undefined ? [] : [user.username, user.password])];
    // It is of an old generation: it may do what the flags of our tests forbid.
    const child = fork(new URL('./nacos-npm-child.ts', import.meta.url), args, {
      execArgv: ['--no-deprecation'],
      stdio: 'inherit',
    });
    const peer = new NpmPeer(child);
    await eventually(() => peer.#ready || child.exitCode !== null, LIMIT_MS);
    assert.equal(child.exitCode, null, 'the npm client did not start');
    return peer;
  }

  /** A method of the client. Rejects with its error as text. */
  call(name: string, ...args: readonly unknown[]): Promise<unknown> {
    const id = ++this.#ids;
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { resolve, reject });
      this.#child.send({ id, call: name, args });
    });
  }

  /** `ip:port` of the newest list that a subscriber of the service was given; null: none yet. */
  heard(serviceName: string): string[] | null {
    return this.#hosts.get(serviceName)?.map(addressOf).sort() ?? null;
  }

  /** What it logged as a warning or an error. */
  get log(): string {
    return this.#log.join('\n');
  }

  /** Without a word to anybody. */
  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = new Promise<void>((resolve) => this.#child.once('exit', () => resolve()));
    this.#child.kill('SIGKILL');
    await gone;
  }

  #onMessage(message: unknown): void {
    if (!isRecord(message)) return;
    const { id, event } = message;
    if (event === 'ready') this.#ready = true;
    else if (event === 'beat') this.beats++;
    else if (event === 'log') this.#log.push(String(message['text']));
    else if (event === 'hosts' && isRecord(message['info']) && Array.isArray(message['hosts']))
      this.#hosts.set(String(message['info']['serviceName']), message['hosts']);
    else if (typeof id === 'number') {
      const call = this.#calls.get(id);
      this.#calls.delete(id);
      if ('error' in message) call?.reject(new Error(String(message['error'])));
      else call?.resolve(message['result']);
    }
  }
}

/** `ip:port` of a host as the client shows it. */
export function addressOf(host: unknown): string {
  return isRecord(host) ? `${host['ip']}:${host['port']}` : String(host);
}

/** One server, for one test. */
export interface NpmWorld {
  /** `host:port` of HTTP. */
  readonly address: string;
  /** Keys of a source that finds it. */
  readonly source: object;
  /** 1.x shows everybody healthy: only the list for administrators tells. */
  readonly generation: number;
  /** Lets so much time pass for the server, ms. */
  advance(ms: number): Promise<void>;
  close(): Promise<void>;
}

interface Rig {
  readonly peer: NpmPeer;
  readonly adapter: Adapter;
  readonly world: NpmWorld;
  readonly key: ServiceKey;
  /** Lets time pass until the claim holds. */
  until(claim: () => unknown): Promise<unknown>;
  /** A full read by an adapter that connects for it. */
  read(): Promise<readonly Instance[]>;
}

const OWN: WriteMode = { as: 'own', ttl: 15_000, liveness: 'beat' };
let rigs = 0;

async function withRig(make: () => Promise<NpmWorld>, body: (rig: Rig) => Promise<void>): Promise<void> {
  const world = await make();
  const { adapter } = makeAdapter(world.source);
  let peer: NpmPeer | null = null;
  try {
    peer = await NpmPeer.start(world.address);
    const key = { namespace: 'default', name: `npm-${process.pid}-${++rigs}` };
    await body({
      peer,
      adapter,
      world,
      key,
      until: (claim) =>
        eventually(async () => {
          await world.advance(100);
          const held = await claim();
          if (held === false) throw new Error(`not yet; the client says: ${peer?.log.slice(-500)}`);
        }, LIMIT_MS),
      async read() {
        const fresh = makeAdapter(world.source, PLAIN).adapter;
        try {
          const snapshot = await fresh.read(key, new AbortController().signal);
          return snapshot.kind === 'present' ? snapshot.instances : [];
        } finally {
          await fresh.close();
        }
      },
    });
  } finally {
    await peer?.kill();
    await adapter.close();
    await world.close();
  }
}

async function put(adapter: Adapter, key: ServiceKey, instances: readonly Instance[]): Promise<readonly WriteReceipt[]> {
  const writes = instances.map((instance) => ({ key, instance }));
  return ((await adapter.put?.(writes, OWN, new AbortController().signal)) ?? []).map((one) => {
    if (one instanceof Error) throw one;
    return one;
  });
}

/** The suite; `make` gives a server for each test. */
export function describeNpmClient(
  name: string,
  make: () => Promise<NpmWorld>,
  options: { readonly skip?: string | false } = {},
): void {
  describe(`the npm client nacos on ${name}`, { skip: options.skip ?? false }, () => {
    it('what it registers, our adapter watches; what it deregisters leaves', { timeout: 180_000 }, async () => {
      await withRig(make, async ({ peer, adapter, key, until, world }) => {
        const stop = new AbortController();
        const seen: string[][] = [];
        const watching = (async () => {
          for await (const item of adapter.watch(key, stop.signal))
            if (item.kind === 'present') seen.push(item.instances.map(wordsOf).sort());
        })();
        const first = { ip: '192.0.2.1', port: 8_001, weight: 2, metadata: { version: 'v2', colour: 'blue' } };
        const second = { ip: '192.0.2.2', port: 8_002, clusterName: 'B' };
        await peer.call('registerInstance', key.name, first);
        await peer.call('registerInstance', key.name, second);
        const health = world.generation === 1 ? 'unknown' : 'healthy';
        const both = [`192.0.2.1#8001#DEFAULT 200 ${health} v2 blue`, `192.0.2.2#8002#B 100 ${health} - -`];
        await until(() => assert.deepEqual(seen.at(-1), both));
        await peer.call('deregisterInstance', key.name, first);
        await until(() => assert.deepEqual(seen.at(-1), both.slice(1)));
        await peer.call('deregisterInstance', key.name, second);
        await until(() => assert.deepEqual(seen.at(-1), []));
        stop.abort();
        await watching;
        assert.equal(await peer.call('getServerStatus'), 'UP');
      });
    });

    it('what our adapter registers and takes away, it hears of; the last one that goes it never does', {
      timeout: 180_000,
    }, async () => {
      await withRig(make, async ({ peer, adapter, key, until, world }) => {
        await peer.call('subscribe', { serviceName: key.name });
        const [one, two] = await put(adapter, key, [sampleInstance(1), sampleInstance(2)]);
        assert.ok(one !== undefined && two !== undefined);
        const both = ['192.0.2.1:8001', '192.0.2.2:8002'];
        await until(() => assert.deepEqual(peer.heard(key.name), both));
        const selected = await peer.call('selectInstances', key.name, 'DEFAULT_GROUP', 'DEFAULT', true, false);
        assert.ok(Array.isArray(selected));
        assert.deepEqual(selected.map(addressOf).sort(), both);
        await adapter.remove?.([one], {}, new AbortController().signal);
        await until(() => assert.deepEqual(peer.heard(key.name), both.slice(1)));
        await adapter.remove?.([two], {}, new AbortController().signal);
        // The server tells the truth; this client takes an empty list for none.
        await until(async () => assert.deepEqual(await listed(world, key), []));
        assert.deepEqual(peer.heard(key.name), both.slice(1));
        await put(adapter, key, [sampleInstance(3)]);
        await until(() => assert.deepEqual(peer.heard(key.name), ['192.0.2.3:8003']));
      });
    });

    it('its beats keep a record alive past every deadline; killed, it is unhealthy first and then gone', {
      timeout: 240_000,
    }, async () => {
      await withRig(make, async ({ peer, key, until, read, world }) => {
        const times = { interval: '1000', timeout: '5000', delete: '12000' };
        const metadata = {
          'preserved.heart.beat.interval': times.interval,
          'preserved.heart.beat.timeout': times.timeout,
          'preserved.ip.delete.timeout': times.delete,
        };
        await peer.call('registerInstance', key.name, { ip: '192.0.2.1', port: 8_001, metadata });
        for (let second = 1; second <= 18; second++) {
          const before = peer.beats;
          await eventually(() => peer.beats > before, LIMIT_MS);
          await world.advance(1_000);
        }
        assert.deepEqual(
          (await read()).map(({ health }) => health),
          ['healthy'],
        );
        await peer.kill();
        await until(async () =>
          assert.deepEqual(
            (await read()).map(({ health }) => health),
            ['unhealthy'],
          ),
        );
        await until(async () => assert.deepEqual(await read(), []));
      });
    });

    it('groups and clusters keep apart what it asks for', { timeout: 180_000 }, async () => {
      await withRig(make, async ({ peer, key, until }) => {
        await peer.call('registerInstance', key.name, { ip: '192.0.2.1', port: 8_001, clusterName: 'A' }, 'GAME');
        await peer.call('registerInstance', key.name, { ip: '192.0.2.2', port: 8_002, clusterName: 'B' }, 'GAME');
        await peer.call('registerInstance', key.name, { ip: '192.0.2.3', port: 8_003 });
        const all = async (group: string, clusters: string): Promise<string[]> => {
          const hosts = await peer.call('getAllInstances', key.name, group, clusters, false);
          return Array.isArray(hosts) ? hosts.map(addressOf).sort() : [];
        };
        await until(async () => assert.deepEqual(await all('GAME', 'A'), ['192.0.2.1:8001']));
        await until(async () => assert.deepEqual(await all('GAME', 'A,B'), ['192.0.2.1:8001', '192.0.2.2:8002']));
        await until(async () => assert.deepEqual(await all('DEFAULT_GROUP', 'DEFAULT'), ['192.0.2.3:8003']));
      });
    });
  });
}

/** Addresses in the list that a client of HTTP v1 is given. */
async function listed({ address }: NpmWorld, { name }: ServiceKey): Promise<string[]> {
  const query = new URLSearchParams({ serviceName: `DEFAULT_GROUP@@${name}`, clusters: 'DEFAULT', healthyOnly: 'false' });
  const answer = await fetch(`http://${address}/nacos/v1/ns/instance/list?${query}`);
  const body: unknown = await answer.json();
  assert.ok(isRecord(body) && Array.isArray(body['hosts']));
  return body['hosts'].map(addressOf);
}

function wordsOf({ id, weight, health, version, metadata }: Instance): string {
  return `${id} ${weight} ${health} ${version ?? '-'} ${metadata.get('colour') ?? '-'}`;
}
