// The registries of bench/migrate.ts: real servers, filled and changed by plain calls of their own protocol, past our adapters' writers.
// Called by migrate.ts; must never ask the sidecar for what stands in a registry.
import assert from 'node:assert/strict';
import { sampleInstance } from '../conformance/adapter.ts';
import type { FaultBench } from '../faults/harness/bench.ts';
import { Raw as EtcdRaw } from '../live/etcd-support.ts';
import { Raw as PolarisRaw } from '../live/polaris-support.ts';
import { startConsul } from '../registries/consul.ts';
import { startPolaris } from '../registries/polaris.ts';
import { startEtcd } from '../registries/start.ts';

export type TargetKind = 'etcd' | 'consul' | 'polaris' | 'memory';
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

export async function startOrigin(kind: OriginKind, bench: FaultBench): Promise<Origin> {
  return kind === 'etcd' ? etcdOrigin(bench) : consulOrigin(bench);
}

export async function startTarget(kind: TargetKind, bench: FaultBench): Promise<Registry> {
  switch (kind) {
    case 'etcd':
      return etcdOrigin(bench, 'target');
    case 'consul':
      return consulOrigin(bench, 'target');
    case 'polaris':
      return polarisTarget(bench);
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

async function consulOrigin(bench: FaultBench, id = 'origin'): Promise<Origin> {
  const server = await startConsul();
  bench.defer(() => server.stop());
  const call = async (method: string, path: string, body?: unknown): Promise<unknown> => {
    const sent = body === undefined ? {} : { body: JSON.stringify(body) };
    const answer = await fetch(`${server.address}/v1${path}`, { method, ...sent, signal: AbortSignal.timeout(30_000) });
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
    yaml: `  - {id: ${id}, kind: consul, address: "${server.address}", allowLoopback: true}\n`,
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

/** `services` of `instances` each, at loopback addresses of their own and one port. */
export function manyNatives(services: number, instances: number, port: number): Native[] {
  return Array.from({ length: services * instances }, (_, n) => {
    const host = `127.${1 + (n >> 16)}.${(n >> 8) & 255}.${n & 255}`;
    return { service: `m${Math.floor(n / instances)}`, id: `i${n % instances}`, host, port, weight: 100 };
  });
}
