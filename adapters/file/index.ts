// Owns the factory of kind `file`: fixed services in a YAML file that is read again when it changes.
import type { AdapterFactory } from '../../src/adapter/contract.ts';
import { decoder, faultText } from '../../src/kernel/decode.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { FileAdapter } from './adapter.ts';
import { fileConfig } from './config.ts';

const decode = decoder(fileConfig);

export const factory: AdapterFactory = {
  kind: 'file',
  config: fileConfig,
  create(config, options, deps) {
    const decoded = decode(config);
    if (!decoded.ok) throw new SourceError('malformed', decoded.faults.map(faultText).join('; '));
    return new FileAdapter(decoded.value.path, options, deps);
  },
};
