// What the live test of registrations reads with: plain protocol calls to each registry, past our adapters, and a watcher of them.
// Called by registration.live.test.ts; starts no server.
import { setTimeout as sleep } from 'node:timers/promises';

/** A record as its registry shows it. `stamp` changes with every write of it, where the registry tells. */
export interface Seen {
  readonly id: string;
  readonly address: string;
  readonly serving: boolean;
  readonly weight: number;
  readonly stamp: string;
}

/** All records of a service, by its name in the registry. */
export type Reader = (service: string) => Promise<readonly Seen[]>;

// biome-ignore lint/suspicious/noExplicitAny: answers of other programs, looked at field by field
type Json = any;

async function ask(url: string, body?: object, headers: Record<string, string> = {}): Promise<Json> {
  const answer = await fetch(url, {
    method: body === undefined ? 'GET' : 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    signal: AbortSignal.timeout(5_000),
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await answer.text();
  // Polaris answers an unknown service with a 4xx and a body.
  if (!text.startsWith('{') && !text.startsWith('[')) throw new Error(`${url}: ${answer.status} ${text.slice(0, 200)}`);
  return JSON.parse(text);
}

/** etcd's own JSON gateway; values as etcd's gRPC naming package writes them. */
export function etcdReader(endpoint: string): Reader {
  const base64 = (text: string): string => Buffer.from(text).toString('base64');
  return async (service) => {
    const prefix = `/services/${service}/`;
    const range = { key: base64(prefix), range_end: base64(`/services/${service}0`) };
    const { kvs = [], header } = await ask(`http://${endpoint}/v3/kv/range`, range);
    if (header === undefined) throw new Error('no answer of etcd');
    return kvs.map((kv: Json) => {
      const value = JSON.parse(Buffer.from(kv.value, 'base64').toString());
      const weight = Number(value.Metadata?.weight ?? 100);
      return {
        id: Buffer.from(kv.key, 'base64').toString().slice(prefix.length),
        address: value.Addr,
        serving: weight > 0,
        weight,
        stamp: `${kv.create_revision}.${kv.mod_revision} lease ${kv.lease}`,
      };
    });
  };
}

export function consulReader(address: string, token: string): Reader {
  return async (service) => {
    const entries = await ask(`${address}/v1/health/service/${service}`, undefined, { 'x-consul-token': token });
    if (!Array.isArray(entries)) throw new Error('no answer of Consul');
    return entries.map(({ Service, Checks }: Json) => ({
      id: Service.ID,
      address: `${Service.Address}:${Service.Port}`,
      serving: Checks.every(({ Status }: Json) => Status === 'passing'),
      weight: Service.Weights.Passing,
      stamp: `${Service.CreateIndex}.${Service.ModifyIndex}`,
    }));
  };
}

/** Polaris' HTTP client API. */
export function polarisReader(http: string): Reader {
  return async (service) => {
    const question = { type: 'INSTANCE', service: { name: service, namespace: 'default' } };
    const { code, instances } = await ask(`http://${http}/v1/Discover`, question);
    if (code !== 200_000 && code !== 400_202) throw new Error(`no answer of Polaris: ${code}`);
    return (instances ?? []).map((one: Json) => ({
      id: one.id,
      address: `${one.host}:${one.port}`,
      serving: one.healthy === true && one.isolate !== true,
      weight: one.weight,
      stamp: `${one.ctime} ${one.mtime}`,
    }));
  };
}

export function nacosReader(server: string): Reader {
  return async (service) => {
    const query = new URLSearchParams({ serviceName: `DEFAULT_GROUP@@${service}`, namespaceId: 'public', healthyOnly: 'false' });
    const { hosts } = await ask(`http://${server}/nacos/v1/ns/instance/list?${query}`);
    if (!Array.isArray(hosts)) throw new Error('no answer of Nacos');
    return hosts.map((one: Json) => ({
      id: one.instanceId,
      address: `${one.ip}:${one.port}`,
      serving: one.healthy === true && one.enabled !== false,
      weight: one.weight,
      stamp: '',
    }));
  };
}

export interface Glimpse {
  readonly at: number;
  readonly seen: readonly Seen[];
}

/** Reads a service every 50 ms until `stop`; a read that fails makes `stop` reject. */
export function watcher(read: Reader, service: string): { readonly stop: () => Promise<readonly Glimpse[]> } {
  const glimpses: Glimpse[] = [];
  let stopped = false;
  const running = (async () => {
    while (!stopped) {
      const at = performance.now();
      glimpses.push({ at, seen: await read(service) });
      await sleep(Math.max(0, 50 - (performance.now() - at)));
    }
  })();
  running.catch(() => {});
  return {
    async stop() {
      stopped = true;
      await running;
      return glimpses;
    },
  };
}
