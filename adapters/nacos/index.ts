// Owns the entry of kind nacos. Called by adapters/index.ts only.
import type { Adapter, AdapterDeps, AdapterFactory, SourceOptions } from '../../src/adapter/contract.ts';
import { refusingAdapter } from '../../src/adapter/refusing.ts';
import { NacosAdapter } from './adapter.ts';
import { ConfigSchema, resolveConfig } from './config.ts';

function create(config: unknown, options: SourceOptions, deps: AdapterDeps): Adapter {
  const resolved = resolveConfig(config, options);
  if (typeof resolved === 'string') return refusingAdapter('nacos', `nacos: ${resolved}`);
  return new NacosAdapter(resolved, options, deps);
}

/** Nacos 1.x (HTTP) and 2.0 - 3.x (gRPC); see README.md. */
export const factory: AdapterFactory = { kind: 'nacos', config: ConfigSchema, create };
