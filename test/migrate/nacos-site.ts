// A Nacos, real or fake, as the histories on servers use one: providers and the checker speak its plain HTTP API. Called by live.ts's tests.
import type { FaultBench } from '../faults/harness/bench.ts';
import { startNacos } from '../registries/nacos.ts';
import { SERVICE, type Site } from './live.ts';

/** A record that lives without beats: the histories' providers send none. */
const PATIENT = {
  'preserved.heart.beat.interval': '5000',
  'preserved.heart.beat.timeout': '600000',
  'preserved.ip.delete.timeout': '600000',
};

interface NacosHost {
  readonly ip: string;
  readonly port: number;
  readonly weight: number;
  readonly healthy: boolean;
  readonly metadata: Readonly<Record<string, string>>;
}

/** A real one, from the distribution in WEIR_TEST_NACOS_HOME. */
export async function nacosSite(bench: FaultBench, id: string): Promise<Site> {
  const server = await startNacos();
  bench.defer(() => server.stop());
  const standing = new Set<number>();
  const site = nacosAt(id, server.address, `servers: ["${server.address}"]`, async (away) => {
    await server.kill('SIGKILL');
    await away();
    await server.restart();
    // It forgets whoever lives by beats; providers find out by their next one.
    for (const port of standing) await site.register(port);
  });
  return {
    ...site,
    async register(port) {
      await site.register(port);
      standing.add(port);
    },
    async deregister(port) {
      standing.delete(port);
      await site.deregister(port);
    },
  };
}

/** `address`: `host:port` of its HTTP for providers and the checker; `via`: keys by which the sidecar finds it. */
export function nacosAt(id: string, address: string, via: string, crash: Site['crash']): Site {
  const name = SERVICE.slice(SERVICE.indexOf('/') + 1);
  const service = { namespaceId: 'public', groupName: 'DEFAULT_GROUP', serviceName: `DEFAULT_GROUP@@${name}` };
  const call = async (method: string, path: string, params: Readonly<Record<string, string>>): Promise<string> => {
    const answer = await fetch(`http://${address}/nacos/v1/ns${path}?${new URLSearchParams(params)}`, { method });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`nacos ${method} ${path}: ${answer.status} ${text}`);
    return text;
  };
  const at = (port: number) => ({ ...service, ip: '127.0.0.1', port: String(port), clusterName: 'DEFAULT', ephemeral: 'true' });
  return {
    id,
    source: `{id: ${id}, kind: nacos, ${via}, allowLoopback: true, timeout: 2s}`,
    speaks: { weight: true, health: true, isolated: false, metadata: true },
    registers: true,
    async register(port) {
      const metadata = JSON.stringify({ team: 'a', ...PATIENT });
      await call('POST', '/instance', { ...at(port), weight: '1', enabled: 'true', healthy: 'true', metadata });
    },
    async deregister(port) {
      await call('DELETE', '/instance', at(port));
    },
    async read() {
      const { hosts } = JSON.parse(await call('GET', '/instance/list', { ...service, healthyOnly: 'false' }));
      const all: readonly NacosHost[] = Array.isArray(hosts) ? hosts : [];
      return all.map(({ ip, port, weight, healthy, metadata }) => {
        const own = Object.entries(metadata).filter(([key]) => !key.startsWith('preserved.'));
        return {
          key: `${ip}#${port}`,
          port,
          weight: 100 * weight,
          health: healthy ? 'healthy' : 'unhealthy',
          isolated: false,
          metadata: new Map(own),
          bytes: JSON.stringify([ip, port, weight, healthy, own.sort()]),
        };
      });
    },
    crash,
  };
}
