// A TLS server in front of a plain fake, whose certificate can be made to have expired, and renewed. Certificates come from openssl, so
// that time is right for both sides and no clock is touched. Called by the A11 test.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { createServer } from 'node:tls';
import type { FaultBench } from './bench.ts';
import { consulSource } from './consul-registry.ts';

export interface ExpiringTls {
  readonly source: (id: string) => string;
  /** New connections get a certificate that ended yesterday; open ones are reset. */
  expire(): void;
  renew(): void;
}

/** `openssl ca` takes both ends of a validity, in every version that is around. */
const CA_CONFIG = `[ca]
default_ca = own
[own]
database = index.txt
serial = serial
new_certs_dir = .
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
`;

function stamp(daysFromNow: number): string {
  const at = new Date(Date.now() + daysFromNow * 86_400_000);
  return `${at.toISOString().replaceAll(/[-:T]/g, '').slice(2, 14)}Z`;
}

/** Words when there is no openssl. */
export async function expiringTls(bench: FaultBench, origin: string): Promise<ExpiringTls | string> {
  const cwd = bench.path('tls');
  mkdirSync(cwd);
  const openssl = (...args: string[]): void => {
    const { status, stderr } = spawnSync('openssl', args, { cwd, encoding: 'utf8' });
    if (status !== 0) throw new Error(`openssl ${args[0]}: ${stderr}`);
  };
  if (spawnSync('openssl', ['version'], { stdio: 'ignore' }).status !== 0) return 'there is no openssl';
  writeFileSync(`${cwd}/ca.cnf`, CA_CONFIG);
  writeFileSync(`${cwd}/index.txt`, '');
  writeFileSync(`${cwd}/serial`, '01\n');
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  openssl('req', '-x509', ...key, '-days', '2', '-subj', '/CN=ca', '-keyout', 'ca.key', '-out', 'ca.pem');
  openssl(
    'req',
    ...key,
    '-subj',
    '/CN=node',
    '-addext',
    'subjectAltName=IP:127.0.0.1',
    '-keyout',
    'node.key',
    '-out',
    'node.csr',
  );
  const sign = (out: string, from: number, to: number): void =>
    openssl(
      ...[
        'ca',
        '-batch',
        '-config',
        'ca.cnf',
        '-cert',
        'ca.pem',
        '-keyfile',
        'ca.key',
        '-in',
        'node.csr',
        '-out',
        out,
        '-notext',
      ],
      ...['-startdate', stamp(from), '-enddate', stamp(to)],
    );
  sign('good.pem', -1, 2);
  sign('expired.pem', -3, -1);
  const pair = (cert: string) => ({ cert: readFileSync(`${cwd}/${cert}`), key: readFileSync(`${cwd}/node.key`) });

  const target = new URL(origin);
  const sockets = new Set<Socket>();
  const server = createServer(pair('good.pem'), (socket) => {
    const behind = connect(Number(target.port), target.hostname);
    for (const [one, other] of [
      [socket, behind],
      [behind, socket],
    ] as const) {
      sockets.add(one);
      one.on('error', () => {});
      one.once('close', () => {
        sockets.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
  });
  server.on('tlsClientError', () => {});
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const cut = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  bench.defer(() => {
    cut();
    server.close();
  });
  const address = server.address();
  const port = address !== null && typeof address === 'object' ? address.port : 0;
  return {
    source: (id) => consulSource(`https://127.0.0.1:${port}`, id, `, tls: {ca: ${cwd}/ca.pem}`),
    expire() {
      server.setSecureContext(pair('expired.pem'));
      cut();
    },
    renew() {
      server.setSecureContext(pair('good.pem'));
    },
  };
}
