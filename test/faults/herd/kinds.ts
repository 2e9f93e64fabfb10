// One transport for each kind of registry: what the registry answers to the real adapter's requests. Called by herd.ts.
// An answer says as much as the adapter needs to come to rest: one instance in each of a few services that never change.
import { EventEmitter } from 'node:events';
import { syncBuiltinESMExports } from 'node:module';
import net from 'node:net';
import { Agent } from 'undici';
import { FakeStore as EtcdStore } from '../../../adapters/etcd/fake-store.ts';
import { FakeWatchStream } from '../../../adapters/etcd/fake-watch.ts';
import { FakeL5Store } from '../../../adapters/l5/fake-store.ts';
import { decodeRequest, encodeAnswer } from '../../../adapters/l5/fake-wire.ts';
import { FrameReader, frame } from '../../../adapters/l5/frame.ts';
import { frameOf, loadWire } from '../../../adapters/nacos/wire.ts';
import { Connection } from '../../../adapters/polaris/client.ts';
import { PolarisFailure, UNAVAILABLE } from '../../../adapters/polaris/errors.ts';
import { FakeStore as PolarisStore } from '../../../adapters/polaris/fake-store.ts';
import { codec } from '../../../adapters/polaris/protocol.ts';
import { isRecord, parseJson } from '../../../src/kernel/decode.ts';
import { seededRandom } from '../../../src/kernel/random.ts';
import { injectGrpc, type ServerStream } from './grpc.ts';
import { type Ends, hostOf, replace, SERVICES, sidecarOf, type World } from './world.ts';

export const KINDS = ['etcd', 'consul', 'nacos', 'polaris', 'l5'] as const;
export type Kind = (typeof KINDS)[number];

/** A kind of registry in a world. */
export interface Registry {
  /** The own keys of the source of one sidecar. */
  config(sidecar: number): unknown;
}

const SIDS = SERVICES.map((_, n) => `192002625:${n + 1}`);

/** Puts the registry in the place of the kind's sockets for the time of the test. */
export async function inject(ends: Ends, kind: Kind, world: World): Promise<Registry> {
  switch (kind) {
    case 'etcd':
      return etcd(ends, world);
    case 'consul':
      return consul(ends, world);
    case 'nacos':
      return nacos(ends, world);
    case 'polaris':
      return polaris(ends, world);
    case 'l5':
      return l5(ends, world);
  }
}

function etcd(ends: Ends, world: World): Registry {
  const store = new EtcdStore(world.clock, () => {});
  for (const name of SERVICES) {
    store.put({ key: Buffer.from(`/services/${name}/a`), value: Buffer.from('{"Op":0,"Addr":"192.0.2.1:80"}') });
  }
  const behaviour = {
    version: '3.6.16',
    catchUpMs: 50,
    fragmentBytes: 1_000_000,
    duplicateEvents: false,
    silentWatches: false,
    cutAfterCreated: 0,
    ignoreProgress: false,
    refuse: () => null,
  } as const;
  const streams = new WeakMap<ServerStream, FakeWatchStream>();
  injectGrpc(ends, world, {
    unary(path, request) {
      if (path.endsWith('/Status')) return { header: store.header(), version: '3.6.16' };
      return store.range(request as Parameters<EtcdStore['range']>[0]);
    },
    message(stream, request) {
      const hooks = { send: stream.send, cut: () => {}, refuse: () => null };
      const watch = streams.get(stream) ?? new FakeWatchStream(store, world.clock, behaviour, hooks);
      streams.set(stream, watch);
      watch.onRequest(request as Parameters<FakeWatchStream['onRequest']>[0]);
    },
  });
  return { config: (n) => ({ endpoints: [`http://${hostOf(n)}:2379`], layout: 'grpc' }) };
}

