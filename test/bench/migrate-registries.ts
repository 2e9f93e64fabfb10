// The registries of bench/migrate.ts: real servers, filled and changed by plain calls of their own protocol, past our adapters' writers.
// Called by migrate.ts; must never ask the sidecar for what stands in a registry.
import assert from 'node:assert/strict';
import { sampleInstance } from '../conformance/adapter.ts';
import type { FaultBench } from '../faults/harness/bench.ts';
import { makeCertificates } from '../live/consul-certificates.ts';
import { Raw as EtcdRaw } from '../live/etcd-support.ts';
import { Raw as NacosRaw } from '../live/nacos-support.ts';
import { Raw as PolarisRaw } from '../live/polaris-support.ts';
import { startConsul } from '../registries/consul.ts';
import { startNacos } from '../registries/nacos.ts';
import { startPolaris } from '../registries/polaris.ts';
import { startEtcd } from '../registries/start.ts';

/** `nacos`: WEIR_TEST_NACOS=<host:port> or WEIR_TEST_NACOS_HOME=<distribution>; `polaris-nacos`: Polaris' face for Nacos' clients. */
export type TargetKind = 'etcd' | 'consul' | 'polaris' | 'nacos' | 'polaris-nacos' | 'memory';
export type OriginKind = 'etcd' | 'consul';

/** One instance as the bench writes it. */
export interface Native {
  readonly service: string;
  readonly id: string;
  readonly host: string;
  readonly port: number;
  readonly weight: number;
}

/** A source, as weir.yaml says it, and what the bench does to it. */
export interface Registry {
  /** Line below `sources:`. */
  readonly yaml: string;
  /** Records that a migration of this id wrote; NaN where the registry has no door of its own. */
  copies(migration: string): Promise<number>;
  /** Adds or changes a record of its own; resolves with the registry's answer. Absent: it has no door for that. */
  put?(native: Native): Promise<void>;
}

export interface Origin extends Registry {
  fill(natives: readonly Native[]): Promise<void>;
  put(native: Native): Promise<void>;
}

/** Operations in one transaction of Consul. */
const TXN_OPS = 64;
const ETCD_AT_ONCE = 200;
const CONSUL_NODES = 100;

/** How Consul is spoken to: over TLS, and with how many queries of their own (absent: the adapter's default). */
export interface ConsulWay {
  readonly tls: boolean;
  readonly watches?: number;
}

export async function startOrigin(kind: OriginKind, bench: FaultBench, way: ConsulWay = { tls: false }): Promise<Origin> {
  return kind === 'etcd' ? etcdOrigin(bench) : consulOrigin(bench, 'origin', way);
}

export async function startTarget(kind: TargetKind, bench: FaultBench, way: ConsulWay = { tls: false }): Promise<Registry> {
  switch (kind) {
    case 'etcd':
      return etcdOrigin(bench, 'target');
    case 'consul':
      return consulOrigin(bench, 'target', way);
    case 'polaris':
      return polarisTarget(bench);
    case 'nacos': {
      const given = process.env['WEIR_TEST_NACOS'];
      if (given !== undefined) return nacosTarget(given, true, bench);
      const server = await startNacos();
      bench.defer(() => server.stop());
      return nacosTarget(server.address, true, bench);
    }
    case 'polaris-nacos': {
      const server = await startPolaris();
      bench.defer(() => server.stop());
      return nacosTarget(server.nacos, false, bench);
    }
    case 'memory':
      return { yaml: '  - {id: target, kind: memory, registry: bench}\n', copies: async () => Number.NaN };
  }
}

async function etcdOrigin(bench: FaultBench, id = 'origin'): Promise<Origin> {
  const server = await startEtcd({ version: '3.6' });
  bench.defer(() => server.stop());
  const raw = new EtcdRaw(server.endpoint);
  bench.defer(() => raw.close());
  const put = async ({ service, id: name, host, port, weight }: Native): Promise<void> => {
    const value = { Op: 0, Addr: `${host}:${port}`, Metadata: { weight, zone: 'z1', version: '1.4.0' } };
    await raw.put(service, name, JSON.stringify(value));
  };
  return {
    yaml: `  - {id: ${id}, kind: etcd, endpoints: ["http://${server.endpoint}"], layout: grpc, prefix: /services/, allowLoopback: true}\n`,
    put,
    async fill(natives) {
      for (let at = 0; at < natives.length; at += ETCD_AT_ONCE) await Promise.all(natives.slice(at, at + ETCD_AT_ONCE).map(put));
    },
    async copies(migration) {
      let count = 0;
      for (const value of (await raw.truth()).values()) if (value.includes(`"weir-migration":"${migration}"`)) count++;
      return count;
    },
  };
}

