// Owns one mirror and its lives: the first listener starts a session, a loss fails every listener, the last one to leave ends it.
// Called by feed.ts and state-store.ts; must never start a session by itself after a loss (the supervisor paces that).
import type { SourceError } from '../../src/model/snapshot.ts';
import { asSourceError } from '../../src/model/snapshot.ts';
import { type Change, type DecodeKey, Mirror } from './mirror.ts';
import type { SessionDeps } from './round.ts';
import { WatchSession } from './session.ts';

/** Told in this order: ready once, then changes and contact; at last lost, after which it has left. Must not throw. */
export interface HubListener<T> {
  onReady(): void;
  onChanges(changes: readonly Change<T>[]): void;
  onContact(): void;
  onLost(error: SourceError): void;
}

export class Hub<T> {
  readonly mirror: Mirror<T>;
  readonly #prefix: string;
  readonly #deps: SessionDeps;
  readonly #apply: (changes: readonly Change<T>[]) => void;
  readonly #listeners = new Set<HubListener<T>>();
  #life: { readonly controller: AbortController; readonly session: WatchSession<T> } | null = null;
  #ready = false;
  /** The last life ended by a loss: the next one may go on from `next`. After a quiet end it lists, since nobody waits for the past. */
  #resume = false;

  /** `apply` keeps indexes beside the mirror; it sees every change before the listeners do. */
  constructor(
    prefix: string,
    decode: DecodeKey<T>,
    deps: SessionDeps,
    apply: (changes: readonly Change<T>[]) => void = () => {},
  ) {
    this.mirror = new Mirror(decode);
    this.#prefix = prefix;
    this.#deps = deps;
    this.#apply = apply;
  }

  /** Adds a listener and starts a life if there is none. The returned function takes it out again, quietly. */
  join(listener: HubListener<T>): () => void {
    this.#listeners.add(listener);
    if (this.#life === null) this.#start();
    else if (this.#ready) listener.onReady();
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size === 0) this.#stop();
    };
  }

  /** A read elsewhere saw a new epoch: list now if a life is running. */
  suspect(): void {
    this.#life?.session.suspect();
  }

  #start(): void {
    const controller = new AbortController();
    const session = new WatchSession(this.#prefix, this.mirror, this.#deps, {
      onReady: () => {
        this.#ready = true;
        for (const listener of [...this.#listeners]) listener.onReady();
      },
      onChanges: (changes) => {
        this.#apply(changes);
        if (this.#ready) for (const listener of [...this.#listeners]) listener.onChanges(changes);
      },
      onContact: () => {
        for (const listener of [...this.#listeners]) listener.onContact();
      },
    });
    this.#ready = false;
    this.#life = { controller, session };
    session.run(this.#resume, controller.signal).catch((thrown: unknown) => {
      if (this.#life?.controller !== controller) return;
      this.#life = null;
      this.#ready = false;
      this.#resume = true;
      const error = asSourceError(thrown);
      const listeners = [...this.#listeners];
      this.#listeners.clear();
      for (const listener of listeners) listener.onLost(error);
    });
  }

  #stop(): void {
    const life = this.#life;
    this.#life = null;
    this.#ready = false;
    this.#resume = false;
    life?.controller.abort(new Error('nobody watches any more'));
  }
}
