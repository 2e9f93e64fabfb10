// Owns a fake Nacos for tests: real gRPC and HTTP servers on loopback over fake-store.ts, with the profile of a version and fault hooks.
// Called by tests only; must never do what the real server would contradict (protocol notes, section 12).
import { createServer as createHttpServer, type Server as HttpServer } from 'node:http';
import { createServer, type Socket, type Server as TcpServer } from 'node:net';
import {
  type ConnectionInjector,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type sendUnaryData,
} from '@grpc/grpc-js';
import type { Clock, Timer } from '../../src/kernel/clock.ts';
import { isRecord } from '../../src/kernel/decode.ts';
import { type HttpHost, handleHttp } from './fake-http.ts';
import { type FakeInstance, FakeRefusal, FakeStore, nameFault, splitId } from './fake-store.ts';
import { frameOf, headersOf, loadWire, payload, type Wire } from './wire.ts';

export type FakeVersion = '1.4.6' | '2.0.4' | '2.1.1' | '2.5.1' | '3.0.3' | '3.2.0';

/** What a version can do (section 1). */
export interface Profile {
  readonly version: string;
  readonly generation: number;
  readonly grpc: boolean;
  readonly batch: boolean;
  /** Ability negotiation, persistent instances over gRPC. */
  readonly abilities: boolean;
  readonly fuzzy: boolean;
  readonly v1: boolean;
  readonly catalog: boolean;
}

function profileOf(version: FakeVersion): Profile {
  const at = (major: number, minor: number, patch: number): boolean => {
    const [a = 0, b = 0, c = 0] = version.split('.').map(Number);
    return a !== major ? a > major : b !== minor ? b > minor : c >= patch;
  };
  return {
    version,
    generation: Number.parseInt(version, 10),
    grpc: at(2, 0, 0),
    batch: at(2, 1, 1),
    abilities: at(2, 3, 0),
    fuzzy: at(3, 0, 0),
    v1: !at(3, 2, 0),
    catalog: !at(3, 0, 0),
  };
}

type Json = Readonly<Record<string, unknown>>;

/** One client: keyed by the transport's address, as the server does. */
interface Connection {
  readonly id: string;
  stream: ServerDuplexStream<unknown, object> | null;
  readonly subscribed: Set<string>;
  readonly watched: Set<string>;
  activeAt: number;
  /** Pushes that were not acknowledged yet, by request id. */
  readonly unacked: Map<string, Timer>;
  detecting: Timer | null;
}

const IDLE_MS = 20_000;
const DETECT_EVERY_MS = 3_000;
const DETECT_MS = 5_000;
const PUSH_AGAIN_MS = 6_000;

export class FakeNacos {
  readonly profile: Profile;
  readonly store: FakeStore;
  namespaces: readonly string[] = ['public'];
  /** Users by name; null: authentication is off. */
  auth: Map<string, string> | null = null;
  /** Life of a token, seconds. */
  tokenTtl = 18_000;
  /** May the user use this namespace? */
  mayUse: (user: string, namespace: string) => boolean = () => true;
  adminDenied = false;
  cacheMillis: number;
  /** Every gRPC call answers 300. */
  starting = false;
  /** Nothing is answered and nothing is sent any more: a half-open connection. */
  halfOpen = false;
  /** The setup is never confirmed. */
  neverAck = false;
  /** A client that answers a detection is unregistered all the same. */
  detectionRace = false;
  /** A limit of names and of patterns of the fuzzy watch. */
  fuzzyNames = 500;
  fuzzyPatterns = 20;
  /** Changes a push before it goes out; null: it is lost. */
  mangle: (info: Json) => Json | null = (info) => info;
  /** Every gRPC answer comes so late, ms. */
  slowMs = 0;
  /** Types of calls that are answered by 503. */
  readonly overLimit = new Set<string>();
  /** Every call with its time, for claims about rates. */
  readonly log: { readonly at: number; readonly call: string; readonly body: Json }[] = [];
  /** Types of the answers to pushes, as they came. */
  readonly acks: { readonly type: string; readonly requestId: unknown }[] = [];
  readonly #clock: Clock;
  readonly #server = new Server({ 'grpc.max_send_message_length': -1, 'grpc.max_receive_message_length': 10 * 1024 * 1024 });
  readonly #injector: ConnectionInjector;
  readonly #connections = new Map<string, Connection>();
  readonly #sockets = new Set<Socket>();
  readonly #tokens = new Map<string, { readonly user: string; readonly until: number }>();
  #tcp: TcpServer | null = null;
  #http: HttpServer | null = null;
  #grpcPort = 0;
  #httpPort = 0;
  #ids = 0;
  #detect: Timer | null = null;

