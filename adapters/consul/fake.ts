// Owns a fake Consul on loopback for tests: the HTTP API as an agent of 1.14.11 was seen to answer, with hooks for faults.
// Called by tests only. A fake that the real server would contradict is a defect; the same suite runs against both.
import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Clock } from '../../src/kernel/clock.ts';
import { isRecord } from '../../src/kernel/decode.ts';
import { FakeAgent, goDuration } from './fake-agent.ts';
import { FakeKv } from './fake-kv.ts';
import { AGENT_NODE, type FakeCheck, type FakeService, FakeStore } from './fake-store.ts';
import { applyTxn } from './fake-txn.ts';

type Query = URLSearchParams;

export interface FakeRequest {
  readonly at: number;
  readonly method: string;
  readonly path: string;
  readonly query: Query;
  /** How many requests of this path came before. */
  readonly nth: number;
}

/** What a hook answers instead; `null` headers value: that header is left out. */
export interface FakeAnswer {
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string | null>>;
  readonly body?: unknown;
  /** Bytes per second; 0: all at once. */
  readonly trickle?: number;
  /** Cut the connection in the middle of the body. */
  readonly cut?: boolean;
}

interface Reply {
  readonly index: number;
  readonly backend: 'blocking-query' | 'streaming';
  readonly body: unknown;
  readonly filtered: boolean;
  readonly status?: number;
}

const MAX_WAIT_MS = 600_000;
const DEFAULT_WAIT_MS = 300_000;
const MAX_CONNECTIONS = 200;

