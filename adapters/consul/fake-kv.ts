// Owns keys, sessions and locks of the fake Consul. Called by fake.ts; time comes from its clock.
import { randomUUID } from 'node:crypto';
import type { Clock, Timer } from '../../src/kernel/clock.ts';
import type { FakeStore } from './fake-store.ts';

export interface FakeKey {
  readonly key: string;
  readonly value: string;
  readonly session: string;
  readonly lockIndex: number;
  readonly create: number;
  readonly modify: number;
}

interface FakeSession {
  readonly id: string;
  readonly ttlMs: number;
  readonly delayMs: number;
  timer: Timer | null;
}

export class FakeKv {
  readonly keys = new Map<string, FakeKey>();
  readonly sessions = new Map<string, FakeSession>();
  readonly #store: FakeStore;
  readonly #clock: Clock;
  /** Keys that nobody gets before this time. */
  readonly #delayed = new Map<string, number>();
  index = 1;

  constructor(store: FakeStore, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
  }

  set(key: string, value: string): FakeKey {
    const before = this.keys.get(key);
    const modify = this.#bump();
    // A plain set of a held key keeps the holder and resets LockIndex.
    const entry = { key, value, session: before?.session ?? '', lockIndex: 0, create: before?.create ?? modify, modify };
    this.keys.set(key, entry);
    this.#store.notify();
    return entry;
  }

  delete(key: string): void {
    if (!this.keys.delete(key)) return;
    this.#bump();
    this.#store.notify();
  }

  acquire(key: string, value: string, session: string): boolean {
    const before = this.keys.get(key);
    if (before !== undefined && before.session === session) return true;
    if (before !== undefined && before.session !== '') return false;
    if ((this.#delayed.get(key) ?? 0) > this.#clock.now()) return false;
    const modify = this.#bump();
    const lockIndex = (before?.lockIndex ?? 0) + 1;
    this.keys.set(key, { key, value, session, lockIndex, create: before?.create ?? modify, modify });
    this.#store.notify();
    return true;
  }

  release(key: string, session: string): boolean {
    const before = this.keys.get(key);
    if (before === undefined || before.session !== session) return false;
    this.keys.set(key, { ...before, session: '', modify: this.#bump() });
    this.#store.notify();
    return true;
  }

  create(ttlMs: number, delayMs: number): string {
    const id = randomUUID();
    const session: FakeSession = { id, ttlMs, delayMs, timer: null };
    this.sessions.set(id, session);
    this.renew(id);
    return id;
  }

  /** A session ends 2 × TTL after its last renewal. */
  renew(id: string): number | null {
    const session = this.sessions.get(id);
    if (session === undefined) return null;
    session.timer?.cancel();
    session.timer = this.#clock.setTimer(2 * session.ttlMs, () => this.destroy(id));
    return session.ttlMs;
  }

  destroy(id: string): void {
    const session = this.sessions.get(id);
    if (session === undefined) return;
    session.timer?.cancel();
    this.sessions.delete(id);
    for (const held of [...this.keys.values()]) {
      if (held.session !== id) continue;
      this.#delayed.set(held.key, this.#clock.now() + session.delayMs);
      this.keys.set(held.key, { ...held, session: '', modify: this.#bump() });
    }
    this.#store.notify();
  }

  close(): void {
    for (const { timer } of this.sessions.values()) timer?.cancel();
  }

  #bump(): number {
    this.index = ++this.#store.index;
    return this.index;
  }
}
