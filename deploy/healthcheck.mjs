// Exit 0 when the sidecar answers the probe with 200, else 1: for HEALTHCHECK and exec probes, where no other HTTP client is at hand.
// node healthcheck.mjs [/livez | /readyz], default /livez. WEIR_API as for the command line: http://host:port or unix:/path.
import { request } from 'node:http';

const path = process.argv[2] ?? '/livez';
const api = process.env.WEIR_API ?? 'http://127.0.0.1:7900';
const where = api.startsWith('unix:') ? { socketPath: api.slice('unix:'.length), host: 'localhost' } : new URL(api);
const ask = request({ socketPath: where.socketPath, host: where.hostname ?? where.host, port: where.port, path, timeout: 2_000 });

function end(code, words) {
  console.log(words);
  process.exit(code);
}

ask.on('response', ({ statusCode }) => end(statusCode === 200 ? 0 : 1, `${path} ${statusCode}`));
ask.on('timeout', () => end(1, `${path}: no answer in 2 s`));
ask.on('error', ({ message }) => end(1, `${path}: ${message}`));
ask.end();
