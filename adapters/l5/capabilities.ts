// Owns what the central protocol can do, as data. Called by adapter.ts and refusing.ts.
import type { Capabilities, InstanceField } from '../../src/adapter/capabilities.ts';

/** Read-only: the protocol has no call that registers, removes or beats. `lists`: names or SIDs are configured. */
export function capabilitiesOf(how: { lists: boolean; protocols: boolean }): Capabilities {
  const reads: InstanceField[] = ['weight', 'health', 'locality', 'metadata'];
  if (how.protocols) reads.push('protocol');
  return {
    watch: 'poll',
    list: how.lists,
    register: false,
    heartbeat: 'none',
    reads: new Set(reads),
    keeps: new Set(),
    tellsDeregistration: false,
    // Unknown, deleted and all unhealthy look alike.
    tellsAbsent: false,
  };
}
