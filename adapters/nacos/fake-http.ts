// Owns the HTTP face of the fake Nacos: v1, v3 client, v3 admin and login, with the codes and texts of the real servers (sections 3, 6, 14).
// Called by fake.ts; must never do what the real server would contradict.
import type { IncomingMessage, ServerResponse } from 'node:http';
import { isRecord } from '../../src/kernel/decode.ts';
import type { Profile } from './fake.ts';
import { type FakeInstance, FakeRefusal, type FakeStore, nameFault } from './fake-store.ts';

export interface HttpHost {
  readonly profile: Profile;
  readonly store: FakeStore;
  readonly namespaces: readonly string[];
  readonly cacheMillis: number;
  /** Null: the token is good, or authentication is off; else the text of the 403. */
  tokenFault(token: string | null): string | null;
  /** Null: refused. */
  login(username: string, password: string): { readonly token: string; readonly ttl: number } | null;
  /** Admin calls answer 403. */
  readonly adminDenied: boolean;
}

type Params = ReadonlyMap<string, string>;
type Handler = (host: HttpHost, params: Params) => unknown;

/** A raw status with the framework's JSON. */
class Status extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export async function handleHttp(host: HttpHost, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? '/', 'http://fake');
  const params = new Map(url.searchParams);
  const body = await textOf(request);
  // 1.4.6 ignores the form of a POST, but not of a login.
  if (host.profile.generation > 1 || request.method !== 'POST' || url.pathname.endsWith('/login'))
    for (const [key, value] of new URLSearchParams(body)) params.set(key, value);
  const header = request.headers['accesstoken'];
  const path = url.pathname;
  try {
    const answer = answerOf(
      host,
      `${request.method} ${path}`,
      params,
      typeof header === 'string' ? header : (params.get('accessToken') ?? null),
    );
    send(response, 200, typeof answer === 'string' ? answer : JSON.stringify(answer));
  } catch (thrown) {
    if (thrown instanceof Status) send(response, thrown.status, frameworkJson(thrown.status, thrown.message, path));
    else if (thrown instanceof FakeRefusal) {
      const v3 = path.startsWith('/nacos/v3');
      send(
        response,
        thrown.status,
        v3 ? JSON.stringify({ code: thrown.code, message: 'server error', data: thrown.message }) : `caused: ${thrown.message};`,
      );
    } else send(response, 500, frameworkJson(500, String(thrown), path));
  }
}

function answerOf(host: HttpHost, route: string, params: Params, token: string | null): unknown {
  const { generation, v1, catalog } = host.profile;
  if (route === 'GET /nacos/v3/admin/core/state' && generation >= 3)
    return ok({ version: host.profile.version, startup_mode: 'standalone' });
  if (route === 'GET /nacos/v1/console/server/state' && generation < 3)
    return { version: host.profile.version, standalone_mode: 'standalone' };
  if (route === 'POST /nacos/v3/auth/user/login' && generation >= 3) return login(host, params);
  if (route === 'POST /nacos/v1/auth/users/login') return login(host, params);
  const handler = HANDLERS.get(route);
  const family = route.includes('/v3/admin/')
    ? 'admin'
    : route.includes('/v3/')
      ? 'v3'
      : route.includes('/catalog/') || route.includes('/console/')
        ? 'catalog'
        : 'v1';
  const there = family === 'v1' ? v1 : family === 'catalog' ? catalog : generation >= 3;
  if (family === 'catalog' && !catalog && v1) throw new Status(410, '{"code":40000,"message":"Current API will be deprecated"}');
  if (handler === undefined || !there) throw new Status(404, 'No static resource');
  // Without a token a user and a password in the parameters do: old clients send them with every call.
  const username = params.get('username');
  const given = token ?? (username === undefined ? null : (host.login(username, params.get('password') ?? '')?.token ?? null));
  const fault = host.tokenFault(given);
  if (fault !== null) throw new Status(403, fault);
  if (family === 'admin' && host.adminDenied) throw new Status(403, 'Code: 403, Message: authorization failed!.');
  return handler(host, params);
}

