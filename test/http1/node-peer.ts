// The other opinion on requests: node:http in its strict default mode, over a duplex without a kernel.
import http from 'node:http';
import { Duplex } from 'node:stream';

/** One request as node:http saw it. */
export interface NodeRequest {
  readonly start: string;
  readonly fields: readonly (readonly [string, string])[];
  body: string;
  complete: boolean;
  trailers: readonly (readonly [string, string])[];
}

function pairs(raw: readonly string[]): (readonly [string, string])[] {
  const out: (readonly [string, string])[] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) out.push([raw[i] ?? '', raw[i + 1] ?? '']);
  return out;
}

class Wire extends Duplex {
  override _read(): void {}
  override _write(_chunk: unknown, _encoding: string, done: () => void): void {
    done();
  }
  setTimeout(): this {
    return this;
  }
  setNoDelay(): this {
    return this;
  }
  setKeepAlive(): this {
    return this;
  }
}

const seenBy = new WeakMap<object, NodeRequest[]>();

function onRequest(request: http.IncomingMessage, response: http.ServerResponse): void {
  const seen: NodeRequest = {
    start: `${request.method} ${request.url} ${request.httpVersion}`,
    fields: pairs(request.rawHeaders),
    body: '',
    complete: false,
    trailers: [],
  };
  seenBy.get(request.socket)?.push(seen);
  request.on('data', (chunk: Buffer) => {
    seen.body += chunk.toString('latin1');
  });
  request.on('end', () => {
    seen.complete = request.complete;
    seen.trailers = pairs(request.rawTrailers);
    response.end('ok');
  });
  request.on('error', () => {});
}

// Caps are not the grammar: ours are tested by themselves.
const server = http.createServer({ maxHeaderSize: 1_048_576 }, onRequest);
server.maxHeadersCount = 0;
server.on('checkContinue', onRequest);
server.on('checkExpectation', onRequest);
// The socket is left open, so that requests before the fault are still told to their end.
server.on('clientError', () => {});

/** What node:http makes of these bytes. */
export async function nodeRequests(bytes: Buffer): Promise<readonly NodeRequest[]> {
  const wire = new Wire();
  const seen: NodeRequest[] = [];
  seenBy.set(wire, seen);
  wire.on('error', () => {});
  server.emit('connection', wire);
  wire.push(bytes);
  // Bodies and ends of pipelined requests come over several turns; stop when nothing more happens.
  for (let quiet = 0, before = -1; quiet < 3; ) {
    await new Promise<void>((resolve) => setImmediate(resolve));
    const now = seen.length * 1_000_000 + seen.filter((one) => one.complete).length * 1_000 + (wire.destroyed ? 1 : 0);
    quiet = now === before ? quiet + 1 : 0;
    before = now;
  }
  wire.destroy();
  return seen;
}
