// One small upstream of the demo, a process of its own so that it can be killed. Started by demo-upstreams.ts only.
// Arguments: name, port (0: any), kind (steady | slow | flaky). Prints its port as the first line.
import { createServer } from 'node:http';

const [name = 'x', portText = '0', kind = 'steady'] = process.argv.slice(2);
let served = 0;

const server = createServer((request, response) => {
  if (request.url === '/healthz') {
    response.end('ok\n');
    return;
  }
  served++;
  const fails = kind === 'flaky' && served % 3 === 0;
  const answer = (): void => {
    response.writeHead(fails ? 503 : 200, { 'content-type': 'application/json' });
    response.end(`${JSON.stringify({ upstream: name, pid: process.pid, path: request.url, fails })}\n`);
  };
  if (kind === 'slow') setTimeout(answer, 300);
  else answer();
});
server.keepAliveTimeout = 5_000;
server.listen(Number(portText), '127.0.0.1', () => {
  const address = server.address();
  if (address !== null && typeof address === 'object') console.log(address.port);
});
// Ctrl-C reaches the whole process group; the demo ends its upstreams itself, after the drain.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => {});
process.on('disconnect', () => process.exit(0));
