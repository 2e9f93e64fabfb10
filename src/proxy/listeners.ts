// Owns the set of listeners and how it changes: new ones open before old ones close, unchanged ones are kept with their
// connections. Called by data-plane.ts and drain.ts.
import { parseCidr } from '../kernel/address.ts';
import type { OwnListener } from '../kernel/dial.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { Listener, type ListenerDeps, listenText } from './listener.ts';
import type { ListenerFacts } from './proxy-context.ts';
import type { ListenerUpdate, ProxyUpdate } from './proxy-update.ts';
import { DEFAULT_METHODS } from './request-filter.ts';

interface Kept {
  readonly id: string;
  readonly listener: Listener;
}

/** All listeners of a data plane. */
export class Listeners {
  readonly #deps: ListenerDeps;
  readonly #metrics: Metrics;
  /** By address; `id@` before it where the system chooses the port. */
  #kept = new Map<string, Kept>();
  /** Taken out of the configuration; their open requests end in peace. */
  readonly #leaving = new Set<Listener>();
  #changing: Promise<void> = Promise.resolve();

  constructor(deps: ListenerDeps, metrics: Metrics) {
    this.#deps = deps;
    this.#metrics = metrics;
  }

  /**
   * Makes the set what the update says, one update after another. Rejects with the WeirError of the first listener that cannot
   * be opened; then everything stays as it was.
   */
  apply(update: ProxyUpdate): Promise<void> {
    const next = this.#changing.then(() => this.#apply(update));
    this.#changing = next.catch(() => {});
    return next;
  }

  /** Address of a listener by its id; null when it has none. */
  address(id: string): { readonly host: string; readonly port: number } | null {
    for (const kept of this.#kept.values()) if (kept.id === id) return kept.listener.address;
    return null;
  }

  get own(): readonly OwnListener[] {
    const own: OwnListener[] = [];
    for (const { own: mine } of this.all()) if (mine !== null) own.push(mine);
    return own;
  }

  /** Overload: each reply of a listener in use closes its connection. */
  set closing(closing: boolean) {
    for (const { listener } of this.#kept.values()) listener.draining = closing;
  }

  /** Every listener that has connections, leaving ones included. */
  all(): Listener[] {
    return [...Array.from(this.#kept.values(), ({ listener }) => listener), ...this.#leaving];
  }

  async #apply(update: ProxyUpdate): Promise<void> {
    const opened: Listener[] = [];
    const next = new Map<string, Kept>();
    const changes: (() => void)[] = [];
    try {
      for (const one of update.listeners) {
        const facts = factsOf(one, update);
        const key = keyOf(one);
        const kept = this.#kept.get(key);
        if (kept !== undefined) {
          next.set(key, { id: one.id, listener: kept.listener });
          changes.push(() => {
            kept.listener.facts = facts;
          });
          continue;
        }
        const listener = new Listener(this.#deps, one.listen, facts, this.#metrics.gauge('weir_downstream_connections', one.id));
        await listener.listen();
        opened.push(listener);
        next.set(key, { id: one.id, listener });
      }
    } catch (thrown) {
      for (const listener of opened) listener.destroy();
      throw thrown;
    }
    for (const change of changes) change();
    for (const [key, { id, listener }] of this.#kept) if (!next.has(key)) this.#retire(id, listener);
    this.#kept = next;
  }

  #retire(id: string, listener: Listener): void {
    this.#leaving.add(listener);
    listener.draining = true;
    const check = (): void => {
      if (listener.connections > 0 || !this.#leaving.delete(listener)) return;
      // Another listener may bear the id by now.
      const borne = [...this.#kept.values()].some((kept) => kept.id === id);
      if (!borne) this.#metrics.remove('weir_downstream_connections', id);
    };
    listener.onConnectionClosed = check;
    void listener.stop().then(() => {
      listener.closeIdle(true);
      check();
    });
  }
}

function keyOf(update: ListenerUpdate): string {
  const text = listenText(update.listen);
  return update.listen.path === undefined && update.listen.port === 0 ? `${update.id}@${text}` : text;
}

function factsOf(listener: ListenerUpdate, update: ProxyUpdate): ListenerFacts {
  const blocks = listener.trustedCidrs.map(parseCidr).filter((block) => block !== null);
  return {
    filter: {
      pseudonym: `weir-${update.instanceId}`,
      methods: new Set([...DEFAULT_METHODS, ...update.extraMethods]),
      direction: listener.direction,
      main: listener.service === null,
    },
    service: listener.service,
    isTrusted: (address) => blocks.some((block) => block(address)),
  };
}
