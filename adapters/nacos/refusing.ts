// Owns a source whose configuration cannot work: every call says why, so that the fault is shown where sources are shown.
// Called by index.ts; must never connect.
import type { Adapter } from '../../src/adapter/contract.ts';
import { SourceError } from '../../src/model/snapshot.ts';

/** An adapter that answers everything with SourceError `refused` and this text. */
export function refusingAdapter(text: string): Adapter {
  const refuse = (): SourceError => new SourceError('refused', text);
  // biome-ignore lint/correctness/useYield: the first step throws.
  async function* refused(): AsyncGenerator<never, void, void> {
    throw refuse();
  }
  return {
    kind: 'nacos',
    capabilities: {
      watch: 'push',
      list: true,
      register: false,
      heartbeat: 'none',
      reads: new Set(),
      keeps: new Set(),
      tellsDeregistration: false,
      tellsAbsent: false,
    },
    services: refused,
    watch: refused,
    read: () => Promise.reject(refuse()),
    close: () => Promise.resolve(),
  };
}
