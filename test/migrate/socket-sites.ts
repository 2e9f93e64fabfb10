// The fakes of registries over their real sockets, with a link between them and the sidecar that delays every byte and can be cut or go
// dead, as sites of the histories. Called by socket-histories.test.ts.

import { FakeConsul } from '../../adapters/consul/fake.ts';
import { startFakeEtcd } from '../../adapters/etcd/fake.ts';
import { FakeNacos } from '../../adapters/nacos/fake.ts';
import { loadWire } from '../../adapters/nacos/wire.ts';
import { systemClock } from '../../src/kernel/clock.ts';
import type { FaultBench } from '../faults/harness/bench.ts';
import { type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts';
import { FakeUpstream } from '../support/upstream-farm.ts';
import { consulAt, type Site } from './live.ts';
import { nacosAt } from './nacos-site.ts';

const DELAY_MS = 2;
const JITTER_MS = 8;
const FAULT = 'a broken link';

async function linkTo(bench: FaultBench, endpoint: string, seed: number): Promise<FaultProxy> {
  const link = await startFaultProxy(endpoint, seed);
  bench.defer(() => link.close());
  Object.assign(link.link, { delayMs: DELAY_MS, jitterMs: JITTER_MS });
  return link;
}

/** In turns: connections are refused, everything goes dead without a word, connections are cut and taken again. */
function faults(links: readonly FaultProxy[], seed: number): Site['crash'] {
  let turn = seed;
  return async (away) => {
    const kind = (['refuse', 'dead', 'cut'] as const)[turn++ % 3];
    if (kind === 'cut') {
      for (const link of links) link.cut();
      return away();
    }
    for (const link of links) await (kind === 'refuse' ? link.refuse() : link.blackhole(true));
    await away();
    for (const link of links) {
      if (kind === 'refuse') await link.accept();
      else {
        link.blackhole(false);
        link.cut();
      }
    }
  };
}

export async function fakeEtcdSite(bench: FaultBench, id: string, seed: number): Promise<Site> {
  const fake = await startFakeEtcd('3.6.16', systemClock);
  bench.defer(() => fake.close());
  const link = await linkTo(bench, fake.endpoint, seed);
  const prefix = Buffer.from('/services/hello/');
  const keyOf = (port: number): Buffer => Buffer.from(`/services/hello/native-${port}`);
  return {
    id,
    source: `{id: ${id}, kind: etcd, endpoints: ["http://${link.endpoint}"], layout: grpc, prefix: /services/, allowLoopback: true, timeout: 1s}`,
    speaks: { weight: true, health: false, isolated: false, metadata: true },
    registers: true,
    async register(port) {
      const value = JSON.stringify({ Op: 0, Addr: `127.0.0.1:${port}`, Metadata: { weight: 100, team: 'a' } });
      fake.store.put({ key: keyOf(port), value: Buffer.from(value) });
    },
    async deregister(port) {
      fake.store.deleteRange({ key: keyOf(port) });
    },
    async read() {
      const { kvs } = fake.store.range({ key: prefix, rangeEnd: Buffer.from('/services/hello0') });
      return kvs.map(({ key, value }) => {
        const text = value.toString();
        const { Addr, Metadata = {} } = JSON.parse(text);
        const { weight = 100, ...rest } = Metadata;
        return {
          key: key.toString(),
          port: Number(String(Addr).split(':')[1]),
          weight: Number(weight),
          health: 'healthy',
          isolated: false,
          metadata: new Map(Object.entries(rest).map(([name, one]) => [name, String(one)])),
          bytes: text,
        };
      });
    },
    crash: faults([link], seed),
    fault: FAULT,
  };
}

export async function fakeConsulSite(bench: FaultBench, id: string, seed: number): Promise<Site> {
  const fake = new FakeConsul(systemClock);
  await fake.listen();
  bench.defer(() => fake.close());
  const link = await linkTo(bench, fake.address.slice('http://'.length), seed);
  return { ...consulAt(id, fake.address, `http://${link.endpoint}`, faults([link], seed)), fault: FAULT };
}

/** Of 3.0.3. */
export async function fakeNacosSite(bench: FaultBench, id: string, seed: number): Promise<Site> {
  const fake = new FakeNacos('3.0.3', systemClock, await loadWire());
  await fake.up();
  bench.defer(() => fake.close());
  const http = await linkTo(bench, fake.address, seed);
  const grpc = await linkTo(bench, `127.0.0.1:${fake.grpcPort}`, seed + 1);
  const via = `servers: ["${http.endpoint}"], grpcPort: ${grpc.endpoint.split(':')[1]}`;
  return { ...nacosAt(id, fake.address, via, faults([http, grpc], seed)), fault: FAULT };
}

/** Providers in this process, as the load's client wants them. */
export async function upstreams(bench: FaultBench, n: number): Promise<readonly { readonly port: number }[]> {
  return Promise.all(
    Array.from({ length: n }, async () => {
      const upstream = new FakeUpstream(({ id }, reply) => reply.send(200, `${id} .`), {});
      await upstream.listen();
      bench.defer(() => upstream.kill());
      return upstream;
    }),
  );
}
