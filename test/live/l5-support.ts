// What the tests of L5 share, against the fake as against the L5 server of a real Polaris: skips, a writer past the adapter (the
// console API), the adapter as app makes it, a catalog fed by it.
import { factory } from '../../adapters/l5/index.ts';
import type { SourceOptions } from '../../src/adapter/contract.ts';
import type { Instance } from '../../src/model/instance.ts';
import type { ServiceKey } from '../../src/model/service.ts';
import type { PolarisServer } from '../registries/polaris.ts';
import { type Made, made, SourceBench } from './source-bench.ts';

/** Claims of the conformance suite that the central protocol cannot keep. */
export const SKIPS = [
  {
    test: 'weights are read on our scale: normal is 100, zero stays zero, little never becomes zero',
    reason: 'a server leaves instances of weight 0 out; the scale is proved in mapping.test.ts',
  },
  { test: 'IPv6 addresses are read in their canonical form', reason: 'the protocol carries IPv4 only' },
  { test: 'metadata over the limits is cut, and the list survives', reason: 'the protocol carries no metadata' },
  {
    test: 'names like __proto__ and constructor are services like any other',
    reason: 'it wants metadata of instances, which the protocol does not carry; such names are proved in adapter.test.ts',
  },
  {
    test: 'a wiped registry is heard again, whatever its revisions are',
    reason: 'the protocol has no revisions that could start anew; hearing a wiped server is proved in adapter.test.ts',
  },
] as const;

export const PLAIN: SourceOptions = { auth: {}, tls: null, timeout: 5_000, normalWeight: null };

export function never(): AbortSignal {
  return new AbortController().signal;
}

export function key(name: string): ServiceKey {
  return { namespace: 'default', name };
}

const EXISTS = 400_201;
const NO_CHANGE = [200_001, 200_002];

/** Services and instances of the Polaris namespace `default`, written by its console API. */
export class Console {
  readonly #server: PolarisServer;
  readonly #services = new Set<string>();

  constructor(server: PolarisServer) {
    this.#server = server;
  }

  /** A service named `sid`; with an L5 name where one is given. */
  async service(sid: string, name = '', nearby = false): Promise<void> {
    if (this.#services.has(sid)) return;
    this.#services.add(sid);
    const metadata = {
      ...(name !== '' && { 'internal-cl5-sid': sid, 'internal-cl5-name': name }),
      ...(nearby && { 'internal-enable-nearby': 'true' }),
    };
    await this.#call('POST', '/naming/v1/services', [{ name: sid, namespace: 'default', metadata, owners: 'polaris' }]);
  }

  /** Upserts by address, 100 in a call. */
  async put(sid: string, instances: readonly Partial<Instance>[], metadata: Record<string, string> = {}): Promise<void> {
    await this.service(sid);
    const records = instances.map(({ host, port, weight = 100, health = 'healthy', isolated = false }) => ({
      ...{ service: sid, namespace: 'default', host, port, weight, isolate: isolated, healthy: health === 'healthy', metadata },
    }));
    for (let at = 0; at < records.length; at += 100) {
      await this.#call('POST', '/naming/v1/instances', records.slice(at, at + 100));
      await this.#call('PUT', '/naming/v1/instances', records.slice(at, at + 100));
    }
  }

  /** By `host:port`. */
  async remove(sid: string, addresses: readonly string[]): Promise<void> {
    const records = addresses.map((address) => {
      const [host, port] = address.split(':');
      return { service: sid, namespace: 'default', host, port: Number(port) };
    });
    await this.#call('POST', '/naming/v1/instances/delete/host', records);
  }

  /** A second name of a service. */
  async alias(alias: string, sid: string): Promise<void> {
    const body = { service: sid, namespace: 'default', alias, alias_namespace: 'default', type: 'DEFAULT', owners: 'polaris' };
    await this.#call('POST', '/naming/v1/service/alias', body);
  }

  /** Nothing of it is there any more. */
  forget(): void {
    this.#services.clear();
  }

  async #call(method: string, path: string, body: unknown): Promise<void> {
    const answer = await this.#server.console(method, path, body, 'any');
    const { code } = answer;
    if (![200_000, EXISTS, ...NO_CHANGE].includes(Number(code))) {
      throw new Error(`polaris ${method} ${path}: ${JSON.stringify(answer).slice(0, 400)}`);
    }
  }
}

/** The adapter as app would make it. */
export function makeAdapter(servers: readonly string[], config: object = {}, options: SourceOptions = PLAIN): Made {
  return made((deps) => factory.create({ servers, ...config }, options, deps), { sourceId: 'l5' });
}

export class Bench extends SourceBench {
  constructor(adapter: Made) {
    super(adapter, { kind: 'l5', timeout: PLAIN.timeout });
  }
}
