// Second opinions from nginx and HAProxy: what our writer makes they read back the same, both ways, and what both we and they
// accept of the corpus and of mutants means the same to both.
import assert from 'node:assert/strict';
import http from 'node:http';
import { type TestContext, test } from 'node:test';
import { seededRandom } from '../../src/kernel/random.ts';
import { REQUESTS } from './corpus.ts';
import { exchange, listen, startHop } from './hop.ts';
import { mutant, mutations } from './mutate.ts';
import { type Peer, startHaproxy, startNginx } from './peers.ts';
import { runRequests } from './record.ts';

const PEERS: readonly (readonly [string, (upstream: number) => Promise<Peer | null>])[] = [
  ['nginx', startNginx],
  ['haproxy', startHaproxy],
];

/** Tells what it saw; the last byte of its answer is `~`. */
function echo(request: http.IncomingMessage, response: http.ServerResponse): void {
  let body = '';
  request.setEncoding('latin1');
  request.on('data', (chunk) => {
    body += chunk;
  });
  request.on('end', () => {
    const fields = Object.entries(request.headers).filter(([name]) => name.startsWith('x-'));
    const seen = { method: request.method, target: request.url, host: request.headers.host, fields, body };
    const text = Buffer.from(`${JSON.stringify(seen)}~`, 'latin1');
    response.setHeader('x-echo', 'a b\t\xe9');
    if (request.url?.startsWith('/chunked')) response.write(text);
    response.end(request.url?.startsWith('/chunked') ? undefined : text);
  });
}

async function withEcho(run: (port: number) => Promise<void>): Promise<void> {
  const server = http.createServer({ insecureHTTPParser: false, maxHeaderSize: 65_536 }, echo);
  const port = await listen(server);
  try {
    await run(port);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

interface Echoed {
  method: string;
  target: string;
  host: string;
  fields: [string, string][];
  body: string;
}

/** What the echo saw of the (only) request, or null when it was not reached. */
function echoed(text: string): Echoed | null {
  if (!/^HTTP\/1.1 200 /.test(text)) return null;
  const json = /\{"method".*\}(?=~)/s.exec(text)?.[0];
  return json === undefined ? null : JSON.parse(json);
}

/** Runs with the peer in front of an echo, or skips. */
async function withPeer(
  t: TestContext,
  name: string,
  start: (upstream: number) => Promise<Peer | null>,
  run: (peer: Peer) => Promise<void>,
) {
  await withEcho(async (echoPort) => {
    const peer = await start(echoPort);
    if (peer === null) {
      t.skip(`${name} is not installed`);
      return;
    }
    try {
      await run(peer);
    } finally {
      await peer.close();
    }
  });
}

for (const [name, start] of PEERS) {
  test(`round trip through ${name}: requests and responses that we write are read back the same`, async (t) => {
    await withPeer(t, name, start, async (peer) => {
      const hop = await startHop(peer.port);
      t.after(() => hop.close());
      for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']) {
        for (const body of ['', 'Content-Length: 5', 'Transfer-Encoding: chunked']) {
          for (const target of ['/a//b?c=%2F&d', '/chunked/x']) {
            const payload = body === '' ? '' : body.startsWith('C') ? 'hel\r\n' : '3;a=b\r\nhel\r\n2\r\n\r\n\r\n0\r\n\r\n';
            const wire = `${method} ${target} HTTP/1.1\r\nHost: h.example:81\r\nX-One:  a b\r\nX-Two: \xe9\r\n${body === '' ? '' : `${body}\r\n`}\r\n${payload}`;
            const text = await exchange(hop.port, wire, /~(\r\n0\r\n\r\n)?$/);
            const seen = echoed(text);
            const expected: Partial<Echoed> = { method, target, body: body === '' ? '' : 'hel\r\n', host: 'h.example:81' };
            assert.deepEqual({ method: seen?.method, target: seen?.target, body: seen?.body, host: seen?.host }, expected, text);
            const own = Object.fromEntries(seen?.fields ?? []);
            assert.deepEqual([own['x-one'], own['x-two']], ['a b', '\xe9']);
            assert.match(text, /x-echo: a b\t\xe9\r\n/i);
          }
        }
      }
      assert.ok(hop.pool.idle <= 1, 'one socket served them all');
    });
  });

  test(`what we and ${name} both accept means the same to both`, async (t) => {
    await withPeer(t, name, start, async (peer) => {
      const random = seededRandom(7);
      const corpus = REQUESTS.filter(({ text }) => text.length < 2_000).map(({ text }) => text);
      const inputs = [...corpus];
      for (let n = 0; n < Math.min(mutations(2_000), 20_000); n++) inputs.push(mutant(corpus, random));
      let compared = 0;
      for (const text of inputs) {
        const run = await runRequests([Buffer.from(text, 'latin1')]);
        const [mine, second] = run.requests;
        // One whole request and nothing behind it: the answer then belongs to it.
        if (mine === undefined || mine.trailers === null || second !== undefined || run.refused !== 0) continue;
        if (/^HEAD|__proto__|expect/i.test(text)) continue;
        const theirs = echoed(await exchange(peer.port, text, /~(\r\n0\r\n\r\n)?$|^HTTP\/1.1 [45]/));
        if (theirs === null) continue;
        const [method, target] = mine.start.split(' ');
        const wanted = /^http:/i.test(target ?? '') ? theirs.target : target;
        assert.deepEqual([theirs.method, theirs.target, theirs.body], [method, wanted, mine.body], JSON.stringify(text));
        compared++;
      }
      t.diagnostic(`${compared} requests compared`);
      assert.ok(compared > 60);
    });
  });
}
