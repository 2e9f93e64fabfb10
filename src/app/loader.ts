// Owns the way from a kind's name to its factory: adapters/index.ts is the only list. Called by settings (schemas) and sources.ts.
import { adapterKinds } from '../../adapters/index.ts';
import type { AdapterFactory, AdapterLoader } from '../adapter/contract.ts';

/** Loads kinds lazily and once. */
export function adapterLoader(): AdapterLoader {
  const loaded = new Map<string, AdapterFactory>();
  return {
    kinds: [...adapterKinds.keys()],
    async load(kind) {
      const known = loaded.get(kind);
      if (known !== undefined) return known;
      const load = adapterKinds.get(kind);
      if (load === undefined) return null;
      const { factory } = await load();
      loaded.set(kind, factory);
      return factory;
    },
  };
}
