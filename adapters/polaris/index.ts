// Owns the entry of kind polaris. Called by adapters/index.ts only.
import type { Adapter, AdapterDeps, AdapterFactory, SourceOptions } from '../../src/adapter/contract.ts';
import { refusingAdapter } from '../../src/adapter/refusing.ts';
import { PolarisAdapter } from './adapter.ts';
import { ConfigSchema, resolveConfig } from './config.ts';

function create(config: unknown, options: SourceOptions, deps: AdapterDeps): Adapter {
  const resolved = resolveConfig(config, options);
  if (typeof resolved === 'string') return refusingAdapter('polaris', `polaris: ${resolved}`);
  return new PolarisAdapter(resolved, options, deps);
}

/** Polaris 1.18 over gRPC, with its HTTP API as a fallback; see README.md. */
export const factory: AdapterFactory = { kind: 'polaris', config: ConfigSchema, create };
