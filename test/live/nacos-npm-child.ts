// A process of its own with the npm client `nacos` in it, which none of us wrote; told what to do over IPC by nacos-npm.ts.
// Arguments: host:port of the server, how many times faster this process' timers run, a user, a password.
// Its UDP socket (for pushes, of which no server here knows) is bound to loopback: the client itself takes every interface.
import { Socket as UdpSocket } from 'node:dgram';
import { createRequire } from 'node:module';

const [, , server = '', speedText = '1', username, password] = process.argv;
const speed = Number(speedText);

const bind: unknown = Reflect.get(UdpSocket.prototype, 'bind');
Reflect.set(UdpSocket.prototype, 'bind', function onLoopback(this: UdpSocket, options: object) {
  return typeof bind === 'function' ? bind.call(this, { ...options, address: '127.0.0.1' }) : undefined;
});
const timer = globalThis.setTimeout;
Reflect.set(globalThis, 'setTimeout', (fn: () => void, ms = 0, ...args: []) => timer(fn, ms / speed, ...args));

const require = createRequire(import.meta.url);
const { NacosNamingClient } = require('nacos');
const urllib = createRequire(require.resolve('nacos'))('urllib');

/** One line a time to the parent; `null` where it is gone. */
function tell(message: object): void {
  process.send?.(message);
}

const httpclient = {
  /** The deadlines of its HTTP client run by the real clock. */
  async request(url: string, options: object): Promise<unknown> {
    const answer = await urllib.request(url, { ...options, timeout: 5_000 * speed });
    if (url.includes('/instance/beat')) tell({ event: 'beat', status: answer.status });
    return answer;
  },
};
const log = (...words: unknown[]): void => tell({ event: 'log', text: words.map(String).join(' ').slice(0, 2_000) });
const logger = { info() {}, debug() {}, log() {}, warn: log, error: log };
const client = new NacosNamingClient({ logger, serverList: server, namespace: 'public', username, password, httpclient });
client.on('error', log);
client._hostReactor.on('error', log);

async function run(call: string, args: unknown[]): Promise<unknown> {
  if (call !== 'subscribe') return client[call](...args);
  const [info] = args;
  client.subscribe(info, (hosts: unknown) => tell({ event: 'hosts', info, hosts }));
  return null;
}

process.on('message', ({ id, call, args }: { id: number; call: string; args: unknown[] }) => {
  run(call, args).then(
    (result) => tell({ id, result }),
    (error: unknown) => tell({ id, error: String(error) }),
  );
});
process.on('disconnect', () => process.exit());
await client.ready();
tell({ event: 'ready' });