async function nacos(ends: Ends, world: World): Promise<Registry> {
  const wire = await loadWire();
  injectHttp(ends, world, (_sidecar, path) => {
    if (path.endsWith('/v3/admin/core/state')) return { headers: {}, body: { data: { version: '3.0.3' } } };
    const pageItems = SERVICES.map((name) => ({ name, groupName: 'DEFAULT_GROUP' }));
    return { headers: {}, body: { code: 0, data: { totalCount: pageItems.length, pageItems } } };
  });
  const answer = (type: string, body: Readonly<Record<string, unknown>>): unknown => {
    const base = { resultCode: 200, errorCode: 0, success: true };
    if (type === 'ServerCheckRequest') return { ...base, connectionId: '1_127.0.0.1_5000', supportAbilityNegotiation: true };
    if (type !== 'SubscribeServiceRequest') return base;
    const host = { ip: '192.0.2.1', port: 80, weight: 1, healthy: true, enabled: true, ephemeral: true, clusterName: 'DEFAULT' };
    const { serviceName: name, groupName } = body;
    return { ...base, serviceInfo: { name, groupName, hosts: [host], lastRefTime: 1, cacheMillis: 10_000 } };
  };
  const decoded = (bytes: unknown): { type: string; body: Readonly<Record<string, unknown>> } => {
    const sent = Buffer.isBuffer(bytes) ? wire.decode(bytes) : frameOf(bytes);
    const parsed = parseJson(sent?.body ?? Buffer.alloc(0), { maxBytes: 1_000_000 });
    return { type: sent?.type ?? '', body: parsed.ok && isRecord(parsed.value) ? parsed.value : {} };
  };
  injectGrpc(ends, world, {
    unary(_path, request) {
      const { type, body } = decoded(request);
      return wire.encode(type.replace('Request', 'Response'), answer(type, body), {});
    },
    message(stream, request) {
      const ack = { requestId: '1', abilityTable: {} };
      if (decoded(request).type === 'ConnectionSetupRequest') stream.send(wire.encode('SetupAckRequest', ack, {}));
    },
  });
  return { config: (n) => ({ servers: [`${hostOf(n)}:8848`] }) };
}

function polaris(ends: Ends, world: World): Registry {
  const store = new PolarisStore(world.clock);
  ends.push(() => store.stop());
  for (const name of SERVICES) {
    store.force('default', name, { id: { value: name }, host: { value: '192.0.2.1' }, port: { value: 80 } });
  }
  store.refresh();
  const discover = codec('Discover');
  type Stream = Connection['stream'];
  function stream(this: Connection, ...[, onMessage, onEnd]: Parameters<Stream>): ReturnType<Stream> {
    const sidecar = sidecarOf(this.server);
    let over = false;
    const cancel = (): void => {
      over = true;
      uncut();
    };
    const end = (): void => {
      if (over) return;
      cancel();
      onEnd(new PolarisFailure(UNAVAILABLE, 'connect ECONNREFUSED', this.server));
    };
    const uncut = world.whenCut(end);
    if (!world.up) setImmediate(end);
    const write = (bytes: Uint8Array): void => {
      if (over || !world.ask(sidecar)) return;
      const { type = 0, service } = discover.decodeRequest(Buffer.from(bytes));
      const answer = discover.encodeResponse(store.discover(type, service ?? {}));
      setImmediate(() => (over ? undefined : onMessage(Buffer.from(answer))));
    };
    return { write, retire: cancel, cancel };
  }
  replace(ends, Connection.prototype, 'stream', stream);
  return { config: (n) => ({ servers: [`${hostOf(n)}:8091`] }) };
}

const DEFAULT_WAIT_MS = 300_000;

function consul(ends: Ends, world: World): Registry {
  const headers = { 'x-consul-index': '10', 'x-consul-knownleader': 'true', 'x-consul-lastcontact': '0' };
  const names = Object.fromEntries(SERVICES.map((name) => [name, []]));
  injectHttp(ends, world, (_sidecar, path) => {
    const url = new URL(path, 'http://consul');
    const name = url.pathname.split('/').at(-1) ?? '';
    const Service = { ID: name, Service: name, Address: '192.0.2.1', Port: 80, Weights: { Passing: 1, Warning: 1 } };
    const entry = { Node: { Node: 'n', Address: '192.0.2.1', Datacenter: 'dc1' }, Service, Checks: [] };
    const body = url.pathname === '/v1/catalog/services' ? names : name === 'consul' ? [] : [entry];
    // Nothing changes: whoever knows the index waits until his time is over.
    const waits = Number(url.searchParams.get('index') ?? 0) >= 10;
    const waitMs = waits ? Number.parseInt(url.searchParams.get('wait') ?? String(DEFAULT_WAIT_MS), 10) : 0;
    return { headers, body, waitMs };
  });
  return { config: (n) => ({ address: `http://${hostOf(n)}:8500` }) };
}

