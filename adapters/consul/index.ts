// Owns the entry of kind consul. Called by adapters/index.ts only.
import type { Adapter, AdapterDeps, AdapterFactory, SourceOptions } from '../../src/adapter/contract.ts';
import { refusingAdapter } from '../../src/adapter/refusing.ts';
import { ConsulAdapter } from './adapter.ts';
import { ConsulClient } from './client.ts';
import { ConfigSchema, resolveConfig } from './config.ts';

function create(config: unknown, options: SourceOptions, deps: AdapterDeps): Adapter {
  const resolved = resolveConfig(config, options);
  if (typeof resolved === 'string') return refusingAdapter('consul', `consul: ${resolved}`);
  return new ConsulAdapter(resolved, new ConsulClient(resolved.origin, options, deps.clock), deps);
}

/** Consul over its HTTP API; see README.md. */
export const factory: AdapterFactory = { kind: 'consul', config: ConfigSchema, create };