  constructor(version: FakeVersion, clock: Clock, wire: Wire) {
    this.profile = profileOf(version);
    this.cacheMillis = this.profile.generation === 1 ? 3_000 : 10_000;
    this.#clock = clock;
    this.store = new FakeStore(clock, (id) => this.#pushAll(id));
    this.store.oldProtection = this.profile.generation === 1;
    this.store.onName = (id, change) => this.#nameChanged(id, change);
    this.#injector = this.#server.createConnectionInjector(ServerCredentials.createInsecure());
    this.#server.addService(wire.request, {
      request: (call: ServerUnaryCall<unknown, object>, callback: sendUnaryData<object>) => this.#unary(call, callback),
    });
    this.#server.addService(wire.stream, {
      requestBiStream: (call: ServerDuplexStream<unknown, object>) => this.#stream(call),
    });
  }

  /** `host:port` of HTTP. */
  get address(): string {
    return `127.0.0.1:${this.#httpPort}`;
  }

  get grpcPort(): number {
    return this.#grpcPort;
  }

  /** Keys of a source that finds this server. */
  get config(): { readonly servers: readonly string[]; readonly grpcPort: number } {
    // Port 1 refuses, as 9848 does beside a 1.x.
    return { servers: [this.address], grpcPort: this.#grpcPort || 1 };
  }

  get connections(): number {
    return this.#connections.size;
  }

  /** Listens (again), on the same ports. */
  async up(): Promise<void> {
    const tcp = createServer((socket) => this.#accept(socket, () => this.#injector.injectConnection(socket)));
    const http = createHttpServer((request, response) => {
      this.log.push({ at: this.#clock.now(), call: `${request.method} ${request.url?.split('?')[0]}`, body: {} });
      if (!this.halfOpen) void handleHttp(this.#httpHost(), request, response);
    });
    http.on('connection', (socket) => this.#accept(socket, () => {}));
    if (this.profile.grpc) this.#grpcPort = await listen(tcp, this.#grpcPort);
    this.#httpPort = await listen(http, this.#httpPort);
    this.#tcp = tcp;
    this.#http = http;
  }

  /** Stops listening and cuts every connection, as a killed process. */
  async down(): Promise<void> {
    const [tcp, http] = [this.#tcp, this.#http];
    this.#tcp = null;
    this.#http = null;
    const closed = [tcp, http].map((server) =>
      server?.listening ? new Promise<void>((resolve) => server.close(() => resolve())) : null,
    );
    this.cut();
    await Promise.all(closed);
  }

  /** Cuts every connection; new ones are taken. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
    for (const connection of [...this.#connections.values()]) this.#unregister(connection);
  }

  /** Ends every stream without an error, as a server that unregisters its clients. */
  endStreams(): void {
    for (const connection of [...this.#connections.values()]) {
      connection.stream?.end();
      this.#unregister(connection);
    }
  }

  /** Every client is asked to go elsewhere. */
  resetConnections(target: { readonly host: string; readonly port: number } | null): void {
    for (const connection of this.#connections.values()) {
      const fields = target === null ? {} : { serverIp: target.host, serverPort: String(target.port) };
      this.#send(connection, 'ConnectResetRequest', { ...fields, module: 'internal' });
    }
  }

  /** Restarts without persistent services: all is lost, every connection is cut. */
  wipe(): void {
    this.store.wipe();
    this.cut();
  }

  /** No token is valid any more. */
  killTokens(): void {
    this.#tokens.clear();
  }

  /** A push of the service's list as it is now, mangled, to every subscriber. */
  push(id: string): void {
    this.#pushAll(id);
  }

  async close(): Promise<void> {
    this.#detect?.cancel();
    await this.down();
    this.store.stopTimers();
    this.#server.forceShutdown();
  }

  #accept(socket: Socket, inject: () => void): void {
    this.#sockets.add(socket);
    socket.on('error', () => {});
    socket.once('close', () => {
      this.#sockets.delete(socket);
      const gone = this.#connections.get(`${socket.remoteAddress}:${socket.remotePort}`);
      if (gone !== undefined) this.#unregister(gone);
    });
    const peer = `${socket.remoteAddress}:${socket.remotePort}`;
    // The address is gone from a closed socket.
    socket.once('close', () => {
      const gone = this.#connections.get(peer);
      if (gone !== undefined) this.#unregister(gone);
    });
    inject();
  }

  #httpHost(): HttpHost {
    return {
      profile: this.profile,
      store: this.store,
      namespaces: this.namespaces,
      cacheMillis: this.cacheMillis,
      adminDenied: this.adminDenied,
      tokenFault: (token) => this.#tokenFault(token, null),
      login: (username, password) => this.#login(username, password),
    };
  }

  #login(username: string, password: string): { token: string; ttl: number } | null {
    if (this.auth?.get(username) !== password && this.auth !== null) return null;
    const token = `eyJ.${++this.#ids}.${username}`;
    this.#tokens.set(token, { user: username, until: this.#clock.now() + this.tokenTtl * 1_000 });
    return { token, ttl: this.tokenTtl };
  }

  #tokenFault(token: string | null, namespace: string | null): string | null {
    if (this.auth === null) return null;
    if (token === null || token === '')
      return 'Code: 401, Message: User not found! Please check user exist or password is right!.';
    const known = this.#tokens.get(token);
    if (known === undefined) return 'Code: 401, Message: token invalid!.';
    if (this.#clock.now() >= known.until) return 'Code: 401, Message: token expired!.';
    if (namespace !== null && !this.mayUse(known.user, namespace)) return 'Code: 403, Message: authorization failed!.';
    return null;
  }

  #unary(call: ServerUnaryCall<unknown, object>, callback: sendUnaryData<object>): void {
    const frame = frameOf(call.request);
    if (this.halfOpen || frame === null) return;
    const peer = call.getPeer();
    let answer: { type: string; body: Json };
    try {
      const body: unknown = JSON.parse(frame.body.toString('utf8'));
      const json = isRecord(body) ? body : {};
      this.log.push({ at: this.#clock.now(), call: frame.type, body: json });
      answer = this.#answer(frame.type, json, peer, headersOf(call.request).get('accessToken') ?? null);
    } catch (thrown) {
      const code = thrown instanceof FakeRefusal ? thrown.code : 502;
      answer = { type: 'ErrorResponse', body: failure(code, thrown instanceof Error ? thrown.message : String(thrown)) };
    }
    // Unary answers carry no request id, and nulls are left out.
    const send = (): void => callback(null, payload(answer.type, answer.body, {}));
    if (this.slowMs > 0) this.#clock.setTimer(this.slowMs, send);
    else send();
  }

  #answer(type: string, body: Json, peer: string, token: string | null): { type: string; body: Json } {
    if (this.starting) throw new FakeRefusal(300, 'Server is starting,please try later.');
    if (type === 'ServerCheckRequest') {
      const id = `${Math.floor(this.#clock.wallNow())}_${peer.replace(/:(\d+)$/, '_$1')}`;
      const negotiates = this.profile.abilities ? { supportAbilityNegotiation: true } : {};
      return { type: 'ServerCheckResponse', body: { ...good(), connectionId: id, ...negotiates } };
    }
    const handler = this.#handlers.get(type);
    if (handler === undefined) throw new FakeRefusal(302, 'RequestHandler Not Found');
    const connection = this.#connections.get(peer);
    if (connection === undefined) throw new FakeRefusal(301, 'Connection is unregistered.');
    connection.activeAt = this.#clock.now();
    if (this.overLimit.has(type)) throw new FakeRefusal(503, 'More than the limit');
    if (type === 'HealthCheckRequest') return { type: 'HealthCheckResponse', body: good() };
    const own = type === 'ServiceQueryRequest' ? 'QueryServiceResponse' : type.replace(/Request$/, 'Response');
    const fault = this.#tokenFault(token, String(body['namespace']));
    if (fault !== null) return { type: own, body: failure(403, fault) };
    return { type: own, body: { ...good(), ...handler(body, connection) } };
  }

  readonly #handlers: ReadonlyMap<string, (body: Json, connection: Connection) => Json> = new Map<
    string,
    (body: Json, connection: Connection) => Json
  >([
    ['HealthCheckRequest', () => ({})],
    ['InstanceRequest', (body, connection) => this.#instance(body, connection)],
    ['BatchInstanceRequest', (body, connection) => this.#batch(body, connection)],
    ['PersistentInstanceRequest', (body) => this.#persistent(body)],
    ['SubscribeServiceRequest', (body, connection) => this.#subscribe(body, connection)],
    ['ServiceQueryRequest', (body) => ({ serviceInfo: this.#info(idOf(body)) })],
    ['ServiceListRequest', (body) => this.#list(body)],
    ['NamingFuzzyWatchRequest', (body, connection) => this.#fuzzy(body, connection)],
  ]);

  #instance(body: Json, { id }: Connection): Json {
    const instance = instanceOf(body['instance']);
    if (body['type'] === 'registerInstance') this.store.publish(idOf(body), id, [instance]);
    else if (body['type'] === 'deregisterInstance') this.store.publish(idOf(body), id, []);
    else throw new FakeRefusal(400, `Unsupported request type ${String(body['type'])}`);
    return { type: body['type'] };
  }

  #batch(body: Json, { id }: Connection): Json {
    if (!this.profile.batch) throw new FakeRefusal(302, 'RequestHandler Not Found');
    const instances = Array.isArray(body['instances']) ? body['instances'] : [];
    this.store.publish(idOf(body), id, instances.map(instanceOf));
    return { type: 'batchRegisterInstance' };
  }

  #persistent(body: Json): Json {
    if (!this.profile.abilities) throw new FakeRefusal(302, 'RequestHandler Not Found');
    const instance = { ...instanceOf(body['instance']), ephemeral: false };
    if (body['type'] === 'registerInstance') this.store.persist(idOf(body), instance);
    else this.store.deregister(idOf(body), instance);
    return { type: body['type'] };
  }

  #subscribe(body: Json, connection: Connection): Json {
    const id = idOf(body);
    if (body['subscribe'] === false) connection.subscribed.delete(id);
    else {
      connection.subscribed.add(id);
      // Every accepted subscribe is followed by a push.
      this.#clock.setTimer(500, () => this.#push(connection, id));
    }
    return { message: 'success', serviceInfo: this.#info(id) };
  }

  #list(body: Json): Json {
    const group = String(body['groupName'] ?? '');
    const names = this.store.names(String(body['namespace'])).filter((name) => group !== '' && name.startsWith(`${group}@@`));
    const [page, size] = [Math.max(1, Number(body['pageNo'])), Number(body['pageSize']) || names.length];
    return {
      count: names.length,
      serviceNames: names.slice((page - 1) * size, page * size).map((name) => name.slice(group.length + 2)),
    };
  }

  #fuzzy(body: Json, connection: Connection): Json {
    if (!this.profile.fuzzy) throw new FakeRefusal(302, 'RequestHandler Not Found');
    const pattern = String(body['groupKeyPattern']);
    if (body['watchType'] === 'CANCEL_WATCH') {
      connection.watched.delete(pattern);
      return {};
    }
    const patterns = new Set([...this.#connections.values()].flatMap(({ watched }) => [...watched]));
    if (!patterns.has(pattern) && patterns.size >= this.fuzzyPatterns)
      throw new FakeRefusal(50_310, 'fuzzy watch pattern over limit');
    connection.watched.add(pattern);
    const [namespace = ''] = pattern.split('>>');
    const there = this.store.populated(namespace);
    const shown = there.slice(0, this.fuzzyNames);
    this.#clock.setTimer(500, () => this.#fuzzySync(connection, pattern, body, shown));
    if (there.length > this.fuzzyNames) throw new FakeRefusal(50_311, 'fuzzy watch pattern matched count over limit');
    return {};
  }

  #fuzzySync(connection: Connection, groupKeyPattern: string, body: Json, there: readonly string[]): void {
    const first = body['initializing'] === true;
    const held = new Set(Array.isArray(body['receivedGroupKeys']) ? body['receivedGroupKeys'].map(String) : []);
    const add = there.filter((key) => first || !held.has(key)).map((serviceKey) => ({ serviceKey, changedType: 'ADD_SERVICE' }));
    const gone = first
      ? []
      : [...held].filter((key) => !there.includes(key)).map((serviceKey) => ({ serviceKey, changedType: 'DELETE_SERVICE' }));
    const contexts = [...add, ...gone];
    const syncType = first ? 'FUZZY_WATCH_INIT_NOTIFY' : 'FUZZY_WATCH_DIFF_SYNC_NOTIFY';
    const totalBatch = Math.ceil(contexts.length / 10);
    // In any order.
    for (let batch = totalBatch; batch >= 1; batch--) {
      const part = contexts.slice((batch - 1) * 10, batch * 10);
      this.#send(connection, 'NamingFuzzyWatchSyncRequest', {
        syncType,
        groupKeyPattern,
        contexts: part,
        totalBatch,
        currentBatch: batch,
        module: 'naming',
      });
    }
    if (!first) return;
    const finish = {
      syncType: 'FINISH_FUZZY_WATCH_INIT_NOTIFY',
      groupKeyPattern,
      contexts: [],
      totalBatch: 1,
      currentBatch: 1,
      module: 'naming',
    };
    this.#send(connection, 'NamingFuzzyWatchSyncRequest', finish);
  }

  #nameChanged(id: string, changedType: string): void {
    for (const connection of this.#connections.values()) {
      for (const pattern of connection.watched) {
        if (!id.startsWith(`${pattern.split('>>')[0]}@@`)) continue;
        const body = { syncType: 'FUZZY_WATCH_RESOURCE_CHANGED', serviceKey: id, changedType, module: 'naming' };
        this.#send(connection, 'NamingFuzzyWatchChangeNotifyRequest', body);
      }
    }
  }

  #info(id: string): Json {
    const [, groupName = '', name = ''] = splitId(id);
    const { hosts, lastRefTime, reachProtectionThreshold } = this.store.info(id);
    return {
      name,
      groupName,
      clusters: '',
      cacheMillis: 10_000,
      hosts,
      lastRefTime,
      checksum: '',
      allIps: false,
      reachProtectionThreshold,
      valid: true,
    };
  }

  #pushAll(id: string): void {
    for (const connection of this.#connections.values()) if (connection.subscribed.has(id)) this.#push(connection, id);
  }

  #push(connection: Connection, id: string): void {
    if (this.#connections.get(connection.id) !== connection || !connection.subscribed.has(id)) return;
    const serviceInfo = this.mangle(this.#info(id));
    if (serviceInfo === null) return;
    const requestId = this.#send(connection, 'NotifySubscriberRequest', { serviceInfo, module: 'naming' });
    // Not acknowledged, or by another id: again, with a new one.
    connection.unacked.set(
      requestId,
      this.#clock.setTimer(PUSH_AGAIN_MS, () => {
        connection.unacked.delete(requestId);
        this.#push(connection, id);
      }),
    );
  }

  #send(connection: Connection, type: string, body: Json): string {
    const requestId = String(++this.#ids);
    if (!this.halfOpen) connection.stream?.write(payload(type, { headers: {}, requestId, ...body }, {}));
    return requestId;
  }

  #stream(call: ServerDuplexStream<unknown, object>): void {
    const peer = call.getPeer();
    call.on('data', (message: unknown) => {
      const frame = frameOf(message);
      if (frame === null || this.halfOpen) return;
      const body: unknown = JSON.parse(frame.body.toString('utf8'));
      const json = isRecord(body) ? body : {};
      if (frame.type === 'ConnectionSetupRequest') this.#setUp(peer, call, json);
      else this.#acked(peer, frame.type, json);
    });
    // The registration belongs to the transport, not to the stream.
    call.on('error', () => {});
    call.on('end', () => call.end());
  }

  #setUp(peer: string, stream: ServerDuplexStream<unknown, object>, body: Json): void {
    this.log.push({ at: this.#clock.now(), call: 'ConnectionSetupRequest', body });
    const now = this.#clock.now();
    const connection: Connection = {
      id: peer,
      stream,
      subscribed: new Set(),
      watched: new Set(),
      activeAt: now,
      unacked: new Map(),
      detecting: null,
    };
    this.#connections.set(peer, connection);
    this.#detectLater();
    if (!this.profile.abilities || this.neverAck) return;
    const abilityTable = {
      supportPersistentInstanceByGrpc: true,
      ...(this.profile.fuzzy ? { fuzzyWatch: true, lock: true } : {}),
    };
    stream.write(payload('SetupAckRequest', { headers: {}, abilityTable, module: 'internal' }, {}));
  }

  #acked(peer: string, type: string, body: Json): void {
    this.acks.push({ type, requestId: body['requestId'] });
    const connection = this.#connections.get(peer);
    if (connection === undefined) return;
    connection.activeAt = this.#clock.now();
    const id = String(body['requestId']);
    connection.unacked.get(id)?.cancel();
    connection.unacked.delete(id);
    if (type !== 'ClientDetectionResponse') return;
    connection.detecting?.cancel();
    connection.detecting = null;
    if (this.detectionRace) this.#drop(connection);
  }

  #detectLater(): void {
    this.#detect ??= this.#clock.setTimer(DETECT_EVERY_MS, () => {
      this.#detect = null;
      for (const connection of this.#connections.values()) {
        if (this.#clock.now() - connection.activeAt < IDLE_MS || connection.detecting !== null) continue;
        connection.detecting = this.#clock.setTimer(DETECT_MS, () => this.#drop(connection));
        this.#send(connection, 'ClientDetectionRequest', { module: 'internal' });
      }
      if (this.#connections.size > 0) this.#detectLater();
    });
  }

  #drop(connection: Connection): void {
    connection.stream?.end();
    this.#unregister(connection);
  }

  #unregister(connection: Connection): void {
    if (!this.#connections.delete(connection.id)) return;
    for (const timer of connection.unacked.values()) timer.cancel();
    connection.detecting?.cancel();
    this.store.release(connection.id);
  }
}

/** A fake that listens. */
export async function startFakeNacos(version: FakeVersion, clock: Clock): Promise<FakeNacos> {
  const fake = new FakeNacos(version, clock, await loadWire());
  await fake.up();
  return fake;
}

function listen(server: TcpServer, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', () => {
      const address = server.address();
      resolve(address !== null && typeof address === 'object' ? address.port : 0);
    });
  });
}

