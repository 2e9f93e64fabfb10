// Starts nginx or HAProxy as a plain proxy in front of a local port, for second opinions. Null where it is not installed.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from '../support/eventually.ts';
import { listen } from './hop.ts';

/** A running peer. */
export interface Peer {
  readonly name: string;
  readonly port: number;
  close(): Promise<void>;
}

async function freePort(): Promise<number> {
  const server = net.createServer();
  const port = await listen(server);
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return port;
}

function installed(command: string): boolean {
  return spawnSync(command, ['-v'], { stdio: 'ignore' }).error === undefined;
}

async function start(
  name: string,
  config: (dir: string, port: number) => string,
  args: (file: string) => string[],
): Promise<Peer | null> {
  if (!installed(name)) return null;
  const dir = await mkdtemp(join(tmpdir(), `weir-${name}-`));
  const port = await freePort();
  const file = join(dir, 'conf');
  await writeFile(file, config(dir, port));
  const child: ChildProcess = spawn(name, args(file), { stdio: 'ignore' });
  await eventually(async () => {
    await new Promise<void>((resolve, reject) => {
      const socket = net.connect({ host: '127.0.0.1', port });
      socket.once('connect', () => {
        socket.destroy();
        resolve();
      });
      socket.once('error', reject);
    });
  });
  return {
    name,
    port,
    async close() {
      const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
      child.kill('SIGTERM');
      await gone;
      await rm(dir, { recursive: true, force: true });
    },
  };
}

/** nginx that proxies to the port by HTTP/1.1 and passes fields on as they come. */
export async function startNginx(upstream: number): Promise<Peer | null> {
  const temp = (dir: string): string =>
    ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${join(dir, kind)};`).join(' ');
  return await start(
    'nginx',
    (dir, port) => `daemon off; master_process off; pid ${join(dir, 'pid')}; error_log ${join(dir, 'error')};
events { worker_connections 256; }
http { access_log off; ${temp(dir)} underscores_in_headers on; ignore_invalid_headers off; merge_slashes off;
  server { listen 127.0.0.1:${port}; client_max_body_size 0; large_client_header_buffers 4 32k;
    location / { proxy_pass http://127.0.0.1:${upstream}; proxy_http_version 1.1; proxy_set_header Host $http_host;
      proxy_set_header Connection ""; proxy_buffering off; } } }
`,
    (file) => ['-c', file],
  );
}

/** HAProxy that proxies to the port. */
export async function startHaproxy(upstream: number): Promise<Peer | null> {
  return await start(
    'haproxy',
    (_dir, port) => `global
  tune.bufsize 32768
defaults
  mode http
  timeout connect 2s
  timeout client 10s
  timeout server 10s
frontend f
  bind 127.0.0.1:${port}
  default_backend b
backend b
  server s 127.0.0.1:${upstream}
`,
    (file) => ['-db', '-f', file],
  );
}
