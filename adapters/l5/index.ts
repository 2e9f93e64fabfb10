// Owns the entry of kind l5. Called by adapters/index.ts only.
import type { Adapter, AdapterDeps, AdapterFactory, SourceOptions } from '../../src/adapter/contract.ts';
import { refusingAdapter } from '../../src/adapter/refusing.ts';
import { L5Adapter } from './adapter.ts';
import { ConfigSchema, resolveConfig } from './config.ts';

function create(config: unknown, options: SourceOptions, deps: AdapterDeps): Adapter {
  const resolved = resolveConfig(config, options);
  if (typeof resolved === 'string') return refusingAdapter('l5', `l5: ${resolved}`);
  return new L5Adapter(resolved, options.timeout, deps);
}

/** CL5/L5 by the central protocol, read-only; see README.md. */
export const factory: AdapterFactory = { kind: 'l5', config: ConfigSchema, create };