const HANDLERS: ReadonlyMap<string, Handler> = new Map<string, Handler>([
  ['POST /nacos/v1/ns/instance', (host, params) => register(host, params, 'ok')],
  ['DELETE /nacos/v1/ns/instance', (host, params) => deregister(host, params, 'ok')],
  ['PUT /nacos/v1/ns/instance/beat', beatV1],
  ['GET /nacos/v1/ns/instance/list', listV1],
  ['GET /nacos/v1/ns/service/list', groupNames],
  ['GET /nacos/v1/ns/operator/metrics', () => ({ status: 'UP' })],
  ['GET /nacos/v1/ns/catalog/services', catalogNames],
  ['GET /nacos/v1/ns/catalog/service', catalogService],
  ['GET /nacos/v1/ns/catalog/instances', catalogHosts],
  [
    'GET /nacos/v1/console/namespaces',
    (host) => ({ code: 200, data: host.namespaces.map((namespace) => ({ namespace: namespace === 'public' ? '' : namespace })) }),
  ],
  ['POST /nacos/v3/client/ns/instance', registerV3],
  ['DELETE /nacos/v3/client/ns/instance', (host, params) => deregister(host, params, ok('ok'))],
  ['GET /nacos/v3/admin/core/namespace/list', (host) => ok(host.namespaces.map((namespace) => ({ namespace })))],
  ['GET /nacos/v3/admin/ns/service/list', adminNames],
  ['GET /nacos/v3/admin/ns/service', adminService],
  ['GET /nacos/v3/admin/ns/instance/list', adminHosts],
]);

function login(host: HttpHost, params: Params): unknown {
  const given = host.login(params.get('username') ?? '', params.get('password') ?? '');
  // 3.0.3: a wrong password is a bare 500.
  if (given === null)
    throw new Status(
      host.profile.generation >= 3 ? 500 : 403,
      host.profile.generation >= 3 ? 'No message available' : 'unknown user!',
    );
  return { accessToken: given.token, tokenTtl: given.ttl, globalAdmin: true, username: params.get('username') };
}

function register({ store }: HttpHost, params: Params, answer: unknown): unknown {
  store.register(idOf(params), instanceOf(params));
  return answer;
}

function registerV3(host: HttpHost, params: Params): unknown {
  if (params.get('heartBeat') !== 'true') return register(host, params, ok('ok'));
  if (host.store.beat(idOf(params), identityOf(params))) return ok('ok');
  return { code: 21_003, message: 'instance not found', data: null };
}

function deregister({ store }: HttpHost, params: Params, answer: unknown): unknown {
  store.deregister(idOf(params), identityOf(params));
  return answer;
}

/** A beat that carries the instance registers it where it is unknown; a light one cannot. */
function beatV1({ profile, store }: HttpHost, params: Params): unknown {
  const id = idOf(params);
  const carried = beatOf(params);
  const identity = carried ?? identityOf(params);
  let found = store.beat(id, identity);
  if (!found && carried !== null) {
    store.register(id, carried);
    found = true;
  }
  const light = profile.generation > 1 ? { lightBeatEnabled: true } : {};
  return { clientBeatInterval: store.beatInterval(id, identity), code: found ? 10_200 : 20_404, ...light };
}

function beatOf(params: Params): FakeInstance | null {
  const beat: unknown = JSON.parse(params.get('beat') || 'null');
  if (!isRecord(beat)) return null;
  const cluster = beat['cluster'] || (params.get('clusterName') ?? '') || 'DEFAULT';
  return {
    ip: String(beat['ip'] ?? ''),
    port: Number(beat['port'] ?? 0),
    weight: Number(beat['weight'] ?? 1),
    healthy: true,
    enabled: true,
    ephemeral: true,
    clusterName: String(cluster),
    metadata: isRecord(beat['metadata']) ? beat['metadata'] : {},
  };
}

function listV1(host: HttpHost, params: Params): unknown {
  const id = idOf(params);
  const { hosts: all, lastRefTime, reachProtectionThreshold } = host.store.info(id);
  const [group = '', name = ''] = namedOf(params);
  const clusters = params.get('clusters') ?? '';
  const wanted = clusters === '' ? null : new Set(clusters.split(','));
  const healthyOnly = params.get('healthyOnly') === 'true';
  const hosts = all.filter((one) => (wanted === null || wanted.has(one.clusterName)) && (!healthyOnly || one.healthy));
  const base = { name: `${group}@@${name}`, clusters, cacheMillis: host.cacheMillis };
  if (host.profile.generation > 1)
    return { ...base, groupName: group, hosts, lastRefTime, checksum: '', reachProtectionThreshold };
  // 1.4.6: an unknown service has no lastRefTime.
  if (!host.store.knows(id)) return { ...base, hosts: [] };
  return { ...base, dom: name, env: '', useSpecifiedURL: false, hosts, lastRefTime, checksum: '44c8', metadata: {} };
}

function groupNames({ store }: HttpHost, params: Params): unknown {
  const group = params.get('groupName') || 'DEFAULT_GROUP';
  const names = store.names(namespaceOf(params)).filter((name) => name.startsWith(`${group}@@`));
  const doms = paged(names, params).map((name) => name.slice(group.length + 2));
  return { count: names.length, doms };
}

function catalogNames({ store }: HttpHost, params: Params): unknown {
  const names = store.names(namespaceOf(params));
  return { count: names.length, serviceList: paged(names, params).map(parted) };
}

