// The rows of etcd in the table: 3.6 as a Go module of ours, 3.4 as the system's package.
import { builtBinary, isExecutable } from './cache.ts';
import { startEtcd } from './start.ts';
import type { RegistryRow } from './table.ts';

export const ETCD_36 = '3.6.16';
const ETCD_34_PATHS = ['/usr/bin/etcd', '/usr/local/bin/etcd'];

export type EtcdVersion = '3.4' | '3.6';

/** The binary of a version, or null and the reason. `build`: build what is missing. */
export async function etcdBinary(version: EtcdVersion, build: boolean): Promise<{ path: string | null; how: string }> {
  if (version === '3.6') return builtBinary('etcd', ETCD_36, build);
  for (const path of ETCD_34_PATHS) if (await isExecutable(path)) return { path, how: path };
  return { path: null, how: 'no etcd 3.4 on this machine (Debian package etcd-server)' };
}

function row(version: EtcdVersion, name: string): RegistryRow {
  return {
    name,
    async find(build) {
      const address = process.env['WEIR_TEST_ETCD'];
      if (address !== undefined) return { available: true, how: `WEIR_TEST_ETCD=${address}` };
      const { path, how } = await etcdBinary(version, build);
      return { available: path !== null, how };
    },
    async up() {
      const server = await startEtcd({ version });
      return {
        endpoint: server.endpoint,
        settings: [
          'sources:',
          `  - {id: etcd-${version.replace('.', '')}, kind: etcd, endpoints: ["http://${server.endpoint}"], layout: grpc, prefix: "/services/", allowLoopback: true}`,
        ],
        variables: { ETCD: server.endpoint, ETCD_PID: server.pid },
        stop: () => server.stop(),
      };
    },
  };
}

export const etcd36 = row('3.6', 'etcd');
export const etcd34 = row('3.4', 'etcd-3.4');