async function consulOrigin(bench: FaultBench, id: string, { tls, watches }: ConsulWay): Promise<Origin> {
  const certificates = tls ? await makeCertificates() : null;
  bench.defer(() => certificates?.remove());
  const server = await startConsul(certificates === null ? {} : { tls: certificates });
  bench.defer(() => server.stop());
  const trust = certificates === null ? '' : `, tls: {ca: "${certificates.ca}"}`;
  const most = watches === undefined ? '' : `, maxWatches: ${watches}`;
  const call = async (method: string, path: string, body?: unknown): Promise<unknown> => {
    const sent = body === undefined ? {} : { body: JSON.stringify(body) };
    const answer = await fetch(`${server.plainAddress}/v1${path}`, { method, ...sent, signal: AbortSignal.timeout(30_000) });
    const text = await answer.text();
    assert.equal(answer.status, 200, `${method} ${path}: ${answer.status} ${text.slice(0, 300)}`);
    return JSON.parse(text);
  };
  const nodeOf = ({ service }: Native): string => `host-${Number(service.replace(/\D/g, '')) % CONSUL_NODES}`;
  const nodes = new Set<string>();
  const opsOf = (native: Native): object[] => {
    const { service, id: name, host, port, weight } = native;
    const node = nodeOf(native);
    const ops: object[] = nodes.has(node) ? [] : [{ Node: { Verb: 'set', Node: { Node: node, Address: '192.0.2.1' } } }];
    nodes.add(node);
    const weights = { Passing: Math.max(1, weight), Warning: 1 };
    const record = { ID: `${service}-${name}`, Service: service, Address: host, Port: port, Weights: weights };
    const check = { Node: node, CheckID: `check:${record.ID}`, Name: 'native', Status: 'passing', ServiceID: record.ID };
    return [
      ...ops,
      { Service: { Verb: 'set', Node: node, Service: { ...record, Meta: { zone: 'z1', version: '1.4.0' } } } },
      { Check: { Verb: 'set', Check: check } },
    ];
  };
  return {
    yaml: `  - {id: ${id}, kind: consul, address: "${server.address}", allowLoopback: true${trust}${most}}\n`,
    async put(native) {
      await call('PUT', '/txn', opsOf(native));
    },
    async fill(natives) {
      let ops: object[] = [];
      for (const native of natives) {
        ops.push(...opsOf(native));
        if (ops.length < TXN_OPS - 3) continue;
        await call('PUT', '/txn', ops);
        ops = [];
      }
      if (ops.length > 0) await call('PUT', '/txn', ops);
    },
    async copies(migration) {
      const nodes = Object.values(Object(await call('GET', '/catalog/nodes?node-meta=external-source:weir')));
      let count = 0;
      for (const node of nodes) {
        const { Services } = Object(
          await call('GET', `/catalog/node-services/${encodeURIComponent(String(Object(node)['Node']))}`),
        );
        if (JSON.stringify(Object(node)['Meta']).includes(migration) && Array.isArray(Services)) count += Services.length;
      }
      return count;
    },
  };
}

async function polarisTarget(bench: FaultBench): Promise<Registry> {
  const server = await startPolaris();
  bench.defer(() => server.stop());
  const raw = new PolarisRaw(server.grpc);
  bench.defer(() => raw.close());
  return {
    yaml: `  - {id: target, kind: polaris, servers: ["${server.grpc}"], namespace: default, allowLoopback: true}\n`,
    async copies(migration) {
      const query = `namespace=default&limit=1&keys=weir-migration&values=${migration}`;
      const { amount } = await server.console('GET', `/naming/v1/instances?${query}`);
      return Number(amount);
    },
    put: ({ service, ...at }) => raw.put({ namespace: 'default', name: service }, [{ ...sampleInstance(1), ...at }]),
  };
}

/** `real`: it lists names to anybody, and honours how long a record shall live without beats. */
function nacosTarget(address: string, real: boolean, bench: FaultBench): Registry {
  const raw = new NacosRaw(address, real);
  const puts: (() => Promise<void>)[] = [];
  // Whoever registers over HTTP and is silent for three minutes is gone, whatever the record says (seen, 3.0.3).
  const again = setInterval(() => void Promise.all(puts.map((put) => put().catch(() => {}))), 60_000);
  bench.defer(() => clearInterval(again));
  const put = async ({ service, ...at }: Native): Promise<void> => {
    const register = () => raw.register({ namespace: 'default', name: service }, { ...sampleInstance(1), ...at });
    await register();
    puts.push(register);
  };
  const names = async (pageNo: number): Promise<readonly string[]> => {
    const query = { namespaceId: 'public', groupName: 'DEFAULT_GROUP', pageNo: String(pageNo), pageSize: '500' };
    const { doms } = JSON.parse(await raw.call('GET', '/v1/ns/service/list', query));
    return Array.isArray(doms) ? doms : [];
  };
  return {
    yaml: `  - {id: target, kind: nacos, servers: ["${address}"], allowLoopback: true${real ? '' : ', normalWeight: 100'}}\n`,
    // The face takes no weight that would tell the sides apart.
    ...(real && { put }),
    async copies(migration) {
      let count = 0;
      for (let page = 1; ; page++) {
        const some = await names(page);
        for (const serviceName of some) {
          const { hosts } = JSON.parse(await raw.call('GET', '/v1/ns/instance/list', { namespaceId: 'public', serviceName }));
          for (const { metadata } of hosts) if (metadata['weir-migration'] === migration) count++;
        }
        if (some.length < 500) return count;
      }
    },
  };
}

/** `services` of `instances` each, at loopback addresses of their own and one port. */
export function manyNatives(services: number, instances: number, port: number): Native[] {
  return Array.from({ length: services * instances }, (_, n) => {
    const host = `127.${1 + (n >> 16)}.${(n >> 8) & 255}.${n & 255}`;
    return { service: `m${Math.floor(n / instances)}`, id: `i${n % instances}`, host, port, weight: 100 };
  });
}
