// Owns the factory of kind `memory`: an embedded registry inside this process, for a first try, demos and tests.
import type { AdapterFactory } from '../../src/adapter/contract.ts';
import { decoder, faultText } from '../../src/kernel/decode.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { MemoryAdapter } from './adapter.ts';
import { memoryConfig } from './config.ts';
import { holdRegistry } from './named.ts';

const decode = decoder(memoryConfig);

export const factory: AdapterFactory = {
  kind: 'memory',
  config: memoryConfig,
  create(config, _options, deps) {
    const decoded = decode(config);
    if (!decoded.ok) throw new SourceError('malformed', decoded.faults.map(faultText).join('; '));
    return new MemoryAdapter(holdRegistry(decoded.value.registry ?? null, deps.clock), deps);
  },
};
