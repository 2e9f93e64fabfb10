// Owns a fake Polaris for tests: a real gRPC server on loopback over fake-store.ts, the HTTP client API beside it, and fault hooks.
// Called by tests only; must never do what the real server would contradict (protocol notes, section 16).
import {
  createServer as createHttpServer,
  type Server as HttpServer,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http';
import { createServer, type Socket, type Server as TcpServer } from 'node:net';
import {
  type ConnectionInjector,
  type handleBidiStreamingCall,
  Metadata,
  type MethodDefinition,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type sendUnaryData,
} from '@grpc/grpc-js';
import type { Clock } from '../../src/kernel/clock.ts';
import { isRecord, parseJson } from '../../src/kernel/decode.ts';
import { NO_CHANGE } from './errors.ts';
import { packagedCodec, SERVICES } from './fake-services.ts';
import { FakeStore, refusal } from './fake-store.ts';
import { instanceOfJson } from './json.ts';
import {
  type DiscoverRequest,
  type DiscoverResponse,
  type NativeInstance,
  type NativeResponse,
  TYPE_INSTANCE,
  TYPE_ROUTING,
  TYPE_SERVICES,
  textOf,
  type WriteName,
} from './protocol.ts';

/** Client auth of the server (protocol notes, section 9). */
export type FakeAuth = 'off' | 'loose' | 'strict';

interface OpenStream {
  readonly call: ServerDuplexStream<Buffer, Buffer>;
}

const discover = packagedCodec('Discover');
const passThrough = (bytes: Buffer): Buffer => bytes;

export class FakePolaris {
  readonly store: FakeStore;
  auth: FakeAuth = 'off';
  token = 'fake-token';
  /** Names of services that nobody may write. */
  readonly forbidden = new Set<string>();
  /** Nothing is answered any more (SIGSTOP, half-open). */
  silent = false;
  /** The server lacks BatchHeartbeat. */
  noBatch = false;
  /** Another answer instead of the right one; null leaves it. May be bytes. */
  answer: (request: DiscoverRequest, right: DiscoverResponse) => DiscoverResponse | Buffer | null = () => null;
  /** Writes are answered with this code. */
  writeCode: ((name: WriteName, instance: NativeInstance) => number | null) | null = null;
  /** Everything that was called, with its time. */
  readonly log: { readonly at: number; readonly call: string; readonly about: string }[] = [];
  /** Batches of beats that arrived. */
  readonly batches: string[][] = [];
  readonly #clock: Clock;
  readonly #server = new Server({ 'grpc.max_send_message_length': -1, 'grpc.max_receive_message_length': 4 * 1024 * 1024 });
  readonly #injector: ConnectionInjector;
  readonly #streams = new Set<OpenStream>();
  readonly #sockets = new Set<Socket>();
  readonly #http: HttpServer;
  #tcp: TcpServer | null = null;
  #port = 0;
  #httpPort = 0;
  #opened = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.store = new FakeStore(clock);
    this.#injector = this.#server.createConnectionInjector(ServerCredentials.createInsecure());
    const register = SERVICES.get('PolarisGRPC');
    const beats = SERVICES.get('PolarisHeartbeatGRPC');
    if (register === undefined || beats === undefined) throw new Error('the protocol table is broken');
    this.#server.addService(
      {
        RegisterInstance: methodOf(register['RegisterInstance']),
        DeregisterInstance: methodOf(register['DeregisterInstance']),
        Heartbeat: methodOf(register['Heartbeat']),
        Discover: raw(methodOf(register['Discover'])),
      },
      {
        RegisterInstance: this.#write('RegisterInstance'),
        DeregisterInstance: this.#write('DeregisterInstance'),
        Heartbeat: this.#write('Heartbeat'),
        Discover: this.#discover,
      },
    );
    this.#server.addService({ BatchHeartbeat: raw(methodOf(beats['BatchHeartbeat'])) }, { BatchHeartbeat: this.#batch });
    this.#http = createHttpServer((request, response) => void this.#onHttp(request, response));
  }

  /** `host:port` of gRPC; the same over `down` and `up`. */
  get grpc(): string {
    return `127.0.0.1:${this.#port}`;
  }

  /** `host:port` of the HTTP API. */
  get http(): string {
    return `127.0.0.1:${this.#httpPort}`;
  }

  /** Discover streams opened since the start. */
  get streamsOpened(): number {
    return this.#opened;
  }

  get openStreams(): number {
    return this.#streams.size;
  }

  /** Listens (again) with gRPC. */
  async up(): Promise<void> {
    const tcp = createServer((socket) => {
      this.#sockets.add(socket);
      socket.on('error', () => {});
      socket.once('close', () => this.#sockets.delete(socket));
      this.#injector.injectConnection(socket);
    });
    this.#port = await listen(tcp, this.#port);
    this.#tcp = tcp;
    if (this.#httpPort === 0) this.#httpPort = await listen(this.#http, 0);
  }

  /** gRPC stops listening and every connection is cut, as a killed process. HTTP goes on: it stands for another server. */
  async down(): Promise<void> {
    const tcp = this.#tcp;
    this.#tcp = null;
    this.cut();
    if (tcp !== null) await new Promise<void>((resolve) => tcp.close(() => resolve()));
  }

  /** Cuts every connection; new ones are taken. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Every stream ends with status 0, as after a panic of a handler. */
  endStreams(): void {
    for (const { call } of [...this.#streams]) call.end();
  }

  /** Every stream ends with this status. */
  failStreams(code: number, details: string): void {
    for (const { call } of [...this.#streams]) call.emit('error', { code, details, metadata: new Metadata() });
  }

  /** A message that nobody asked for. */
  sendUnasked(): void {
    const message = discover.encodeResponse({ code: { value: NO_CHANGE }, type: TYPE_INSTANCE });
    for (const { call } of this.#streams) call.write(message);
  }

  async close(): Promise<void> {
    await this.down();
    this.store.stop();
    this.#server.forceShutdown();
    this.#http.closeAllConnections();
    if (this.#httpPort !== 0) await new Promise<void>((resolve) => this.#http.close(() => resolve()));
  }

  #write(name: WriteName) {
    return (call: ServerUnaryCall<NativeInstance, NativeResponse>, callback: sendUnaryData<NativeResponse>): void => {
      if (this.silent) return;
      const [token] = call.metadata.get('x-polaris-token');
      callback(null, this.#written(name, call.request, token === undefined ? undefined : String(token)));
    };
  }

  #written(name: WriteName, instance: NativeInstance, token: string | undefined): NativeResponse {
    this.#note(name, textOf(instance.id) ?? textOf(instance.host) ?? '');
    const code = this.writeCode?.(name, instance) ?? null;
    if (code !== null) return refusal(code);
    // Beats are never checked.
    if (name !== 'Heartbeat' && this.auth === 'strict' && token !== this.token) return refusal(401_001);
    if (name !== 'Heartbeat' && this.forbidden.has(textOf(instance.service) ?? '')) return refusal(401_001);
    if (name === 'Heartbeat') return this.store.heartbeat(instance);
    return name === 'RegisterInstance' ? this.store.register(instance) : this.store.deregister(instance);
  }

  readonly #discover: handleBidiStreamingCall<Buffer, Buffer> = (call) => {
    const stream = { call };
    this.#streams.add(stream);
    this.#opened++;
    const [header] = call.metadata.get('x-polaris-token');
    // A token in the body sticks for the rest of the stream.
    let token = header === undefined ? undefined : String(header);
    call.on('data', (message: Buffer) => {
      if (this.silent) return;
      const request = discover.decodeRequest(message);
      token = textOf(request.service?.token) ?? token;
      const answer = this.#answered(request, token);
      if (answer === null) call.end();
      else call.write(Buffer.isBuffer(answer) ? answer : discover.encodeResponse(answer));
    });
    const close = (): void => void this.#streams.delete(stream);
    call.on('cancelled', close);
    call.on('close', close);
    call.on('error', () => {});
    call.on('end', () => {
      call.end();
      close();
    });
  };

  /** Null: the handler panicked. */
  #answered(request: DiscoverRequest, token: string | undefined): DiscoverResponse | Buffer | null {
    const { type = 0, service } = request;
    this.#note('Discover', `${type} ${textOf(service?.namespace) ?? ''}/${textOf(service?.name) ?? ''}`);
    if (this.auth === 'strict' && token !== this.token) return refusal(401_001);
    if (service === undefined) return type === TYPE_INSTANCE ? null : refusal(400_002);
    if (type !== TYPE_INSTANCE && type !== TYPE_SERVICES) return { ...refusal(400_004), type: TYPE_ROUTING, service };
    const right = this.store.discover(type, service);
    return this.answer(request, right) ?? right;
  }

  readonly #batch: handleBidiStreamingCall<Buffer, Buffer> = (call) => {
    if (this.noBatch) {
      call.emit('error', { code: 12, details: 'unknown service v1.PolarisHeartbeatGRPC', metadata: new Metadata() });
      return;
    }
    call.on('error', () => {});
    call.on('data', (message: Buffer) => {
      if (this.silent) return;
      const ids = packagedCodec('BatchHeartbeat')
        .decodeRequest(message)
        .heartbeats.map(({ instanceId = '' }) => instanceId);
      this.#note('BatchHeartbeat', String(ids.length));
      this.batches.push(ids);
      this.store.batch(ids);
      call.write(Buffer.alloc(0));
    });
    call.on('end', () => call.end());
  };

  async #onHttp(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    if (this.silent) return;
    const parsed = parseJson(Buffer.concat(chunks), { maxBytes: 1_000_000 });
    const body = parsed.ok && isRecord(parsed.value) ? parsed.value : {};
    const header = request.headers['x-polaris-token'];
    const token = typeof header === 'string' ? header : undefined;
    const answer =
      parsed.ok && Array.isArray(parsed.value)
        ? this.#httpDelete(request.url ?? '', parsed.value, token)
        : this.#httpAnswer(request.url ?? '', body, token);
    const code = answer['code'];
    response.writeHead(typeof code === 'number' ? Math.floor(code / 1_000) : 404, { 'content-type': 'application/json' });
    response.end(JSON.stringify(answer, null, 1));
  }

  #httpDelete(path: string, items: readonly unknown[], token: string | undefined): Readonly<Record<string, unknown>> {
    if (path !== '/naming/v1/service/aliases/delete') return { code: 404_000, info: 'not found' };
    if (token !== this.token) return { code: 401_001, info: 'access is not approved' };
    for (const item of items) {
      if (isRecord(item)) this.store.removeAlias(String(item['alias_namespace']), String(item['alias']));
    }
    return { code: 200_000, info: '' };
  }

  #httpAnswer(
    path: string,
    body: Readonly<Record<string, unknown>>,
    token: string | undefined,
  ): Readonly<Record<string, unknown>> {
    if (path === '/naming/v1/service/alias') {
      this.#note('http alias', String(body['alias']));
      if (token !== this.token) return { code: 401_001, info: 'access is not approved' };
      const target = { namespace: String(body['namespace']), name: String(body['service']) };
      return { code: this.store.alias(String(body['alias_namespace']), String(body['alias']), target), info: '' };
    }
    if (path.startsWith('/naming/v1/service/aliases?')) {
      const query = new URLSearchParams(path.slice(path.indexOf('?')));
      const target = this.store.aliasTarget(query.get('alias_namespace') ?? '', query.get('alias') ?? '');
      return { code: 200_000, aliases: target === null ? [] : [{ service: target.name, namespace: target.namespace }] };
    }
    if (path === '/v1/Discover') {
      const service = isRecord(body['service']) ? body['service'] : {};
      const wrapped = Object.fromEntries(Object.entries(service).map(([key, value]) => [key, { value: String(value) }]));
      const request = { type: body['type'] === 'SERVICES' ? TYPE_SERVICES : TYPE_INSTANCE, service: wrapped };
      const answer = this.#answered(request, token);
      return answer === null || Buffer.isBuffer(answer) ? {} : jsonOf(answer);
    }
    const name = path.replace('/v1/', '');
    if (name !== 'RegisterInstance' && name !== 'DeregisterInstance' && name !== 'Heartbeat') return {};
    const { code, info, instance } = this.#written(name, instanceOfJson(body), token);
    return { code: code?.value, info: textOf(info) ?? null, instance: instance === undefined ? null : plain(instance) };
  }

  #note(call: string, about: string): void {
    this.log.push({ at: this.#clock.now(), call, about });
  }
}

/** A fake that listens, gRPC and HTTP. */
export async function startFakePolaris(clock: Clock): Promise<FakePolaris> {
  const fake = new FakePolaris(clock);
  await fake.up();
  return fake;
}

const TYPE_NAMES: ReadonlyMap<number, string> = new Map([
  [TYPE_INSTANCE, 'INSTANCE'],
  [TYPE_ROUTING, 'ROUTING'],
  [TYPE_SERVICES, 'SERVICES'],
]);

/** An answer as the HTTP API writes it: every field, wrappers as plain values, absent ones null. */
function jsonOf(answer: DiscoverResponse): Readonly<Record<string, unknown>> {
  return {
    code: answer.code?.value,
    info: textOf(answer.info) ?? null,
    type: TYPE_NAMES.get(answer.type ?? 0) ?? 'UNKNOWN',
    service: answer.service === undefined ? null : plain(answer.service),
    instances: (answer.instances ?? []).map((one) => ({
      ...plain(one),
      metadata: Object.fromEntries((one.metadata ?? []).map(({ key = '', value = '' }) => [key, value])),
      location: one.location === undefined ? null : plain(one.location),
      healthCheck:
        one.healthCheck?.heartbeat === undefined
          ? null
          : { type: 'HEARTBEAT', heartbeat: { ttl: one.healthCheck.heartbeat.ttl?.value } },
    })),
    services: (answer.services ?? []).map((one) => plain(one)),
    aliasFor: answer.aliasFor === undefined ? null : plain(answer.aliasFor),
  };
}

/** Wrappers of one message as plain values. */
function plain(message: object): Readonly<Record<string, unknown>> {
  return Object.fromEntries(
    Object.entries(message).flatMap(([key, wrapper]: [string, unknown]) => {
      if (!isRecord(wrapper)) return [];
      const empty = key === 'port' || key === 'weight' ? 0 : key === 'healthy' || key === 'isolate' ? false : '';
      return [[key === 'vpcId' ? 'vpc_id' : key, wrapper['value'] ?? empty]];
    }),
  );
}

function methodOf(definition: unknown): MethodDefinition<NativeInstance, NativeResponse> {
  return definition as MethodDefinition<NativeInstance, NativeResponse>; // cast: the loader's definitions are untyped
}

/** The same method with its messages as bytes, so that a test can send what is no message. */
function raw(definition: MethodDefinition<NativeInstance, NativeResponse>): MethodDefinition<Buffer, Buffer> {
  return {
    path: definition.path,
    requestStream: definition.requestStream,
    responseStream: definition.responseStream,
    requestSerialize: passThrough,
    requestDeserialize: passThrough,
    responseSerialize: passThrough,
    responseDeserialize: passThrough,
  };
}

async function listen(server: TcpServer | HttpServer, port: number): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', resolve);
  });
  const address = server.address();
  return address !== null && typeof address === 'object' ? address.port : 0;
}
