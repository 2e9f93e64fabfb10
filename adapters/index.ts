// Owns the only list of adapter kinds. Called by app alone (AdapterLoader); kinds load lazily, since SDKs cost memory and start time.
import type { AdapterFactory } from '../src/adapter/contract.ts';

/** kind → its module; each `index.ts` exports one name, `factory`. */
export const adapterKinds: ReadonlyMap<string, () => Promise<{ readonly factory: AdapterFactory }>> = new Map([
  ['memory', () => import('./memory/index.ts')],
  ['file', () => import('./file/index.ts')],
  ['etcd', () => import('./etcd/index.ts')],
  ['consul', () => import('./consul/index.ts')],
  ['nacos', () => import('./nacos/index.ts')],
  ['polaris', () => import('./polaris/index.ts')],
  ['l5', () => import('./l5/index.ts')],
]);
