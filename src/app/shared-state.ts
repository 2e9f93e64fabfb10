// Owns the connection to the store that a fleet shares: an adapter of that kind, opened for its state store alone.
// Called by app.ts; must never watch or register anything through it.
import type { AdapterLoader } from '../adapter/contract.ts';
import type { StateStore } from '../adapter/state-store.ts';
import type { Clock } from '../kernel/clock.ts';
import { messageOf, WeirError } from '../kernel/errors.ts';
import type { Log } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import type { SharedStateSettings } from '../settings/settings.ts';

export interface SharedStateDeps {
  readonly loader: AdapterLoader;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

export interface SharedState {
  readonly store: StateStore;
  /** After everyone who uses the store. */
  close(): Promise<void>;
}

/** Name of the connection in logs. */
const ID = 'state.shared';

/** Does not connect: the first call to the store does. Throws WeirError CONFIG_INVALID for a kind or keys that make no store. */
export async function openSharedState(settings: SharedStateSettings, deps: SharedStateDeps): Promise<SharedState> {
  const { loader, clock, random } = deps;
  const factory = await loader.load(settings.kind);
  if (factory === null) throw new WeirError('CONFIG_INVALID', `${ID}: no kind ${settings.kind}`);
  const log = deps.log.child({ source: ID });
  const adapter = factory.create(settings.config, settings.options, {
    sourceId: ID,
    clock,
    random,
    log,
    // No address is taken from it.
    dial: () => 'notInCidrs',
    count: (what, by = 1) => log.debug({ what, by }, 'oddity of the shared store'),
  });
  const store = adapter.stateStore?.();
  if (store !== undefined) return { store, close: () => adapter.close() };
  // An adapter whose keys cannot work answers every call with the reason.
  const never = new AbortController().signal;
  const reason = await adapter.read({ namespace: 'weir', name: 'state' }, never).then(() => 'it keeps no state', messageOf);
  await adapter.close();
  throw new WeirError('CONFIG_INVALID', `${ID}: ${settings.kind} cannot be the shared store: ${reason}`);
}
