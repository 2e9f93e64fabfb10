// Owns a source whose configuration cannot work: every call says why, so that the fault is shown where sources are shown.
// Called by the index.ts of each kind; must never connect.
import { SourceError } from '../model/snapshot.ts';
import type { Adapter } from './contract.ts';

/** An adapter of this kind that can do nothing: it answers everything with SourceError `refused` and this text. */
export function refusingAdapter(kind: string, text: string): Adapter {
  const refuse = (): SourceError => new SourceError('refused', text);
  // biome-ignore lint/correctness/useYield: the first step throws.
  async function* refused(): AsyncGenerator<never, void, void> {
    throw refuse();
  }
  return {
    kind,
    capabilities: {
      watch: 'poll',
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
