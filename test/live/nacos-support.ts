// What the live tests of kind nacos share: a raw HTTP writer past the adapter, the harness of the conformance suite over a proxy
// that cuts both ports, the adapter as app would make it. Called by nacos-*.live.test.ts; starts no server.
import assert from 'node:assert/strict';
import { factory } from '../../adapters/nacos/index.ts';
import type { SourceOptions } from '../../src/adapter/contract.ts';
import { splitHostPort } from '../../src/kernel/address.ts';
import { type Clock, systemClock } from '../../src/kernel/clock.ts';
import { dialPolicy } from '../../src/kernel/dial.ts';
import type { Instance } from '../../src/model/instance.ts';
import type { ServiceKey } from '../../src/model/service.ts';
import type { Harness } from '../conformance/adapter.ts';
import { type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts';
import { type Made, made, SourceBench } from './source-bench.ts';

export const PLAIN: SourceOptions = { auth: {}, tls: null, timeout: 10_000, normalWeight: null };

/** Keeps a record alive for ten minutes without beats; on real Nacos only. */
const PATIENT = {
  'preserved.heart.beat.interval': '5000',
  'preserved.heart.beat.timeout': '600000',
  'preserved.ip.delete.timeout': '600000',
};
const BUDGET = 1_024;

/** HTTP v1, which 1.x to 3.1 and Polaris' face take alike. */
export class Raw {
  readonly #address: string;
  readonly #patient: boolean;

  /** `patient`: the server honours `preserved.*`. */
  constructor(address: string, patient: boolean) {
    this.#address = address;
    this.#patient = patient;
  }

  async call(method: string, path: string, params: Readonly<Record<string, string>>): Promise<string> {
    const url = `http://${this.#address}/nacos${path}?${new URLSearchParams(params)}`;
    const headers = method === 'GET' ? {} : { 'content-type': 'application/x-www-form-urlencoded' };
    const answer = await fetch(url, { method, headers });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return text;
  }

  async register({ name }: ServiceKey, instance: Instance): Promise<void> {
    const { region, zone, campus } = instance.locality ?? {};
    const lifted = Object.entries({ version: instance.version, protocol: instance.protocol, region, zone, campus });
    const metadata = new Map(this.#patient ? Object.entries(PATIENT) : []);
    let left = BUDGET - [...metadata].reduce((sum, [key, value]) => sum + key.length + value.length, 0);
    for (const [key, value] of [...lifted, ...instance.metadata]) {
      // Nacos keeps no order: of more than our 64 keys any would be cut.
      if (value === undefined || key.length + value.length > left || metadata.size >= 60) continue;
      metadata.set(key, value);
      left -= key.length + value.length;
    }
    await this.call('POST', '/v1/ns/instance', {
      ...identity(name, instance.host, instance.port),
      weight: String(instance.weight / 100),
      enabled: String(!instance.isolated),
      healthy: String(instance.health !== 'unhealthy'),
      metadata: JSON.stringify(Object.fromEntries(metadata)),
    });
  }

  async remove({ name }: ServiceKey, id: string): Promise<void> {
    const match = /^(.+)#(\d+)#/.exec(id) ?? assert.fail(`no id of ours: ${id}`);
    await this.call('DELETE', '/v1/ns/instance', identity(name, match[1] ?? '', Number(match[2])));
  }
}

function identity(name: string, ip: string, port: number): Record<string, string> {
  const serviceName = `DEFAULT_GROUP@@${name}`;
  return {
    namespaceId: 'public',
    groupName: 'DEFAULT_GROUP',
    serviceName,
    ip,
    port: String(port),
    clusterName: 'DEFAULT',
    ephemeral: 'true',
  };
}

/** The adapter as app would make it. */
export function makeAdapter(config: object, options: SourceOptions = PLAIN, clock: Clock = systemClock): Made {
  const dial = dialPolicy({ allowLoopback: true, allowNames: false, cidrs: [], ports: [] }, () => []);
  return made((deps) => factory.create(config, options, deps), { clock, dial });
}

export class Bench extends SourceBench {
  constructor(config: object, options: SourceOptions = PLAIN) {
    super(makeAdapter(config, options), { kind: 'nacos', timeout: options.timeout });
  }

  /** How many instances the view of a service has. */
  size(key: ServiceKey): number {
    return this.view(key).length;
  }
}

/** 1, 2 or 3, as the server says. */
export async function generationOf(address: string): Promise<number> {
  for (const path of ['/v3/admin/core/state', '/v1/console/server/state']) {
    const answer = await fetch(`http://${address}/nacos${path}`);
    const version = /"version":"(\d)\./.exec(await answer.text())?.[1];
    if (version !== undefined) return Number(version);
  }
  return assert.fail(`${address} does not say which Nacos it is`);
}

/** Proxies in front of both ports of a server. */
export interface Front {
  readonly http: FaultProxy;
  readonly grpc: FaultProxy;
  readonly config: { readonly servers: readonly string[]; readonly grpcPort: number };
  cut(): void;
  close(): Promise<void>;
}

export async function startFront(server: string, grpcPort: number): Promise<Front> {
  const { host } = splitHostPort(server) ?? assert.fail(`no address: ${server}`);
  const http = await startFaultProxy(server);
  const grpc = await startFaultProxy(`${host}:${grpcPort}`);
  const port = splitHostPort(grpc.endpoint)?.port ?? 0;
  return {
    http,
    grpc,
    config: { servers: [http.endpoint], grpcPort: port },
    cut() {
      http.cut();
      grpc.cut();
    },
    async close() {
      await http.close();
      await grpc.close();
    },
  };
}

let harnesses = 0;

/** Conformance on a server that runs; `beats`: records of the raw writer need beats (the server has no patience). */
export async function liveHarness(front: Front, raw: Raw, config: object, beats: boolean): Promise<Harness> {
  const run = ++harnesses;
  const full = { ...front.config, ...config };
  const first = makeAdapter(full);
  const adapters = [first.adapter];
  const beating = new Map<string, { key: ServiceKey; instance: Instance }>();
  const timer = beats ? setInterval(() => void beatAll(raw, beating), 4_000) : null;
  return {
    adapter: first.adapter,
    clock: systemClock,
    registry: {
      async put(key, instances) {
        for (const instance of instances) {
          await raw.register(key, instance);
          beating.set(`${key.name} ${instance.host}#${instance.port}`, { key, instance });
        }
      },
      async remove(key, ids) {
        for (const id of ids) {
          beating.delete(`${key.name} ${id.slice(0, id.lastIndexOf('#'))}`);
          await raw.remove(key, id);
        }
      },
      async cut() {
        front.cut();
      },
    },
    async another() {
      const other = makeAdapter(full).adapter;
      adapters.push(other);
      return other;
    },
    key: (name) => ({ namespace: 'default', name: `${name}-${process.pid}-${run}` }),
    advance: (ms) => systemClock.sleep(ms),
    logs: () => first.lines.join('\n'),
    async close() {
      if (timer !== null) clearInterval(timer);
      for (const adapter of adapters) await adapter.close();
    },
  };
}

async function beatAll(raw: Raw, beating: ReadonlyMap<string, { key: ServiceKey; instance: Instance }>): Promise<void> {
  for (const { key, instance } of beating.values()) {
    // A beat of the test that comes too late shows in the test.
    await raw.register(key, instance).catch(() => {});
  }
}
