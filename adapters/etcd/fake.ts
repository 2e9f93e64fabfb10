// Owns a fake etcd for tests: a real gRPC server on loopback over fake-store.ts, with both version switches and fault hooks.
// Called by tests only; must never do what the real server would contradict (protocol notes, section 12).
// Longer than usual: every call of the server and every fault hook stand together, so that what a hook touches can be seen.
import { createServer, type Socket, type Server as TcpServer } from 'node:net';
import {
  type ConnectionInjector,
  Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type sendUnaryData,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import type { Clock } from '../../src/kernel/clock.ts';
import { FakeStatus, FakeStore, type StoreImage } from './fake-store.ts';
import { FakeWatchStream, type WatchBehaviour } from './fake-watch.ts';
import { type CallName, type Calls, loadServices } from './protocol.ts';

export type FakeVersion = '3.4.23' | '3.6.16';

/** What happens to writes while it is set: they end in `code`, and are carried out before that, later (by `applyLate`), or never. */
export interface WriteFault {
  readonly code: number;
  readonly details: string;
  readonly apply: 'before' | 'late' | 'never';
}

interface OpenStream {
  readonly watch: FakeWatchStream | null;
  readonly hasLeader: boolean;
  fail(code: number, details: string): void;
}

/** A key that a call touches, and the right that it takes. */
type Use = readonly [key: Buffer, right: 'read' | 'write'];
type Uses = readonly Use[];

const TOKEN_LIFE_MS = 300_000;

const SERVICES = await loadServices();

export class FakeEtcd {
  readonly version: FakeVersion;
  readonly store: FakeStore;
  /** Behaviour of watches; change its fields at any time. */
  readonly watches: WatchBehaviour;
  /** Users by name; null: authentication is off. */
  auth: Map<string, string> | null = null;
  /** May this user (null: none, authentication off) read, or write, this key? */
  mayUse: (user: string | null, key: string, right: 'read' | 'write') => boolean = () => true;
  /** Nothing is answered and nothing is sent any more: a half-open connection. */
  halfOpen = false;
  /** The member has no leader. */
  leaderless = false;
  /** Answers wait this long, in order. */
  delayMs = 0;
  writeFault: WriteFault | null = null;
  /** Every call with its time, for claims about rates. */
  readonly log: { readonly at: number; readonly call: string }[] = [];
  readonly #clock: Clock;
  readonly #server = new Server({ 'grpc.max_send_message_length': -1, 'grpc.max_receive_message_length': -1 });
  readonly #injector: ConnectionInjector;
  readonly #streams = new Set<OpenStream>();
  readonly #tokens = new Map<string, { readonly user: string; lastUse: number }>();
  readonly #late: (() => void)[] = [];
  readonly #sockets = new Set<Socket>();
  #tcp: TcpServer | null = null;
  #port = 0;
  #tokenCount = 0;
  #sending: Promise<void> = Promise.resolve();

  constructor(version: FakeVersion, clock: Clock) {
    this.version = version;
    this.#clock = clock;
    this.store = new FakeStore(clock, ({ revision, events }) => {
      for (const { watch } of [...this.#streams]) watch?.onRevision(revision, events);
    });
    this.watches = {
      version,
      catchUpMs: 20,
      fragmentBytes: 2 * 1024 * 1024,
      duplicateEvents: false,
      silentWatches: false,
      cutAfterCreated: 0,
      ignoreProgress: false,
      refuse: () => null,
    };
    this.#injector = this.#server.createConnectionInjector(ServerCredentials.createInsecure());
    for (const [name, definition] of SERVICES) this.#server.addService(definition, this.#handlers(name));
  }

  /** `host:port`; the same over `down` and `up`. */
  get endpoint(): string {
    return `127.0.0.1:${this.#port}`;
  }

  /** Listens (again). */
  async up(): Promise<void> {
    const tcp = createServer((socket) => {
      this.#sockets.add(socket);
      socket.on('error', () => {});
      socket.once('close', () => this.#sockets.delete(socket));
      this.#injector.injectConnection(socket);
    });
    await new Promise<void>((resolve, reject) => {
      tcp.once('error', reject);
      tcp.listen(this.#port, '127.0.0.1', resolve);
    });
    const address = tcp.address();
    if (address !== null && typeof address === 'object') this.#port = address.port;
    this.#tcp = tcp;
  }

  /** Stops listening and cuts every connection, as a killed process. The data stays. */
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

  async close(): Promise<void> {
    await this.down();
    this.store.stopTimers();
    this.#server.forceShutdown();
  }

  /** SIGTERM: 3.4 cuts at once; 3.6 closes the listener and cuts the open streams 7 s later. */
  async terminate(): Promise<void> {
    if (this.version === '3.4.23') return this.down();
    const tcp = this.#tcp;
    this.#tcp = null;
    tcp?.close();
    this.#clock.setTimer(7_000, () => this.cut());
  }

  /** Loses all data under the same ids and cuts every connection. */
  wipe(): void {
    this.store.wipe();
    this.cut();
  }

  /** Puts an image of the data back and cuts every connection. */
  restore(image: StoreImage): void {
    this.store.restore(image);
    this.cut();
  }

  /** Every watch is canceled by the server with this reason. */
  cancelWatches(reason: string): void {
    for (const { watch } of [...this.#streams]) watch?.cancelAll(reason);
  }

  /** Every stream ends with this status. */
  failStreams(code: number, details: string): void {
    for (const stream of [...this.#streams]) stream.fail(code, details);
  }

  /** The leader is lost: streams that asked for one end. */
  loseLeader(): void {
    this.leaderless = true;
    for (const stream of [...this.#streams]) if (stream.hasLeader) stream.fail(14, 'etcdserver: no leader');
  }

  /** Carries out the writes that `writeFault` kept back. */
  applyLate(): void {
    for (const write of this.#late.splice(0)) write();
  }

  /** No token is valid any more. */
  killTokens(): void {
    this.#tokens.clear();
  }

  get openWatches(): number {
    return [...this.#streams].filter(({ watch }) => watch !== null).length;
  }

  #handlers(service: string): UntypedServiceImplementation {
    const { store } = this;
    switch (service) {
      case 'KV':
        return {
          Range: this.#unary(
            'Range',
            (request) => store.range(request),
            (request) => [[request.key, 'read']],
          ),
          Put: this.#write(
            'Put',
            (request) => store.put(request),
            (request) => [[request.key, 'write']],
            () => ({ header: store.header() }),
          ),
          DeleteRange: this.#unary(
            'DeleteRange',
            (request) => ({ deleted: String(store.deleteRange(request)), header: store.header() }),
            (request) => [[request.key, 'write']],
          ),
          Txn: this.#txn(),
          Compact: this.#unary('Compact', (request) => {
            store.compact(BigInt(request.revision));
            return { header: store.header() };
          }),
        };
      case 'Lease':
        return {
          LeaseGrant: this.#unary('LeaseGrant', (request) => {
            const { id, ttl } = store.grant(Number(request.ttl), request.id ?? '0');
            return { header: store.header(), id, ttl: String(ttl), error: '' };
          }),
          LeaseRevoke: this.#unary('LeaseRevoke', (request) => {
            store.revoke(request.id);
            return { header: store.header() };
          }),
          LeaseTimeToLive: this.#unary('LeaseTimeToLive', (request) => {
            const { ttl, grantedTtl, keys } = store.timeToLive(request.id);
            const shown = request.keys === true ? keys : [];
            return { header: store.header(), id: request.id, ttl: String(ttl), grantedTtl: String(grantedTtl), keys: shown };
          }),
          LeaseKeepAlive: (call: ServerDuplexStream<Calls['LeaseKeepAlive'][0], Calls['LeaseKeepAlive'][1]>) =>
            this.#keepAlive(call),
        };
      case 'Watch':
        return { Watch: (call: ServerDuplexStream<Calls['Watch'][0], Calls['Watch'][1]>) => this.#watch(call) };
      case 'Auth':
        return {
          Authenticate: this.#unary('Authenticate', (request) => ({ header: store.header(), token: this.#login(request) })),
        };
      default:
        return {
          Status: this.#unary('Status', () => ({
            header: store.header(),
            version: this.version,
            leader: this.leaderless ? '0' : store.memberId,
            errors: this.leaderless ? ['etcdserver: no leader'] : [],
          })),
        };
    }
  }

  #unary<N extends CallName>(
    name: N,
    answer: (request: Calls[N][0]) => Calls[N][1],
    keys: (request: Calls[N][0]) => Uses = () => [],
  ) {
    return (call: ServerUnaryCall<Calls[N][0], Calls[N][1]>, callback: sendUnaryData<Calls[N][1]>): void => {
      this.log.push({ at: this.#clock.now(), call: name });
      if (this.halfOpen) return;
      this.#settle(callback, () => {
        this.#admit(name, call.metadata, keys(call.request));
        return answer(call.request);
      });
    };
  }

  #write<N extends CallName>(
    name: N,
    write: (request: Calls[N][0]) => void,
    keys: (request: Calls[N][0]) => Uses,
    answer: () => Calls[N][1],
  ) {
    return this.#unary(
      name,
      (request) => {
        const fault = this.writeFault;
        if (fault?.apply === 'late') this.#late.push(() => write(request));
        else if (fault?.apply !== 'never') write(request);
        if (fault !== null) throw new FakeStatus(fault.code, fault.details);
        return answer();
      },
      keys,
    );
  }

  #txn() {
    let last: Calls['Txn'][1] | null = null;
    return this.#write(
      'Txn',
      (request) => {
        try {
          last = this.store.txn(request);
        } catch (thrown) {
          // A late one has nobody to tell.
          if (this.writeFault === null || this.writeFault.apply !== 'late') throw thrown;
        }
      },
      // Both branches, whichever will be carried out, and what is compared.
      ({ compare, success, failure }) => [
        ...compare.map(({ key }): Use => [key, 'read']),
        ...[...success, ...failure].flatMap(({ put, deleteRange, range }): Use[] => {
          const written = put?.key ?? deleteRange?.key;
          if (written !== undefined) return [[written, 'write']];
          return range == null ? [] : [[range.key, 'read']];
        }),
      ],
      () => last ?? { header: this.store.header(), succeeded: false, responses: [] },
    );
  }

  #settle<T>(callback: sendUnaryData<T>, make: () => T): void {
    this.#inOrder(() => {
      try {
        callback(null, make());
      } catch (thrown) {
        if (thrown instanceof FakeStatus) callback({ code: thrown.code, details: thrown.details, metadata: new Metadata() });
        else callback({ code: 13, details: String(thrown), metadata: new Metadata() });
      }
    });
  }

  #watch(call: ServerDuplexStream<Calls['Watch'][0], Calls['Watch'][1]>): void {
    const stream = new FakeWatchStream(this.store, this.#clock, this.watches, {
      send: (response) => {
        if (!this.halfOpen) this.#inOrder(() => void call.write(response));
      },
      cut: () => this.cut(),
      refuse: (key) => this.watches.refuse(key) ?? this.#refusal(call.metadata, key),
    });
    this.#open('Watch', call, stream, (request) => stream.onRequest(request));
  }

  #keepAlive(call: ServerDuplexStream<Calls['LeaseKeepAlive'][0], Calls['LeaseKeepAlive'][1]>): void {
    this.#open('LeaseKeepAlive', call, null, ({ id }) => {
      const ttl = String(this.store.keepAlive(id));
      this.#inOrder(() => void call.write({ header: this.store.header(), id, ttl }));
    });
  }

  #open<Request, Response>(
    name: CallName,
    call: ServerDuplexStream<Request, Response>,
    watch: FakeWatchStream | null,
    onRequest: (request: Request) => void,
  ): void {
    this.log.push({ at: this.#clock.now(), call: name });
    const fail = (code: number, details: string): void => {
      call.emit('error', { code, details, metadata: new Metadata() });
      close();
    };
    const close = (): void => {
      this.#streams.delete(stream);
      watch?.close();
    };
    const stream: OpenStream = { watch, hasLeader: call.metadata.get('hasleader').length > 0, fail };
    this.#streams.add(stream);
    call.on('data', (request: Request) => {
      if (this.halfOpen) return;
      try {
        if (this.leaderless && stream.hasLeader) throw new FakeStatus(14, 'etcdserver: no leader');
        if (name === 'LeaseKeepAlive' && this.version === '3.6.16') this.#user(call.metadata);
        onRequest(request);
      } catch (thrown) {
        if (thrown instanceof FakeStatus) fail(thrown.code, thrown.details);
        else throw thrown;
      }
    });
    call.on('cancelled', close);
    call.on('close', close);
    // A half close ends a keepalive stream, but a watch goes on delivering.
    call.on('end', () => {
      if (watch !== null) return;
      call.end();
      close();
    });
  }

  /** Reason of a watch's refusal, in the words of the server, or null. */
  #refusal(metadata: Metadata, key: Buffer): string | null {
    try {
      this.#mayUse(this.#user(metadata), key, 'read');
      return null;
    } catch (thrown) {
      if (!(thrown instanceof FakeStatus)) throw thrown;
      const names: Readonly<Record<number, string>> = { 3: 'InvalidArgument', 7: 'PermissionDenied', 16: 'Unauthenticated' };
      return `rpc error: code = ${names[thrown.code] ?? 'Unknown'} desc = ${thrown.details}`;
    }
  }

  #admit(name: CallName, metadata: Metadata, keys: Uses): void {
    if (this.leaderless && name !== 'Status') {
      const hasLeader = metadata.get('hasleader').length > 0;
      throw new FakeStatus(14, hasLeader ? 'etcdserver: no leader' : 'etcdserver: request timed out');
    }
    const open = name === 'Authenticate' || (this.version === '3.4.23' && (name === 'Status' || name === 'LeaseGrant'));
    if (open) return;
    const user = this.#user(metadata);
    for (const [key, right] of keys) this.#mayUse(user, key, right);
  }

  #mayUse(user: string | null, key: Buffer, right: 'read' | 'write'): void {
    if (!this.mayUse(user, key.toString('utf8'), right)) throw new FakeStatus(7, 'etcdserver: permission denied');
  }

  /** The user of a token; null while authentication is off. */
  #user(metadata: Metadata): string | null {
    const [token] = metadata.get('token');
    if (this.auth === null) {
      // 3.4.23 checks a token even then.
      if (token !== undefined && this.version === '3.4.23') throw new FakeStatus(16, 'etcdserver: invalid auth token');
      return null;
    }
    if (token === undefined) throw new FakeStatus(3, 'etcdserver: user name is empty');
    const known = this.#tokens.get(String(token));
    if (known === undefined || this.#clock.now() - known.lastUse > TOKEN_LIFE_MS) {
      throw new FakeStatus(16, 'etcdserver: invalid auth token');
    }
    known.lastUse = this.#clock.now();
    return known.user;
  }

  #login({ name, password }: Calls['Authenticate'][0]): string {
    if (this.auth === null) throw new FakeStatus(9, 'etcdserver: authentication is not enabled');
    if (name === '' || this.auth.get(name) !== password) {
      throw new FakeStatus(3, 'etcdserver: authentication failed, invalid user ID or password');
    }
    const token = `abcdefghijklmnop.${++this.#tokenCount}`;
    this.#tokens.set(token, { user: name, lastUse: this.#clock.now() });
    return token;
  }

  /** Answers leave in the order in which they were made, each `delayMs` late. */
  #inOrder(send: () => void): void {
    if (this.delayMs === 0) {
      send();
      return;
    }
    const wait = this.delayMs;
    this.#sending = this.#sending.then(() => this.#clock.sleep(wait)).then(send);
  }
}

/** A fake that listens. `version` chooses what differs between servers. */
export async function startFakeEtcd(version: FakeVersion, clock: Clock): Promise<FakeEtcd> {
  const fake = new FakeEtcd(version, clock);
  await fake.up();
  return fake;
}