function adminNames({ store }: HttpHost, params: Params): unknown {
  const names = store.names(namespaceOf(params));
  const pageItems = paged(names, params).map((name) => ({
    ...parted(name),
    clusterCount: 1,
    ipCount: 1,
    healthyInstanceCount: 1,
    triggerFlag: 'false',
  }));
  return ok({ totalCount: names.length, pageNumber: 1, pagesAvailable: 1, pageItems });
}

function catalogService({ profile, store }: HttpHost, params: Params): unknown {
  const hosts = store.everyHost(idOf(params));
  if (hosts === null) throw notFound(profile, `service ${params.get('serviceName')}`);
  const [groupName, name] = namedOf(params);
  const clusters = [...new Set(hosts.map(({ clusterName }) => clusterName))].map((cluster) => ({ name: cluster, metadata: {} }));
  return { service: { name, groupName, protectThreshold: 0, metadata: {} }, clusters };
}

/** One cluster, by its name. */
function catalogHosts({ profile, store }: HttpHost, params: Params): unknown {
  const cluster = params.get('clusterName');
  if (cluster === undefined) throw new FakeRefusal(400, "Parameter 'clusterName' is missing", 400);
  const hosts = store.everyHost(idOf(params))?.filter(({ clusterName }) => clusterName === cluster) ?? [];
  if (hosts.length === 0) throw notFound(profile, `cluster ${cluster}`);
  return { list: paged(hosts, params), count: hosts.length };
}

/** 1.4.6 says so by 500. */
function notFound({ generation }: Profile, what: string): FakeRefusal {
  return new FakeRefusal(404, `${what} is not found!`, generation === 1 ? 500 : 404);
}

function adminService({ store }: HttpHost, params: Params): unknown {
  const hosts = store.everyHost(idOf(params));
  if (hosts === null) throw new FakeRefusal(21_008, 'service not found');
  return ok({
    serviceName: params.get('serviceName'),
    clusterMap: Object.fromEntries(hosts.map(({ clusterName }) => [clusterName, {}])),
  });
}

function adminHosts({ store }: HttpHost, params: Params): unknown {
  const cluster = params.get('clusterName') || 'DEFAULT';
  const hosts = store.everyHost(idOf(params))?.filter(({ clusterName }) => clusterName === cluster) ?? [];
  if (hosts.length === 0) throw new FakeRefusal(30_000, `cluster ${cluster} is not found!`, 404);
  return ok(hosts);
}

function parted(full: string): { name: string; groupName: string } {
  const at = full.indexOf('@@');
  return { name: full.slice(at + 2), groupName: full.slice(0, at) };
}

function paged<T>(items: readonly T[], params: Params): readonly T[] {
  const size = Number(params.get('pageSize') ?? 100);
  const page = Math.max(1, Number(params.get('pageNo') ?? 1));
  return items.slice((page - 1) * size, page * size);
}

function namespaceOf(params: Params): string {
  return params.get('namespaceId') || 'public';
}

function namedOf(params: Params): readonly [string, string] {
  const full = params.get('serviceName') ?? '';
  const at = full.indexOf('@@');
  return at < 0 ? [params.get('groupName') || 'DEFAULT_GROUP', full] : [full.slice(0, at), full.slice(at + 2)];
}

function idOf(params: Params): string {
  const [group, name] = namedOf(params);
  const fault = nameFault(group, name);
  if (fault !== null) throw new FakeRefusal(10_000, fault);
  return `${namespaceOf(params)}@@${group}@@${name}`;
}

function identityOf(params: Params): Pick<FakeInstance, 'ip' | 'port' | 'clusterName'> {
  return { ip: params.get('ip') ?? '', port: Number(params.get('port')), clusterName: params.get('clusterName') || 'DEFAULT' };
}

function instanceOf(params: Params): FakeInstance {
  const weight = Number(params.get('weight') ?? 1);
  if (!(weight >= 0 && weight <= 10_000))
    throw new FakeRefusal(21_001, 'instance format invalid: The weights range from 0.0 to 10000.0');
  return {
    ...identityOf(params),
    weight,
    healthy: params.get('healthy') !== 'false',
    enabled: (params.get('enabled') ?? params.get('enable')) !== 'false',
    ephemeral: params.get('ephemeral') !== 'false',
    metadata: JSON.parse(params.get('metadata') || '{}'),
  };
}

function ok(data: unknown): object {
  return { code: 0, message: 'success', data };
}

function frameworkJson(status: number, message: string, path: string): string {
  return JSON.stringify({ timestamp: '2024-01-01T00:00:00.000+00:00', status, error: 'Error', message, path });
}

function send(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(text);
}

async function textOf(request: IncomingMessage): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}
