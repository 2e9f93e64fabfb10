// The five fake registries of five-registries.ts in a process of their own, filled with services of two instances each. Argument: how
// many. Says its ports to the parent, then cuts every connection whenever it is told; data and listeners stay.
import { startFakeConsul } from '../../adapters/consul/fake.ts';
import { AGENT_NODE } from '../../adapters/consul/fake-store.ts';
import { startFakeEtcd } from '../../adapters/etcd/fake.ts';
import { startFakeL5 } from '../../adapters/l5/fake.ts';
import { startFakeNacos } from '../../adapters/nacos/fake.ts';
import { startFakePolaris } from '../../adapters/polaris/fake.ts';
import { systemClock } from '../../src/kernel/clock.ts';

/** Where they listen. */
export interface Ports {
  readonly etcd: string;
  readonly consul: string;
  readonly nacos: string;
  readonly nacosGrpc: number;
  readonly polaris: string;
  readonly l5: string;
  readonly modId: number;
}

export interface ToFakes {
  readonly do: 'cut';
}

const MOD_ID = 192_002_625;

/** Services are named like L5's, the one registry that does not choose: the same name in all of them. */
const nameOf = (n: number): string => `${MOD_ID}:${n + 1}`;

async function main(count: number): Promise<void> {
  const [etcd, consul, nacos, polaris, l5] = await Promise.all([
    startFakeEtcd('3.6.16', systemClock),
    startFakeConsul(systemClock),
    startFakeNacos('3.0.3', systemClock),
    startFakePolaris(systemClock),
    startFakeL5(systemClock),
  ]);
  for (let n = 0; n < count; n++) {
    const name = nameOf(n);
    // Every registry has instances of its own: a merged service has ten.
    const hosts = (registry: number): readonly string[] => [1, 2].map((i) => `10.${registry}${i}.${n >> 8}.${n & 255}`);
    for (const host of hosts(1)) {
      const value = JSON.stringify({ Op: 0, Addr: `${host}:8080`, Metadata: { version: '1.0', zone: 'z1' } });
      etcd.store.put({ key: Buffer.from(`/services/${name}/${host}`), value: Buffer.from(value) });
    }
    for (const host of hosts(2)) {
      const body = { ID: `${name}-${host}`, Service: name, Address: host, Port: 8080, Meta: { version: '1.0' }, Tags: ['a'] };
      consul.store.setService(AGENT_NODE, body);
    }
    const published = hosts(3).map((ip) => ({
      ...{ ip, port: 8080, weight: 1, healthy: true, enabled: true, ephemeral: false, clusterName: 'DEFAULT' },
      metadata: { version: '1.0' },
    }));
    for (const instance of published) nacos.store.persist(`public@@DEFAULT_GROUP@@${name}`, instance);
    for (const host of hosts(4)) {
      const native = { id: { value: `${name}-${host}` }, host: { value: host }, port: { value: 8080 } };
      polaris.store.force('default', name, native);
    }
    l5.store.put(
      name,
      hosts(5).map((host) => ({ host, port: 8080, weight: 100 })),
    );
  }
  polaris.store.refresh();
  // A parent that was killed leaves nobody to end us.
  process.on('disconnect', () => process.exit(0));
  process.on('message', () => {
    for (const fake of [etcd, consul, nacos, polaris, l5]) fake.cut();
    process.send?.('done');
  });
  const ports: Ports = {
    etcd: etcd.endpoint,
    consul: consul.address,
    nacos: nacos.address,
    nacosGrpc: nacos.grpcPort,
    polaris: polaris.grpc,
    l5: l5.endpoint,
    modId: MOD_ID,
  };
  process.send?.(ports);
}

await main(Number(process.argv[2]));
