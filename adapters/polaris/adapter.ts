// Owns one source of kind polaris: binds servers, feed and writer to the adapter contract.
// Called by the core; must never retry (the supervisor does) or beat by itself (the keeper does).
import type { Capabilities, InstanceField } from '../../src/adapter/capabilities.ts';
import type {
  Adapter,
  AdapterDeps,
  Fence,
  NativeNamespaces,
  RenewResult,
  SourceOptions,
  Write,
  WriteMode,
  WriteReceipt,
} from '../../src/adapter/contract.ts';
import { TimerWheel } from '../../src/kernel/timer-wheel.ts';
import type { RegistryHealth } from '../../src/model/instance.ts';
import type { ServiceKey } from '../../src/model/service.ts';
import { type ServiceList, type Snapshot, SourceError, type Unchanged } from '../../src/model/snapshot.ts';
import { Aliases } from './aliases.ts';
import { type AnswerDeps, snapshotOf } from './answers.ts';
import type { PolarisConfig } from './config.ts';
import { Epochs } from './epochs.ts';
import { sourceError } from './errors.ts';
import { Feed } from './feed.ts';
import { TYPE_INSTANCE } from './protocol.ts';
import { Question } from './question.ts';
import { rightsFaults } from './rights.ts';
import { Servers } from './servers.ts';
import { Writer } from './writer.ts';

const FIELDS: readonly InstanceField[] = ['weight', 'health', 'isolated', 'protocol', 'version', 'locality', 'metadata'];
/** Polls that fall due together go out together, which halves their cost; a change is still seen within one interval and 100 ms. */
const TICK_MS = 50;

export class PolarisAdapter implements Adapter {
  readonly kind = 'polaris';
  readonly namespaces: NativeNamespaces;
  readonly capabilities: Capabilities = {
    watch: 'poll',
    list: true,
    register: true,
    heartbeat: 'core',
    // Registers are unary, but the server stores what comes within 32 ms as one batch (of up to 128): 8 of them are one call to it.
    writesPerCall: 8,
    reads: new Set(FIELDS),
    keeps: new Set(FIELDS),
    tellsDeregistration: false,
    tellsAbsent: true,
  };
  readonly #wheel: TimerWheel;
  readonly #servers: Servers;
  readonly #answers: AnswerDeps;
  readonly #feed: Feed;
  readonly #writer: Writer;
  readonly #aliases: Aliases;
  readonly #closed = new AbortController();

  constructor(config: PolarisConfig, options: SourceOptions, deps: AdapterDeps) {
    const { clock, random, dial, count } = deps;
    this.#wheel = new TimerWheel(clock, TICK_MS);
    this.#servers = new Servers(config.servers, options, { clock, random, wheel: this.#wheel });
    this.#answers = { epochs: new Epochs(), dial, count, normalWeight: config.normalWeight };
    const { namespace, pollMs } = config;
    // Without one all are read; with one the others can be named, and are written only where somebody says so.
    this.namespaces = namespace === '' ? { home: null, others: 'any' } : { home: namespace, others: 'stated' };
    this.#feed = new Feed({ ...this.#answers, servers: this.#servers, clock, random, wheel: this.#wheel, namespace, pollMs });
    this.#aliases = new Aliases(this.#servers);
    this.#writer = new Writer({ servers: this.#servers, feed: this.#feed, clock, mapping: this.#answers });
  }

  services(signal: AbortSignal): AsyncIterable<ServiceList> {
    return this.#feed.lists(signal);
  }

  watch(key: ServiceKey, signal: AbortSignal): AsyncIterable<Snapshot | Unchanged> {
    return this.#feed.watch(key, signal);
  }

  async read(key: ServiceKey, signal: AbortSignal): Promise<Snapshot> {
    const question = new Question(TYPE_INSTANCE, key.namespace, key.name);
    return this.#call(signal, async (until) => {
      const { server, result } = await this.#servers.ask(question, until, true);
      if (result.kind === 'answer') return snapshotOf(question, result.answer, server, this.#answers);
      throw new SourceError('malformed', `polaris ${server}: ${question.about}: "no change" to a first question`);
    });
  }

  mayWrite(keys: readonly ServiceKey[], signal: AbortSignal): Promise<readonly SourceError[]> {
    return this.#call(signal, (until) => rightsFaults(this.#servers, keys, until));
  }

  put(writes: readonly Write[], how: WriteMode, signal: AbortSignal): Promise<readonly (WriteReceipt | SourceError)[]> {
    return this.#writer.put(writes, how, this.#untilClosed(signal));
  }

  renew(receipts: readonly WriteReceipt[], signal: AbortSignal): Promise<readonly RenewResult[]> {
    return this.#writer.renew(receipts, this.#untilClosed(signal));
  }

  setHealth(receipt: WriteReceipt, health: RegistryHealth, signal: AbortSignal): Promise<void> {
    return this.#call(signal, (until) => this.#writer.setHealth(receipt, health, until));
  }

  /** Polaris has no fences: `how.fence` guards nothing here. */
  remove(
    receipts: readonly WriteReceipt[],
    _how: { readonly fence?: Fence },
    signal: AbortSignal,
  ): Promise<readonly (true | SourceError)[]> {
    return this.#writer.remove(receipts, this.#untilClosed(signal));
  }

  /** Through the console API: needs an `http://` entry in `servers` and a token that may write. */
  alias(key: ServiceKey, name: string, signal: AbortSignal): Promise<boolean> {
    return this.#call(signal, (until) => this.#aliases.make(key, name, until));
  }

  /** As {@link alias}. */
  unalias(key: ServiceKey, name: string, signal: AbortSignal): Promise<void> {
    return this.#call(signal, (until) => this.#aliases.remove(key, name, until));
  }

  async close(): Promise<void> {
    this.#closed.abort(new SourceError('lost', 'polaris: the source is closed'));
    this.#feed.end();
    this.#servers.close();
    this.#wheel.close();
  }

  async #call<T>(signal: AbortSignal, run: (until: AbortSignal) => Promise<T>): Promise<T> {
    try {
      signal.throwIfAborted();
      return await run(this.#untilClosed(signal));
    } catch (thrown) {
      throw signal.aborted ? signal.reason : sourceError(thrown);
    }
  }

  #untilClosed(signal: AbortSignal): AbortSignal {
    return AbortSignal.any([signal, this.#closed.signal]);
  }
}