function good(): Json {
  return { resultCode: 200, errorCode: 0, success: true };
}

function failure(errorCode: number, message: string): Json {
  return { resultCode: errorCode === 400 ? 400 : 500, errorCode, message, success: false };
}

function idOf(body: Json): string {
  const [namespace, group, name] = [body['namespace'], body['groupName'], body['serviceName']].map((part) =>
    typeof part === 'string' ? part : null,
  );
  if (namespace === null || namespace === undefined) throw new FakeRefusal(500, '');
  const fault = nameFault(group ?? '', name ?? '');
  if (fault !== null) throw new FakeRefusal(group === '' ? 500 : 400, fault);
  return `${namespace}@@${group}@@${name}`;
}

function instanceOf(value: unknown): FakeInstance {
  if (!isRecord(value)) throw new FakeRefusal(400, 'Instance can not be null.');
  return {
    ip: typeof value['ip'] === 'string' ? value['ip'] : '',
    port: Number(value['port'] ?? 0),
    weight: Number(value['weight'] ?? 1),
    healthy: value['healthy'] !== false,
    enabled: value['enabled'] !== false,
    ephemeral: value['ephemeral'] !== false,
    clusterName: typeof value['clusterName'] === 'string' && value['clusterName'] !== '' ? value['clusterName'] : 'DEFAULT',
    metadata: isRecord(value['metadata']) ? value['metadata'] : {},
  };
}
