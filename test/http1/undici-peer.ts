// The other opinion on responses: an undici client over a duplex without a kernel.
import { Duplex } from 'node:stream';
import { Client, type Dispatcher } from 'undici';

/** One response as undici saw it. */
export interface UndiciResponse {
  readonly status: number;
  readonly fields: readonly (readonly [string, string])[];
  readonly body: string;
  readonly trailers: readonly (readonly [string, string])[];
  /** Null when the response was accepted whole. */
  readonly error: string | null;
  /** The socket was open when the response had ended and the upstream had not closed. */
  readonly alive: boolean;
}

class Wire extends Duplex {
  requested = false;
  override _read(): void {}
  override _write(_chunk: unknown, _encoding: string, done: () => void): void {
    this.requested = true;
    this.emit('requested');
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
  ref(): this {
    return this;
  }
  unref(): this {
    return this;
  }
}

// undici leaves white space behind a value, which RFC 9112 §5 does not count to it.
function pairs(raw: unknown): (readonly [string, string])[] {
  const text = Array.isArray(raw) ? raw.map((part) => (Buffer.isBuffer(part) ? part.toString('latin1') : String(part))) : [];
  const out: (readonly [string, string])[] = [];
  for (let i = 0; i + 1 < text.length; i += 2) out.push([text[i] ?? '', (text[i + 1] ?? '').replace(/[ \t]+$/, '')]);
  return out;
}

/** What undici makes of these bytes as the answer to one request; the upstream closes after them. */
export async function undiciResponse(bytes: Buffer, method: string): Promise<UndiciResponse> {
  const wire = new Wire({ allowHalfOpen: true });
  wire.on('error', () => {});
  const client = new Client('http://h', {
    connect: (_options, done) => queueMicrotask(() => done(null, wire as never)),
    bodyTimeout: 0,
    headersTimeout: 0,
    maxHeaderSize: 1_048_576,
  });
  let status = 0;
  let fields: (readonly [string, string])[] = [];
  let trailers: (readonly [string, string])[] = [];
  let body = '';
  let error: string | null = 'no end';
  let ended = false;
  const handler: Dispatcher.DispatchHandler = {
    onRequestStart() {},
    onResponseStart(controller, code) {
      if (code < 200) return;
      status = code;
      fields = pairs(controller.rawHeaders);
    },
    onResponseData(_controller, chunk) {
      body += chunk.toString('latin1');
    },
    onResponseEnd(controller) {
      error = null;
      ended = true;
      trailers = pairs(controller.rawTrailers);
    },
    onResponseError(_controller, thrown) {
      error = thrown.message;
      ended = true;
    },
  };
  client.dispatch({ path: '/', method: method as Dispatcher.HttpMethod }, handler);
  await turns(100, () => wire.requested);
  wire.push(bytes);
  await turns(6, () => ended);
  const alive = !wire.destroyed && ended;
  wire.push(null);
  await turns(6, () => ended);
  client.destroy().catch(() => {});
  wire.destroy();
  return { status, fields, body, trailers, error, alive };
}

async function turns(most: number, until: () => boolean): Promise<void> {
  for (let n = 0; n < most && !until(); n++) await new Promise<void>((resolve) => setImmediate(resolve));
}