interface HttpReply {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: unknown;
  readonly waitMs?: number;
}

/** For the time of the test every undici agent speaks to this server. */
function injectHttp(ends: Ends, world: World, serve: (sidecar: number, path: string) => HttpReply): void {
  replace(ends, Agent.prototype, 'request', (options: { origin: string; path: string; signal: AbortSignal }) => {
    const broken = (): Error => Object.assign(new Error('other side closed'), { code: 'UND_ERR_SOCKET' });
    return new Promise((resolve, reject) => {
      if (!world.ask(sidecarOf(options.origin))) return setImmediate(() => reject(broken()));
      const { headers, body, waitMs = 0 } = serve(sidecarOf(options.origin), options.path);
      const end = (settle: () => void): void => {
        timer?.cancel();
        uncut();
        options.signal.removeEventListener('abort', onAbort);
        settle();
      };
      const answer = (): void => end(() => resolve({ statusCode: 200, headers, body: new FakeBody(body) }));
      const onAbort = (): void => end(() => reject(options.signal.reason));
      const uncut = world.whenCut(() => end(() => reject(broken())));
      const timer = waitMs > 0 ? world.clock.setTimer(waitMs, answer) : null;
      options.signal.addEventListener('abort', onAbort, { once: true });
      if (timer === null) setImmediate(answer);
    });
  });
}

class FakeBody extends EventEmitter {
  readonly #bytes: Buffer;

  constructor(body: unknown) {
    super();
    this.#bytes = Buffer.from(JSON.stringify(body));
  }

  destroy(): void {}

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer, void, void> {
    yield this.#bytes;
  }
}

class FakeSocket extends EventEmitter {
  readonly localAddress = '127.0.0.1';
  readonly #world: World;
  readonly #sidecar: number;
  readonly #store: FakeL5Store;
  readonly #reader = new FrameReader(2_097_152);
  #uncut: () => void = () => {};
  #over = false;

  constructor(world: World, sidecar: number, store: FakeL5Store) {
    super();
    this.#world = world;
    this.#sidecar = sidecar;
    this.#store = store;
    const up = world.ask(sidecar);
    setImmediate(() => {
      if (this.#over) return;
      if (!up || !world.up) return this.emit('error', Object.assign(new Error('refused'), { code: 'ECONNREFUSED' }));
      this.#uncut = world.whenCut(() => this.destroy());
      return this.emit('connect');
    });
  }

  write(chunk: Buffer): boolean {
    this.#reader.push(chunk, (body) => {
      if (!this.#world.ask(this.#sidecar)) return;
      const answer = this.#store.answer(decodeRequest(Buffer.from(body)), seededRandom(1));
      if (answer === null) throw new Error('an L5 command that the store does not know');
      setImmediate(() => (this.#over ? undefined : this.emit('data', frame(encodeAnswer(answer)))));
    });
    return true;
  }

  destroy(): void {
    if (this.#over) return;
    this.#over = true;
    this.#uncut();
    setImmediate(() => this.emit('close'));
  }
}

function l5(ends: Ends, world: World): Registry {
  const store = new FakeL5Store();
  for (const sid of SIDS) store.put(sid, [{ host: '192.0.2.1', port: 80, weight: 100 }]);
  const connect = net.connect;
  ends.push(() => {
    net.connect = connect;
    syncBuiltinESMExports();
  });
  Object.assign(net, { connect: ({ host }: { host: string }) => new FakeSocket(world, sidecarOf(host), store) });
  syncBuiltinESMExports();
  return { config: (n) => ({ servers: [`${hostOf(n)}:7779`], sids: SIDS }) };
}