export class FakeConsul {
  readonly store = new FakeStore();
  readonly kv: FakeKv;
  readonly agent: FakeAgent;
  readonly requests: FakeRequest[] = [];
  /** Known tokens and what each may read; null: ACLs are off. */
  acl: Map<string, (service: string) => boolean> | null = null;
  streaming = true;
  /** Made anew with the data. */
  cluster: string = randomUUID();
  /** Of plain answers. */
  leader = true;
  lastContactMs = 0;
  pretty = true;
  /** Asked first; null: answer as Consul does. */
  hook: (request: FakeRequest) => FakeAnswer | null = () => null;
  /** Held requests now, those of clients that left included. */
  held = 0;
  maxHeld = 0;
  readonly #clock: Clock;
  readonly #sockets = new Set<Socket>();
  readonly #counts = new Map<string, number>();
  readonly #wakes = new Set<() => void>();
  #server: Server | null = null;
  #port = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.kv = new FakeKv(this.store, clock);
    this.agent = new FakeAgent(this.store, clock);
  }

  get address(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  async listen(): Promise<void> {
    const server = createServer({ keepAliveTimeout: 60_000 }, (request, response) => void this.#take(request, response));
    server.on('connection', (socket) => this.#accept(socket));
    await new Promise<void>((resolve) => server.listen(this.#port, '127.0.0.1', resolve));
    const address = server.address();
    if (address !== null && typeof address === 'object') this.#port = address.port;
    this.#server = server;
  }

  /** Every connection is reset. */
  cut(): void {
    // With a reset of a socket that is shutting down Node 24 never closes its handle, and spins at exit.
    for (const socket of this.#sockets) {
      if (socket.writableEnded) socket.destroy();
      else socket.resetAndDestroy();
    }
  }

  /** As a `-dev` agent that died and came back: no data, no connections. */
  wipe(): void {
    this.agent.forget();
    this.kv.keys.clear();
    this.kv.close();
    this.kv.sessions.clear();
    this.store.wipe();
    this.cluster = randomUUID();
    this.cut();
  }

  async close(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    this.agent.forget();
    this.kv.close();
    for (const wake of [...this.#wakes]) wake();
    this.cut();
    await new Promise<void>((resolve) => (server === null ? resolve() : server.close(() => resolve())));
  }

  /** Requests of a path (prefix) so far. */
  asked(prefix: string): readonly FakeRequest[] {
    return this.requests.filter(({ path }) => path.startsWith(prefix));
  }

  #accept(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('error', () => {});
    socket.once('close', () => this.#sockets.delete(socket));
    if (this.#sockets.size <= MAX_CONNECTIONS) return;
    const text = 'Your IP is issuing too many concurrent connections, please rate limit your calls\n';
    const head = `HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain\r\nContent-Length: ${text.length}\r\nConnection: close\r\n\r\n`;
    socket.end(head + text);
  }

  async #take(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const [path = '', search = ''] = (request.url ?? '').split('?', 2);
    const query = new URLSearchParams(search);
    const method = request.method ?? '';
    const nth = this.#counts.get(path) ?? 0;
    this.#counts.set(path, nth + 1);
    const seen: FakeRequest = { at: this.#clock.now(), method, path, query, nth };
    this.requests.push(seen);
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of request) chunks.push(chunk);
      const hooked = this.hook(seen);
      if (hooked !== null) return this.#answerHook(response, hooked);
      const token = request.headers['x-consul-token'];
      const rights = this.#rights(typeof token === 'string' ? token : '');
      if (rights === null) return this.#text(response, 403, 'ACL not found');
      if (query.has('ns')) {
        return this.#text(response, 400, 'Invalid query parameter: "ns" - Namespaces are a Consul Enterprise feature');
      }
      const body = Buffer.concat(chunks).toString('utf8');
      if (method === 'GET') await this.#get(request, response, path, query, rights, typeof token === 'string');
      else if (path === '/v1/internal/acl/authorize') this.#authorize(response, method, body, rights);
      else this.#put(response, path, query, body, rights);
    } catch {
      response.destroy();
    }
  }

  #rights(token: string): ((service: string) => boolean) | null {
    if (this.acl === null) return () => true;
    return token === '' ? () => false : (this.acl.get(token) ?? null);
  }

  // Reads.

  async #get(
    request: IncomingMessage,
    response: ServerResponse,
    path: string,
    query: Query,
    rights: (service: string) => boolean,
    authenticated: boolean,
  ): Promise<void> {
    const parts = path.split('/').slice(2).map(decodeURIComponent);
    if (path === '/v1/agent/self') {
      if (this.acl !== null && !rights('*agent'))
        return this.#text(response, 403, "Permission denied: lacks permission 'agent:read'");
      return this.#json(response, { Config: { NodeName: AGENT_NODE, Datacenter: 'dc1', Version: '1.14.11' } }, {});
    }
    if (path === '/v1/agent/services')
      return this.#json(
        response,
        Object.fromEntries([...this.agent.services.values()].map((one) => [String(one['ID']), one])),
        {},
      );
    if (path === '/v1/agent/checks') {
      const all = [...this.agent.checks.values()].map(({ id, name, serviceId, status, output }) => [
        id,
        { Node: AGENT_NODE, CheckID: id, Name: name, Status: status, Output: output, ServiceID: serviceId },
      ]);
      return this.#json(response, Object.fromEntries(all), {});
    }
    if (path === '/v1/status/leader') return this.#json(response, this.leader ? '127.0.0.1:8300' : '', {});
    const compute = this.#readerOf(parts, query, rights);
    if (compute === null) return this.#text(response, 404, 'Invalid URL path: not a recognized HTTP API endpoint\n');
    const asked = query.get('index');
    if (asked !== null && asked !== '' && !/^\d+$/.test(asked)) return this.#text(response, 400, 'Invalid index');
    const index = Number(asked ?? 0);
    const wait = query.get('wait') === null ? DEFAULT_WAIT_MS : goDuration(query.get('wait'));
    if (wait === null) return this.#text(response, 400, 'Invalid wait time');
    const streaming = this.streaming && index > 0 && parts[0] === 'health' && parts[1] === 'service';
    if (!this.leader && !streaming && !query.has('stale')) return this.#text(response, 500, 'No cluster leader');
    let reply = compute(streaming);
    if (index > 0 && reply.index <= index) reply = await this.#hold(request, index, wait, streaming, () => compute(streaming));
    const filtered = reply.filtered && authenticated && !streaming;
    const headers: Record<string, string> = {
      'X-Consul-Index': String(Math.max(1, reply.index)),
      'X-Consul-Knownleader': String(streaming ? false : this.leader),
      'X-Consul-Lastcontact': String(streaming ? 0 : this.lastContactMs),
      'X-Consul-Query-Backend': reply.backend,
      'X-Consul-Effective-Consistency': query.has('stale') ? 'stale' : query.has('consistent') ? 'consistent' : 'leader',
      ...(filtered ? { 'X-Consul-Results-Filtered-By-Acls': 'true' } : {}),
    };
    this.#json(response, reply.body, headers, reply.status ?? 200);
  }

  /** Waits for an index above `index`, or for the time to be over. A client that leaves a plain query still holds it. */
  async #hold(request: IncomingMessage, index: number, wait: number, streaming: boolean, compute: () => Reply): Promise<Reply> {
    this.held++;
    this.maxHeld = Math.max(this.maxHeld, this.held);
    const jitter = streaming ? 0 : wait / 32;
    await new Promise<void>((resolve) => {
      const end = (): void => {
        timer.cancel();
        off();
        this.#wakes.delete(end);
        resolve();
      };
      const timer = this.#clock.setTimer(Math.min(wait, MAX_WAIT_MS) + jitter, end);
      const off = this.store.onChange(() => {
        if (compute().index > index) end();
      });
      this.#wakes.add(end);
      if (streaming) request.socket.once('close', end);
    });
    this.held--;
    return compute();
  }

  #readerOf(
    parts: readonly string[],
    query: Query,
    rights: (service: string) => boolean,
  ): ((streaming: boolean) => Reply) | null {
    const [area, what, name = ''] = parts;
    const { store, kv } = this;
    const plain = (index: number, body: unknown, filtered: boolean): Reply => ({
      index,
      body,
      filtered,
      backend: 'blocking-query',
    });
    if (area === 'connect' && what === 'ca' && name === 'roots') {
      return () => plain(1, { ActiveRootID: 'root', TrustDomain: `${this.cluster}.consul`, Roots: [] }, false);
    }
    if (area === 'catalog' && what === 'services') {
      return () => {
        const all = [...store.names()];
        const seen = all.filter(([service]) => rights(service));
        return plain(store.servicesIndex, Object.fromEntries(seen), seen.length < all.length);
      };
    }
    if (area === 'health' && what === 'service' && name !== '') {
      return (streaming) => {
        const tag = query.get('tag');
        const has = ({ body }: FakeService): boolean =>
          tag === null || (Array.isArray(body['Tags']) && body['Tags'].includes(tag));
        const all = store.servicesNamed(name).filter(has);
        const seen = all.filter((service) => rights(service.name) && rights('*node'));
        const body = seen.map((service) => this.#entry(service));
        if (!streaming) return plain(store.plainIndex(name), body, seen.length < all.length);
        return { index: store.streamIndex(name), body, filtered: false, backend: 'streaming' };
      };
    }
    if (area === 'health' && what === 'state' && name === 'any') {
      const wanted = /^CheckID == "([^"]*)"$/.exec(query.get('filter') ?? '')?.[1];
      const fits = ({ id }: FakeCheck): boolean => wanted === undefined || id === wanted;
      return () =>
        plain(
          store.checksIndex,
          [...store.checks.values()].filter(fits).map((check) => this.#check(check)),
          false,
        );
    }
    if (area === 'health' && what === 'node') {
      return () =>
        plain(
          store.index,
          [...store.checks.values()].filter((check) => check.node === name).map((check) => this.#check(check)),
          false,
        );
    }
    if (area === 'catalog' && what === 'node-services') {
      return () => {
        const node = store.node(name);
        const services = store.servicesOf(name).map((service) => shownService(service));
        const body =
          node === undefined
            ? { Node: null, Services: null }
            : { Node: { Node: node.name, Address: node.address }, Services: services };
        return plain(store.index, body, false);
      };
    }
    if (area === 'kv') {
      const wanted = parts.slice(1).join('/');
      return () => {
        const found = [...kv.keys.values()].filter(({ key }) => (query.has('recurse') ? key.startsWith(wanted) : key === wanted));
        const index = Math.max(kv.index, ...found.map(({ modify }) => modify));
        return {
          ...plain(index, found.length === 0 ? null : found.map(shownKey), false),
          status: found.length === 0 ? 404 : 200,
        };
      };
    }
    if (area === 'session' && what === 'info')
      return () => plain(store.index, kv.sessions.has(name) ? [{ ID: name }] : [], false);
    return null;
  }

  #entry(service: FakeService): unknown {
    const node = this.store.node(service.node);
    const checks = [...this.store.checks.values()].filter(
      (check) =>
        check.node.toLowerCase() === service.node.toLowerCase() &&
        (check.serviceId === '' || check.serviceId.toLowerCase() === service.id.toLowerCase()),
    );
    return {
      Node: {
        ID: '',
        Node: service.node,
        Address: node?.address ?? '',
        Datacenter: 'dc1',
        TaggedAddresses: null,
        Meta: node?.meta ?? null,
        CreateIndex: node?.create ?? 0,
        ModifyIndex: node?.modify ?? 0,
      },
      Service: shownService(service),
      Checks: checks.map((check) => this.#check(check)),
    };
  }

  #check(check: FakeCheck): unknown {
    const service = check.serviceId === '' ? undefined : this.store.service(check.node, check.serviceId);
    return {
      Node: check.node,
      CheckID: check.id,
      Name: check.body['Name'] ?? '',
      Status: check.status,
      Notes: check.body['Notes'] ?? '',
      Output: check.body['Output'] ?? '',
      ServiceID: check.serviceId,
      ServiceName: service?.name ?? '',
      ServiceTags: service?.body['Tags'] ?? [],
      Type: '',
      Interval: '',
      Timeout: '',
      ExposedPort: 0,
      Definition: {},
      CreateIndex: check.create,
      ModifyIndex: check.modify,
    };
  }

  /** Which of the asked rights a token has. A writer's are asked for as `*service:write web`. */
  #authorize(response: ServerResponse, method: string, text: string, rights: (what: string) => boolean): void {
    if (method !== 'POST') return this.#text(response, 405, `method ${method} not allowed`);
    if (this.acl === null) return this.#text(response, 401, 'ACL support disabled');
    const asked: unknown = JSON.parse(text);
    const list = Array.isArray(asked) ? asked.filter(isRecord) : [];
    if (list.length > 64) return this.#text(response, 400, 'Refusing to process more than 64 authorizations at once');
    const answers = list.map((one) => ({ ...one, Allow: rights(`*${one['Resource']}:${one['Access']} ${one['Segment']}`) }));
    this.#json(response, answers, {});
  }

  // Writes.

  #put(response: ServerResponse, path: string, query: Query, text: string, rights: (service: string) => boolean): void {
    if (!rights('*write')) return this.#text(response, 403, "Permission denied: token lacks permission 'service:write'");
    const parts = path.split('/').slice(2).map(decodeURIComponent);
    const [area, what, third = '', fourth = ''] = parts;
    if (area === 'kv') return this.#putKv(response, parts.slice(1).join('/'), query, text);
    let body: unknown = null;
    try {
      body = text === '' ? null : JSON.parse(text);
    } catch {
      return this.#text(response, 400, "Request decode failed: invalid character 'b' looking for beginning of object key string");
    }
    const record = isRecord(body) ? body : {};
    const route = `${area}/${what}`;
    if (route === 'agent/service') return this.#putAgent(response, third, fourth, query, record);
    if (route === 'agent/check') return this.#putCheck(response, third, fourth, record);
    if (route === 'catalog/register') return this.#register(response, record);
    if (route === 'catalog/deregister') return this.#deregister(response, record);
    if (route === 'session/create') {
      const ttl = goDuration(record['TTL']) ?? 0;
      if (ttl < 10_000) return this.#text(response, 500, `Invalid Session TTL '${ttl}000000', must be between [10s=24h0m0s]`);
      return this.#json(response, { ID: this.kv.create(ttl, goDuration(record['LockDelay']) ?? 15_000) }, {});
    }
    if (route === 'session/renew') {
      const ttl = this.kv.renew(third);
      if (ttl === null) return this.#text(response, 404, `Session id '${third}' not found`);
      return this.#json(response, [{ ID: third, TTL: `${ttl / 1_000}s` }], {});
    }
    if (route === 'session/destroy') {
      this.kv.destroy(third);
      return this.#text(response, 200, 'true');
    }
    if (area === 'txn') {
      const denied = (Array.isArray(body) ? body : []).flatMap((op, at) => {
        const service: unknown = isRecord(op) && isRecord(op['Service']) ? op['Service']['Service'] : null;
        const name = isRecord(service) ? String(service['Service']) : '';
        if (name === '' || rights(`*service:write ${name}`)) return [];
        const what = `Permission denied: token with AccessorID 'fake' lacks permission 'service:write' on "${name}"`;
        return [{ OpIndex: at, What: what }];
      });
      if (denied.length > 0) return this.#json(response, { Results: null, Errors: denied }, {}, 409);
      const { status, answer } = applyTxn(Array.isArray(body) ? body : [], this.store, this.kv);
      if (status === 413) return this.#text(response, 413, String(answer));
      return this.#json(response, answer, {}, status);
    }
    this.#text(response, 404, 'Invalid URL path: not a recognized HTTP API endpoint\n');
  }

  #putKv(response: ServerResponse, key: string, query: Query, value: string): void {
    const acquire = query.get('acquire');
    const release = query.get('release');
    if (acquire !== null) {
      if (!this.kv.sessions.has(acquire)) return this.#text(response, 500, `raft apply failed: invalid session "${acquire}"`);
      return this.#text(response, 200, String(this.kv.acquire(key, value, acquire)));
    }
    if (release !== null) return this.#text(response, 200, String(this.kv.release(key, release)));
    this.kv.set(key, value);
    this.#text(response, 200, 'true');
  }

  #putAgent(response: ServerResponse, what: string, id: string, query: Query, body: Readonly<Record<string, unknown>>): void {
    const unknown = `Unknown service ID "${id}". Ensure that the service ID is passed, not the service name.`;
    if (what === 'register') {
      const fault =
        strict(body, AGENT_FIELDS) ??
        metaFault(body['Meta']) ??
        this.agent.register(body, query.get('replace-existing-checks') === 'true');
      return this.#text(response, fault === null ? 200 : 400, fault ?? '');
    }
    if (what === 'deregister')
      return this.agent.deregister(id) ? this.#text(response, 200, '') : this.#text(response, 404, unknown);
    if (what !== 'maintenance') return this.#text(response, 404, 'Invalid URL path: not a recognized HTTP API endpoint\n');
    const enable = query.get('enable');
    if (enable === null) return this.#text(response, 400, 'Missing value for enable');
    const done = this.agent.maintenance(id, enable === 'true', query.get('reason') ?? '');
    this.#text(response, done ? 200 : 404, done ? '' : unknown);
  }

  #putCheck(response: ServerResponse, what: string, id: string, body: Readonly<Record<string, unknown>>): void {
    const words: Readonly<Record<string, string>> = { pass: 'passing', warn: 'warning', fail: 'critical' };
    const status = what === 'update' ? String(body['Status']) : (words[what] ?? '');
    const done = this.agent.update(id, status, String(body['Output'] ?? ''));
    this.#text(
      response,
      done ? 200 : 404,
      done ? '' : `Unknown check ID "${id}". Ensure that the check ID is passed, not the check name.`,
    );
  }

  #register(response: ServerResponse, body: Readonly<Record<string, unknown>>): void {
    const fault = strict(body, CATALOG_FIELDS);
    if (fault !== null) return this.#text(response, 400, fault);
    const node = String(body['Node'] ?? '');
    if (node === '') return this.#text(response, 500, 'Must provide node');
    const { Service: service, Check: check } = body;
    if (body['SkipNodeUpdate'] !== true) {
      if (body['Address'] === undefined) return this.#text(response, 500, 'Must provide address if SkipNodeUpdate is not set');
      this.store.setNode(node, String(body['Address']), body['NodeMeta'] ?? null);
    }
    if (isRecord(service)) {
      const meta = metaFault(service['Meta']);
      if (meta !== null) return this.#text(response, 500, `failed inserting service: ${meta}`);
      if (service['Address'] === '0.0.0.0') return this.#text(response, 500, 'Invalid service address');
      this.store.setService(node, service);
    }
    if (isRecord(check)) {
      const id = String(check['ServiceID'] ?? '');
      if (id !== '' && this.store.service(node, id) === undefined) {
        return this.#text(response, 500, `Unknown service ID '${id}' for check ID '${String(check['CheckID'])}'`);
      }
      this.store.setCheck({ ...check, Node: node });
    }
    this.#text(response, 200, 'true');
  }

  #deregister(response: ServerResponse, body: Readonly<Record<string, unknown>>): void {
    const node = String(body['Node'] ?? '');
    if (typeof body['ServiceID'] === 'string') this.store.removeService(node, body['ServiceID']);
    else if (typeof body['CheckID'] === 'string') this.store.removeCheck(node, body['CheckID']);
    else this.store.removeNode(node);
    this.#text(response, 200, 'true');
  }

  // Answers.

  #json(response: ServerResponse, body: unknown, headers: Readonly<Record<string, string>>, status = 200): void {
    const text = body === null && status === 404 ? '' : JSON.stringify(body, null, this.pretty ? 4 : 0);
    response.writeHead(status, { 'content-type': 'application/json', ...this.#policy(), ...headers });
    response.end(text);
  }

  #text(response: ServerResponse, status: number, text: string): void {
    const bad = status === 200 ? {} : { 'X-Consul-Index': '1', 'X-Consul-Knownleader': 'false' };
    response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', ...this.#policy(), ...bad });
    response.end(text);
  }

  #policy(): Readonly<Record<string, string>> {
    return { 'X-Consul-Default-Acl-Policy': this.acl === null ? 'allow' : 'deny' };
  }

  #answerHook(response: ServerResponse, { status = 200, headers = {}, body, trickle = 0, cut = false }: FakeAnswer): void {
    const bytes = Buffer.isBuffer(body) ? body : Buffer.from(typeof body === 'string' ? body : JSON.stringify(body ?? []));
    const defaults: Record<string, string | null> = {
      'content-type': 'application/json',
      'x-consul-index': '5',
      'x-consul-query-backend': 'blocking-query',
    };
    const all = Object.entries({ ...defaults, ...headers }).filter((entry): entry is [string, string] => entry[1] !== null);
    response.writeHead(status, { ...Object.fromEntries(all), 'content-length': String(bytes.length) });
    if (cut) {
      response.write(bytes.subarray(0, Math.floor(bytes.length / 2)));
      this.#clock.setTimer(0, () => response.destroy());
    } else if (trickle > 0) response.write(bytes.subarray(0, 1));
    else response.end(bytes);
  }
}

