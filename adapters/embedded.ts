// Owns the registries that a demo carries inside itself: in-process servers that speak the real protocols, and native registration where
// that takes more than HTTP. Called by src/app/embedded.ts alone, for `weir demo --story`; a sidecar (`weir run`) must never load this.
import { createConnection, createServer, type Server } from 'node:net';
import { splitHostPort } from '../src/kernel/address.ts';
import { systemClock } from '../src/kernel/clock.ts';
import { systemRandom } from '../src/kernel/random.ts';

/** A provider as it registers itself, without weir. */
export interface NativeProvider {
  readonly name: string;
  readonly host: string;
  readonly port: number;
}

/** How providers register themselves in one registry, by its own means. */
export interface NativeDoor {
  /** Repeatable. */
  put(provider: NativeProvider): Promise<void>;
  /** Nothing to remove is no failure. */
  remove(provider: NativeProvider): Promise<void>;
  /** What a provider says every few seconds to stay, where the registry wants that. */
  beat?(provider: NativeProvider): Promise<void>;
  close?(): void;
}

/** A registry that runs inside this process. */
export interface EmbeddedRegistry {
  /** What configuration and shell commands call its addresses. */
  readonly variables: ReadonlyMap<string, string>;
  /** Only where the protocol itself has no way to write (CL5: people edit its console). */
  readonly door?: NativeDoor;
  close(): Promise<void>;
}

export const embeddedKinds: ReadonlyMap<string, () => Promise<EmbeddedRegistry>> = new Map([
  ['consul', consul],
  ['nacos', nacos],
  ['polaris', polaris],
  ['etcd', etcd],
  ['cl5', cl5],
]);

/** The SID under which the story's service stands in CL5. */
const SID = '1001:77';

async function consul(): Promise<EmbeddedRegistry> {
  const { startFakeConsul } = await import('./consul/fake.ts');
  const server = await startFakeConsul(systemClock);
  return { variables: new Map([['CONSUL', server.address.replace('http://', '')]]), close: () => server.close() };
}

async function nacos(): Promise<EmbeddedRegistry> {
  const { startFakeNacos } = await import('./nacos/fake.ts');
  // Clients expect gRPC 1,000 ports above HTTP; such a pair may be taken by others.
  for (let attempt = 1; ; attempt++) {
    const server = await startFakeNacos('2.5.1', systemClock);
    try {
      const forward = await forwarder((splitHostPort(server.address)?.port ?? 0) + 1_000, server.grpcPort);
      return {
        variables: new Map([['NACOS', server.address]]),
        async close() {
          forward.close();
          await server.close();
        },
      };
    } catch (thrown) {
      await server.close();
      if (attempt === 20) throw thrown;
    }
  }
}

async function polaris(): Promise<EmbeddedRegistry> {
  const { startFakePolaris } = await import('./polaris/fake.ts');
  const server = await startFakePolaris(systemClock);
  return {
    variables: new Map([
      ['POLARIS', server.grpc],
      ['POLARIS_HTTP', server.http],
      ['POLARIS_TOKEN', server.token],
    ]),
    close: () => server.close(),
  };
}

async function etcd(): Promise<EmbeddedRegistry> {
  const { startFakeEtcd } = await import('./etcd/fake.ts');
  const server = await startFakeEtcd('3.6.16', systemClock);
  return { variables: new Map([['ETCD', server.endpoint]]), close: () => server.close() };
}

async function cl5(): Promise<EmbeddedRegistry> {
  const { startFakeL5 } = await import('./l5/fake.ts');
  const server = await startFakeL5(systemClock);
  server.store.put(SID, [], { name: 'shop.hello' });
  return {
    variables: new Map([['POLARIS_L5', server.endpoint]]),
    door: {
      async put({ host, port }) {
        server.store.put(SID, [{ host, port, weight: 100 }]);
      },
      async remove({ host, port }) {
        server.store.remove(SID, `${host}:${port}`);
      },
    },
    close: () => server.stop(),
  };
}

/** Providers that put their own keys, in the layout of gRPC's etcd endpoints; gRPC, since an embedded one has no JSON gateway. */
export async function etcdDoor(endpoint: string, service: string): Promise<NativeDoor> {
  const { EtcdClient } = await import('./etcd/client.ts');
  const options = { auth: {}, tls: null, timeout: 5_000, normalWeight: null };
  const client = new EtcdClient([{ address: endpoint, tls: false }], options, { clock: systemClock, random: systemRandom });
  const keyOf = ({ host, port }: NativeProvider): Buffer => Buffer.from(`/services/${service}/${host}:${port}`);
  return {
    async put(provider) {
      const { name, host, port } = provider;
      const value = { Op: 0, Addr: `${host}:${port}`, Metadata: { provider: name } };
      await client.call('Put', { key: keyOf(provider), value: Buffer.from(JSON.stringify(value)) }, AbortSignal.timeout(5_000));
    },
    async remove(provider) {
      await client.call('DeleteRange', { key: keyOf(provider) }, AbortSignal.timeout(5_000));
    },
    close: () => client.close(),
  };
}

/** Takes connections on one loopback port and carries them to another. */
function forwarder(from: number, to: number): Promise<Server> {
  const server = createServer((near) => {
    const far = createConnection(to, '127.0.0.1');
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      one.on('error', () => other.destroy());
      one.on('close', () => other.destroy());
      one.pipe(other);
    }
  });
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(from, '127.0.0.1', () => resolve(server));
  });
}
