// Owns which embedded registries are shared by name within this process. Called by index.ts, demo and tests; a registry lives
// as long as it has a client.
import type { Clock } from '../../src/kernel/clock.ts';
import { MemoryRegistry } from './registry.ts';

const shared = new Map<string, { readonly registry: MemoryRegistry; clients: number }>();

/** A client's hold on a registry; `release` twice does nothing. */
export interface RegistryHold {
  readonly registry: MemoryRegistry;
  release(): void;
}

/** The registry of that name (made on first use, on the first user's clock), or one of its own for null. */
export function holdRegistry(name: string | null, clock: Clock): RegistryHold {
  const found = name === null ? undefined : shared.get(name);
  const entry = found ?? { registry: new MemoryRegistry(clock), clients: 0 };
  entry.clients++;
  if (name !== null) shared.set(name, entry);
  let held = true;
  return {
    registry: entry.registry,
    release() {
      if (!held) return;
      held = false;
      if (--entry.clients > 0) return;
      entry.registry.close();
      if (name !== null) shared.delete(name);
    },
  };
}
