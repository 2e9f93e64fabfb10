// Owns the HTTP calls by their meaning, over the three generations of Nacos' API (section 6): paths, parameters, what the answers hold.
// Called by line.ts (version), names.ts, reader.ts, poller.ts, http-writer.ts. Must never choose a server or a generation by itself.
import { isRecord } from '../../src/kernel/decode.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import type { Auth } from './auth.ts';
import type { NacosConfig, NacosServer } from './config.ts';
import { HttpRefusal, httpRefusal } from './errors.ts';
import { codeOf, type HttpAnswer, type Method, type NacosHttp, type Params, reasonOf } from './http.ts';
import type { NativeInstance, NativeName } from './mapping.ts';
import { decodeServiceInfo, numberOf, type ServiceInfo, stringOf } from './native.ts';

/** A page of names. */
export interface NamePage {
  readonly total: number;
  readonly names: readonly NativeName[];
}

/** What a beat found. `unknown`: the server has no such instance, register again. */
export type Beat = 'beaten' | 'unknown';

const V1 = '/v1/ns';
const V3_CLIENT = '/v3/client/ns/instance';
const V3_ADMIN = '/v3/admin/ns';

export class NacosApi {
  readonly #config: NacosConfig;
  readonly #http: NacosHttp;
  readonly #auth: Auth;

  constructor(config: NacosConfig, http: NacosHttp, auth: Auth) {
    this.#config = config;
    this.#http = http;
    this.#auth = auth;
  }

  /** `1.4.6`, `3.0.3`; null: an answer in HTTP that does not tell it is Nacos. Needs no token. Rejects with SourceError. */
  async version(server: NacosServer, signal: AbortSignal): Promise<string | null> {
    for (const path of ['/v3/admin/core/state', '/v1/console/server/state']) {
      try {
        const { json } = await this.#http.call(server, 'GET', path, {}, signal);
        const state = isRecord(json) && isRecord(json['data']) ? json['data'] : json;
        const version = isRecord(state) ? stringOf(state['version']) : null;
        if (version !== null && /^\d+\.\d/.test(version)) return version.slice(0, 32);
      } catch (thrown) {
        // 403, 410: somebody there knows the path, the other one may still tell.
        if (!(thrown instanceof HttpRefusal) || thrown.causeKind === 'malformed' || thrown.status >= 500) throw thrown;
      }
    }
    return null;
  }

  /** Ids of the namespaces, null where we may not see them. */
  async namespaces(server: NacosServer, generation: number, signal: AbortSignal): Promise<readonly string[] | null> {
    const path = generation >= 3 ? '/v3/admin/core/namespace/list' : '/v1/console/namespaces';
    try {
      const { json } = await this.#call(server, 'GET', path, {}, signal);
      if (!isRecord(json) || !Array.isArray(json['data'])) return null;
      return json['data'].flatMap((one: unknown) => (isRecord(one) ? [stringOf(one['namespace']) || 'public'] : []));
    } catch (thrown) {
      if (thrown instanceof HttpRefusal) return null;
      throw thrown;
    }
  }

