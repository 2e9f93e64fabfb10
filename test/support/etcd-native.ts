// What other programs write in the layouts that the conformance suite runs on; made apart from the adapter's own rows.
import { hostPort } from '../../src/kernel/address.ts';
import type { Instance } from '../../src/model/instance.ts';
import type { AdapterSpec } from '../conformance/adapter.ts';

export interface NativeLayout {
  readonly name: string;
  key(service: string, id: string): string;
  value(instance: Instance): string;
  /** Claims of the suite that the layout cannot keep. */
  readonly skip?: NonNullable<AdapterSpec['skip']>;
}

export const GRPC: NativeLayout = {
  name: 'grpc',
  key: (service, id) => `/services/${service}/${id}`,
  value(instance) {
    const { region, zone, campus } = instance.locality ?? {};
    const { version, protocol, weight } = instance;
    const metadata = { ...Object.fromEntries(instance.metadata), version, protocol, region, zone, campus, weight };
    return JSON.stringify({ Op: 0, Addr: hostPort(instance.host, instance.port), Metadata: metadata });
  },
};

export const SKYDNS: NativeLayout = {
  name: 'skydns',
  key: (service, id) => `/skydns/${service.split('.').reverse().join('/')}/${id}`,
  value: ({ host, port, weight }) => JSON.stringify({ host, port, weight, ttl: 60 }),
  skip: [
    {
      test: 'weights survive a put as well as the scale of the registry allows',
      reason:
        'DNS readers take weight 0 of all records as equal weights: it is refused; the other weights are in mapping.test.ts',
    },
  ],
};