const AGENT_FIELDS = new Set(
  'ID Name Tags Address Port Meta TaggedAddresses Weights EnableTagOverride Kind Check Checks SocketPath'.split(' '),
);
const CATALOG_FIELDS = new Set(
  'Datacenter ID Node Address TaggedAddresses NodeMeta Service Check Checks SkipNodeUpdate'.split(' '),
);

function strict(body: Readonly<Record<string, unknown>>, fields: ReadonlySet<string>): string | null {
  const unknown = Object.keys(body).find((key) => !fields.has(key));
  return unknown === undefined ? null : `Request decode failed: json: unknown field "${unknown}"`;
}

/** What Consul says of a Meta that it does not take; null when it does. */
export function metaFault(meta: unknown): string | null {
  if (!isRecord(meta)) return null;
  const pairs = Object.entries(meta);
  if (pairs.length > 64) return 'Invalid Service Meta: Node metadata cannot contain more than 64 key/value pairs';
  for (const [key, value] of pairs) {
    const say = (what: string): string =>
      `Invalid Service Meta: Couldn't load metadata pair ('${key}', '${String(value)}'): ${what}`;
    if (!/^[a-zA-Z0-9_-]+$/.test(key)) return say('Key contains invalid characters');
    if (key.length > 128) return say('Key is too long (limit: 128 characters)');
    if (key.startsWith('consul-')) return say("Key prefix 'consul-' is reserved for internal use");
    if (String(value).length > 512) return say('Value is too long (limit: 512 characters)');
  }
  return null;
}

