// What the live tests of Polaris share: a raw client past the adapter, the adapter as app makes it, a catalog fed by it.
import { Connection } from '../../adapters/polaris/client.ts';
import { factory } from '../../adapters/polaris/index.ts';
import { nativeOf } from '../../adapters/polaris/mapping.ts';
import { type NativeInstance, TYPE_INSTANCE, textOf } from '../../adapters/polaris/protocol.ts';
import { Question } from '../../adapters/polaris/question.ts';
import { Servers } from '../../adapters/polaris/servers.ts';
import type { SourceOptions } from '../../src/adapter/contract.ts';
import type { Select } from '../../src/adapter/select.ts';
import { systemClock } from '../../src/kernel/clock.ts';
import { systemRandom } from '../../src/kernel/random.ts';
import { TimerWheel } from '../../src/kernel/timer-wheel.ts';
import type { Instance } from '../../src/model/instance.ts';
import type { ServiceKey } from '../../src/model/service.ts';
import { type Made, made, SourceBench } from './source-bench.ts';

export const PLAIN: SourceOptions = { auth: {}, tls: null, timeout: 5_000, normalWeight: null };
/** Of the writer past the adapter: what a test waits for is not how soon its own set-up is done. */
const RAW_TIMEOUT_MS = 30_000;
const MAPPING = { normalWeight: 100, dial: () => null, count: () => {} };

export function never(): AbortSignal {
  return new AbortController().signal;
}

/** A client of the tests' own, past the adapter. */
export class Raw {
  readonly #connection: Connection;
  readonly #servers: Servers;
  readonly #wheel = new TimerWheel(systemClock);

  constructor(grpc: string, token: string | null = null) {
    this.#connection = new Connection(grpc, null, token, RAW_TIMEOUT_MS, systemClock);
    const options = { ...PLAIN, auth: token === null ? {} : { token } };
    const deps = { clock: systemClock, random: systemRandom, wheel: this.#wheel };
    this.#servers = new Servers([{ kind: 'grpc', address: grpc, tls: false }], options, deps);
  }

  /** Registers without a health check. A second write of one address within a batch of the server is tried again. */
  async put(key: ServiceKey, instances: readonly Instance[]): Promise<void> {
    await Promise.all(
      instances.map(async (instance) => {
        const native = nativeOf(key, instance, { ttl: null, sendIsolate: true }, MAPPING);
        if (typeof native === 'string') throw new Error(native);
        await this.register(native);
      }),
    );
  }

  async register(native: NativeInstance): Promise<string> {
    for (let attempt = 0; ; attempt++) {
      const { code, info, instance } = await this.#connection.call('RegisterInstance', native, never());
      if (code?.value === 200_000) return textOf(instance?.id) ?? '';
      if (code?.value !== 400_208 || attempt >= 3) throw new Error(`register: ${code?.value} ${textOf(info)}`);
    }
  }

  async remove(ids: readonly string[]): Promise<void> {
    for (const id of ids) await this.#connection.call('DeregisterInstance', { id: { value: id } }, never());
  }

  /** Ids of a service as the server shows them now; null for an unknown one. */
  async ids(key: ServiceKey): Promise<string[] | null> {
    const { result } = await this.#servers.ask(new Question(TYPE_INSTANCE, key.namespace, key.name), never());
    if (result.kind !== 'answer' || result.answer.code?.value !== 200_000) return null;
    return (result.answer.instances ?? []).map(({ id }) => textOf(id) ?? '');
  }

  close(): void {
    this.#connection.close();
    this.#servers.close();
    this.#wheel.close();
  }
}

/** The adapter as app would make it. */
export function makeAdapter(servers: readonly string[], options: SourceOptions = PLAIN, config: object = {}): Made {
  return made((deps) => factory.create({ servers, ...config }, options, deps), { sourceId: 'polaris' });
}

export class Bench extends SourceBench {
  constructor(servers: readonly string[], options: SourceOptions = PLAIN, config: object = {}, select: Select = { kind: 'all' }) {
    super(makeAdapter(servers, options, config), { kind: 'polaris', timeout: options.timeout, select });
  }
}
