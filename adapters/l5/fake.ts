// Owns a fake L5 server on loopback for tests: the central protocol as a Polaris 1.18.1 was seen to speak it, with switches for faults.
// Called by tests only. A fake that the real server would contradict is a defect; the same suite runs against both.
import { createServer, type Server, type Socket } from 'node:net';
import type { Clock } from '../../src/kernel/clock.ts';
import { type Random, seededRandom } from '../../src/kernel/random.ts';
import { FakeL5Store } from './fake-store.ts';
import { decodeRequest, encodeAnswer, type FakeAnswer, type FakeRequest } from './fake-wire.ts';
import { frame } from './frame.ts';
import { WireFault } from './wire.ts';

const MAX_REQUEST = 2_097_152;

/** What goes wrong, until it is set back. */
export interface FakeFaults {
  /** Instead of an answer: close, close in the middle of it, nothing at all, or die as a Polaris without l5Open does. */
  instead: 'answer' | 'close' | 'half' | 'silence' | 'death';
  /** One byte per write. */
  bytewise: boolean;
  /** Every answer waits for the clock, ms. */
  delayMs: number;
  /** This many answers go out in one write. */
  together: number;
  seqnoOff: number;
  result: number;
  error: string | null;
  /** Written into the head instead of the length. */
  length: number | null;
  bigEndian: boolean;
  /** Sent instead of the answer's body. */
  body: Buffer | null;
}

const NO_FAULTS: FakeFaults = {
  instead: 'answer',
  bytewise: false,
  delayMs: 0,
  together: 1,
  seqnoOff: 0,
  result: 100,
  error: null,
  length: null,
  bigEndian: false,
  body: null,
};

export class FakeL5 {
  readonly store = new FakeL5Store();
  readonly faults: FakeFaults = { ...NO_FAULTS };
  readonly requests: FakeRequest[] = [];
  /** Connections taken since the start. */
  accepted = 0;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #sockets = new Set<Socket>();
  #server: Server | null = null;
  #port = 0;
  #host = '127.0.0.1';

  constructor(clock: Clock, seed: number) {
    this.#clock = clock;
    this.#random = seededRandom(seed);
  }

  /** `host:port`; the same over `stop` and `start`. */
  get endpoint(): string {
    return `${this.#host}:${this.#port}`;
  }

  get port(): number {
    return this.#port;
  }

  get open(): number {
    return this.#sockets.size;
  }

  async start(host = this.#host, port = this.#port): Promise<void> {
    const server = createServer((socket) => this.#serve(socket));
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, host, resolve);
    });
    const address = server.address();
    if (address !== null && typeof address === 'object') this.#port = address.port;
    this.#host = host;
    this.#server = server;
  }

  /** As a killed process: open connections go, new ones are refused. */
  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    const gone = server === null ? null : new Promise<void>((resolve) => server.close(() => resolve()));
    this.cut();
    await gone;
  }

  /** Every connection is closed; new ones are taken. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  heal(): void {
    Object.assign(this.faults, NO_FAULTS);
  }

  #serve(socket: Socket): void {
    this.accepted++;
    this.#sockets.add(socket);
    socket.setNoDelay(true);
    socket.on('error', () => {});
    socket.on('close', () => this.#sockets.delete(socket));
    let bytes: Buffer = Buffer.alloc(0);
    let turn: Promise<void> = Promise.resolve();
    const waiting: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk]);
      while (bytes.length >= 6) {
        const length = bytes.readUInt32LE(2);
        if (length <= 6 || length > MAX_REQUEST) return void socket.destroy();
        if (bytes.length < length) return;
        const body = Buffer.from(bytes.subarray(6, length));
        bytes = bytes.subarray(length);
        turn = turn.then(() => this.#onRequest(socket, body, waiting));
      }
    });
  }

  async #onRequest(socket: Socket, body: Buffer, waiting: Buffer[]): Promise<void> {
    if (socket.destroyed) return;
    const request = decoded(body);
    const answer = request === null ? null : this.store.answer(request, this.#random);
    if (request === null || answer === null) return void socket.destroy();
    this.requests.push(request);
    const { instead, delayMs, together } = this.faults;
    if (instead === 'silence') return;
    if (instead === 'death' && request.cmd === 100) return this.stop();
    if (instead === 'close') return void socket.destroy();
    if (delayMs > 0) await this.#clock.sleep(delayMs);
    waiting.push(this.#framed(answer));
    if (waiting.length < together) return;
    const out = Buffer.concat(waiting.splice(0));
    if (instead === 'half') socket.end(out.subarray(0, out.length >> 1));
    else if (this.faults.bytewise) for (const byte of out) socket.write(Buffer.from([byte]));
    else socket.write(out);
  }

  #framed(answer: FakeAnswer): Buffer {
    const { seqnoOff, result, error, length, bigEndian, body } = this.faults;
    const said = { ...answer, seqno: answer.seqno + seqnoOff, result, ...(error !== null && { error }) };
    const out = frame(body ?? encodeAnswer(said));
    if (bigEndian) {
      out.writeUInt16BE(1, 0);
      out.writeUInt32BE(out.length, 2);
    }
    if (length !== null) out.writeUInt32LE(length, 2);
    return out;
  }
}

function decoded(body: Buffer): FakeRequest | null {
  try {
    return decodeRequest(body);
  } catch (thrown) {
    if (thrown instanceof WireFault) return null;
    throw thrown;
  }
}

/** A fake that listens on a free loopback port. Delays wait for `clock`. */
export async function startFakeL5(clock: Clock, seed = 1): Promise<FakeL5> {
  const fake = new FakeL5(clock, seed);
  await fake.start();
  return fake;
}
