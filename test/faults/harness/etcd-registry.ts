// An etcd that holds instances of `default/hello` in the layout grpc, fake or real, behind a link that can be broken.
// Called by the fault tests of registries.
import { startFakeEtcd } from '../../../adapters/etcd/fake.ts';
import { systemClock } from '../../../src/kernel/clock.ts';
import { type FaultProxy, startFaultProxy } from '../../support/fault-proxy.ts';
import type { FaultBench } from './bench.ts';

export const ETCD_SERVICE = 'default/hello';

/** The value of an instance. */
export function grpcValue(port: number, weight = 100): string {
  return JSON.stringify({ Op: 0, Addr: `127.0.0.1:${port}`, Metadata: { weight } });
}

/** Lines of `sources:` for an etcd at this address. */
export function etcdSource(endpoint: string, id = 'etcd', more = ''): string {
  return `  - {id: ${id}, kind: etcd, endpoints: ["http://${endpoint}"], layout: grpc, prefix: /services/, allowLoopback: true, timeout: 1s${more}}\n`;
}

/** A fake etcd behind a fault proxy. */
export async function fakeEtcd(bench: FaultBench) {
  const fake = await startFakeEtcd('3.6.16', systemClock);
  bench.defer(() => fake.close());
  const link: FaultProxy = await startFaultProxy(fake.endpoint, bench.seed);
  bench.defer(() => link.close());
  const key = (id: string, service = 'hello'): Buffer => Buffer.from(`/services/${service}/${id}`);
  return {
    fake,
    link,
    source: (id = 'etcd', more = '') => etcdSource(link.endpoint, id, more),
    put(id: string, port: number, service = 'hello'): void {
      fake.store.put({ key: key(id, service), value: Buffer.from(grpcValue(port)) });
    },
    putRaw(id: string, value: string | Buffer, service = 'hello'): void {
      fake.store.put({ key: key(id, service), value: Buffer.from(value) });
    },
    remove(id: string, service = 'hello'): void {
      fake.store.deleteRange({ key: key(id, service) });
    },
  };
}
