// Owns the entry of kind etcd. Called by adapters/index.ts only.
import type { Adapter, AdapterDeps, AdapterFactory, SourceOptions } from '../../src/adapter/contract.ts';
import { refusingAdapter } from '../../src/adapter/refusing.ts';
import { EtcdAdapter } from './adapter.ts';
import { EtcdClient } from './client.ts';
import { ConfigSchema, resolveConfig } from './config.ts';

function create(config: unknown, options: SourceOptions, deps: AdapterDeps): Adapter {
  const resolved = resolveConfig(config, options);
  if (typeof resolved === 'string') return refusingAdapter('etcd', `etcd: ${resolved}`);
  return new EtcdAdapter(resolved, new EtcdClient(resolved.endpoints, options, deps), deps);
}

/** etcd 3.4 - 3.6 over gRPC; see README.md. */
export const factory: AdapterFactory = { kind: 'etcd', config: ConfigSchema, create };