  /** v3 admin: all groups. */
  async adminNames(server: NacosServer, pageNo: number, pageSize: number, signal: AbortSignal): Promise<NamePage> {
    const query = { namespaceId: this.#config.namespace, pageNo, pageSize, ignoreEmptyService: false };
    const path = `${V3_ADMIN}/service/list`;
    const data = resultOf(server, path, await this.#call(server, 'GET', path, { query }, signal));
    if (!isRecord(data) || !Array.isArray(data['pageItems'])) throw malformed(server, path);
    return { total: numberOf(data['totalCount']) ?? data['pageItems'].length, names: namesIn(data['pageItems'], 'groupName') };
  }

  /** v1 console class: all groups, 1.x and 2.x. */
  async catalogNames(server: NacosServer, pageNo: number, pageSize: number, signal: AbortSignal): Promise<NamePage> {
    const query = {
      ...this.#namespaceOnV1(),
      pageNo,
      pageSize,
      hasIpCount: false,
      withInstances: false,
      groupNameParam: '',
      serviceNameParam: '',
    };
    const path = `${V1}/catalog/services`;
    const { json } = await this.#call(server, 'GET', path, { query }, signal);
    if (!isRecord(json) || !Array.isArray(json['serviceList'])) throw malformed(server, path);
    return { total: numberOf(json['count']) ?? json['serviceList'].length, names: namesIn(json['serviceList'], 'groupName') };
  }

  /** v1: the names of one group. */
  async groupNames(server: NacosServer, group: string, pageNo: number, pageSize: number, signal: AbortSignal): Promise<NamePage> {
    const query = { ...this.#namespaceOnV1(), pageNo, pageSize, groupName: group };
    const path = `${V1}/service/list`;
    const { json } = await this.#call(server, 'GET', path, { query }, signal);
    if (!isRecord(json) || !Array.isArray(json['doms'])) throw malformed(server, path);
    return { total: numberOf(json['count']) ?? json['doms'].length, names: bareNames(json['doms'], group) };
  }

  /** v1 `instance/list`; the same on 1.x to 3.1. */
  async instances(server: NacosServer, { group, name }: NativeName, signal: AbortSignal): Promise<ServiceInfo> {
    const path = `${V1}/instance/list`;
    const query = {
      ...this.#namespaceOnV1(),
      serviceName: `${group}@@${name}`,
      groupName: group,
      clusters: '',
      healthyOnly: false,
      clientIP: '',
      udpPort: 0,
    };
    const { json } = await this.#call(server, 'GET', path, { query }, signal);
    const info = decodeServiceInfo(json);
    if (info === null) throw malformed(server, path);
    return info;
  }

  /** Every host of a service, disabled ones and true health included; null where we may not, or the service is unknown. */
  async adminInstances(
    server: NacosServer,
    generation: number,
    native: NativeName,
    signal: AbortSignal,
  ): Promise<readonly unknown[] | null> {
    try {
      return generation >= 3 ? await this.#adminHosts(server, native, signal) : await this.#catalogHosts(server, native, signal);
    } catch (thrown) {
      if (thrown instanceof HttpRefusal && thrown.causeKind !== 'lost') return null;
      if (thrown instanceof HttpRefusal && generation < 2) return null;
      throw thrown;
    }
  }

  /** Upserts one instance: v1 up to 2.x, v3 from 3.0 on. */
  async register(
    server: NacosServer,
    generation: number,
    native: NativeName,
    instance: NativeInstance,
    signal: AbortSignal,
  ): Promise<void> {
    await this.#write(server, 'POST', generation, native, instance, {}, signal);
  }

  async deregister(
    server: NacosServer,
    generation: number,
    native: NativeName,
    identity: Pick<NativeInstance, 'ip' | 'port' | 'clusterName' | 'ephemeral'>,
    signal: AbortSignal,
  ): Promise<void> {
    await this.#write(server, 'DELETE', generation, native, identity, {}, signal);
  }

  /** A light beat. */
  async beat(
    server: NacosServer,
    generation: number,
    native: NativeName,
    identity: Pick<NativeInstance, 'ip' | 'port' | 'clusterName' | 'ephemeral'>,
    signal: AbortSignal,
  ): Promise<Beat> {
    if (generation >= 3) {
      try {
        await this.#write(server, 'POST', generation, native, identity, { heartBeat: true }, signal);
        return 'beaten';
      } catch (thrown) {
        if (thrown instanceof HttpRefusal && thrown.errorCode === 21_003) return 'unknown';
        throw thrown;
      }
    }
    const path = `${V1}/instance/beat`;
    const query = this.#identity(1, native, identity);
    const { json } = await this.#call(server, 'PUT', path, { query }, signal);
    const code = codeOf(json);
    if (code === 20_404) return 'unknown';
    if (code !== 0 && code !== 10_200) throw httpRefusal(server.address, path, 200, code, reasonOf(json, ''));
    return 'beaten';
  }

  async #write(
    server: NacosServer,
    method: Method,
    generation: number,
    native: NativeName,
    instance: Partial<NativeInstance> & Pick<NativeInstance, 'ip' | 'port' | 'clusterName' | 'ephemeral'>,
    more: Params,
    signal: AbortSignal,
  ): Promise<void> {
    const path = generation >= 3 ? V3_CLIENT : `${V1}/instance`;
    const { weight, healthy, enabled, metadata } = instance;
    const params = {
      ...this.#identity(generation, native, instance),
      ...(weight === undefined ? {} : { weight }),
      ...(healthy === undefined ? {} : { healthy }),
      ...(enabled === undefined ? {} : { enabled }),
      ...(metadata === undefined ? {} : { metadata: JSON.stringify(metadata) }),
      ...more,
    };
    // 1.4.6 reads a POST from the query alone; 3.x takes a body, and no DELETE with one.
    const what = generation >= 3 && method === 'POST' ? { form: params } : { query: params };
    resultOf(server, path, await this.#call(server, method, path, what, signal));
  }

  #identity(
    generation: number,
    { group, name }: NativeName,
    at: Pick<NativeInstance, 'ip' | 'port' | 'clusterName' | 'ephemeral'>,
  ): Params {
    const { ip, port, clusterName, ephemeral } = at;
    const serviceName = generation >= 3 ? name : `${group}@@${name}`;
    return { namespaceId: this.#config.namespace, groupName: group, serviceName, ip, port, clusterName, ephemeral };
  }

  /** Blank means `public` over HTTP; 1.x knows the default namespace by both names. */
  #namespaceOnV1(): Params {
    return { namespaceId: this.#config.namespace };
  }

  async #adminHosts(server: NacosServer, { group, name }: NativeName, signal: AbortSignal): Promise<readonly unknown[]> {
    const query = { namespaceId: this.#config.namespace, groupName: group, serviceName: name };
    const path = `${V3_ADMIN}/service`;
    const detail = resultOf(server, path, await this.#call(server, 'GET', path, { query }, signal));
    const clusters = isRecord(detail) && isRecord(detail['clusterMap']) ? Object.keys(detail['clusterMap']).slice(0, 64) : [];
    const hosts: unknown[] = [];
    for (const clusterName of clusters.length === 0 ? ['DEFAULT'] : clusters) {
      const list = `${V3_ADMIN}/instance/list`;
      try {
        const data = resultOf(server, list, await this.#call(server, 'GET', list, { query: { ...query, clusterName } }, signal));
        if (!Array.isArray(data)) throw malformed(server, list);
        for (const host of data) hosts.push(host);
      } catch (thrown) {
        // A cluster that is gone since: it has no hosts.
        if (!(thrown instanceof HttpRefusal) || thrown.status !== 404) throw thrown;
      }
    }
    return hosts;
  }

  /** Cluster by cluster: 1.x and 2.x list one at a time and refuse a blank one (seen, 2.5.1). */
  async #catalogHosts(server: NacosServer, { group, name }: NativeName, signal: AbortSignal): Promise<readonly unknown[]> {
    const service = { ...this.#namespaceOnV1(), serviceName: `${group}@@${name}`, groupName: group };
    const path = `${V1}/catalog/service`;
    const { json } = await this.#call(server, 'GET', path, { query: service }, signal);
    if (!isRecord(json) || !Array.isArray(json['clusters'])) throw malformed(server, path);
    const clusters = json['clusters'].flatMap((one: unknown) => (isRecord(one) ? [stringOf(one['name']) || 'DEFAULT'] : []));
    const hosts: unknown[] = [];
    for (const clusterName of clusters.slice(0, 64)) {
      try {
        for (const host of await this.#clusterHosts(server, { ...service, clusterName }, signal)) hosts.push(host);
      } catch (thrown) {
        // A cluster that is gone since: it has no hosts.
        if (!(thrown instanceof HttpRefusal) || !/is not found/.test(thrown.text)) throw thrown;
      }
    }
    return hosts;
  }

  async #clusterHosts(server: NacosServer, of: Params, signal: AbortSignal): Promise<readonly unknown[]> {
    const path = `${V1}/catalog/instances`;
    const hosts: unknown[] = [];
    for (let pageNo = 1; ; pageNo++) {
      const { json } = await this.#call(server, 'GET', path, { query: { ...of, pageNo, pageSize: 500 } }, signal);
      if (!isRecord(json) || !Array.isArray(json['list'])) throw malformed(server, path);
      for (const host of json['list']) hosts.push(host);
      if (json['list'].length === 0 || hosts.length >= (numberOf(json['count']) ?? 0)) return hosts;
    }
  }

  #call(
    server: NacosServer,
    method: Method,
    path: string,
    what: { query?: Params; form?: Params },
    signal: AbortSignal,
  ): Promise<HttpAnswer> {
    return this.#auth.run(server, signal, (token) => this.#http.call(server, method, path, { ...what, token }, signal));
  }
}

/** `data` of a v3 Result, or the answer itself where it is none. Throws HttpRefusal for a code other than 0 and 200. */
function resultOf(server: NacosServer, path: string, { json, text }: HttpAnswer): unknown {
  const code = codeOf(json);
  if (code !== 0 && code !== 200) throw httpRefusal(server.address, path, 200, code, reasonOf(json, text));
  return isRecord(json) && 'data' in json ? json['data'] : json;
}

function namesIn(items: readonly unknown[], groupField: string): NativeName[] {
  return items.flatMap((item) => {
    if (!isRecord(item)) return [];
    const name = stringOf(item['name']) ?? stringOf(item['serviceName']);
    if (name === null) return [];
    return bareNames([name], stringOf(item[groupField]) || 'DEFAULT_GROUP');
  });
}

/** Names with or without their group in front. */
export function bareNames(names: readonly unknown[], group: string): NativeName[] {
  return names.flatMap((full) => {
    if (typeof full !== 'string') return [];
    const at = full.indexOf('@@');
    return [at < 0 ? { group, name: full } : { group: full.slice(0, at), name: full.slice(at + 2) }];
  });
}

function malformed(server: NacosServer, path: string): SourceError {
  return new SourceError(
    'malformed',
    `nacos ${server.address}: ${path} answers something else than Nacos does: check servers (the HTTP port) and contextPath`,
  );
}