/** A service as reads show it: a port of 0 is left out, weights out of range read 1/1. */
function shownService({ id, name, body, create, modify }: FakeService): unknown {
  const { Port: port, Weights: weights, ...rest } = body;
  const passing = isRecord(weights) ? weights['Passing'] : undefined;
  const warning = isRecord(weights) ? (weights['Warning'] ?? 0) : undefined;
  const inRange = typeof passing === 'number' && passing >= 1 && passing <= 65_535;
  return {
    Address: '',
    ...rest,
    ID: id,
    Service: name,
    Tags: body['Tags'] ?? [],
    Meta: body['Meta'] ?? null,
    ...(typeof port === 'number' && port !== 0 ? { Port: port } : {}),
    Weights: inRange ? { Passing: passing, Warning: warning } : { Passing: 1, Warning: 1 },
    EnableTagOverride: false,
    Proxy: { Mode: '', MeshGateway: {}, Expose: {} },
    Connect: {},
    PeerName: '',
    CreateIndex: create,
    ModifyIndex: modify,
  };
}

function shownKey(key: {
  key: string;
  value: string;
  session: string;
  lockIndex: number;
  create: number;
  modify: number;
}): unknown {
  return {
    LockIndex: key.lockIndex,
    Key: key.key,
    Flags: 0,
    Value: Buffer.from(key.value).toString('base64'),
    ...(key.session === '' ? {} : { Session: key.session }),
    CreateIndex: key.create,
    ModifyIndex: key.modify,
  };
}

export async function startFakeConsul(clock: Clock): Promise<FakeConsul> {
  const fake = new FakeConsul(clock);
  await fake.listen();
  return fake;
}
