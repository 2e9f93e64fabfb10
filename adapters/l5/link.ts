// Owns one TCP connection to one L5 server: questions out, answers in their order, a deadline for each. Called by servers.ts (open) and
// questions.ts (ask). Must never retry or choose a server: the first oddity ends the link, since a late answer would be taken for the next.
import { connect, type Socket } from 'node:net';
import { raceAbort } from '../../src/kernel/cancel.ts';
import type { Clock, Timer } from '../../src/kernel/clock.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import type { ServerAddress } from './config.ts';
import {
  closed,
  connectError,
  connectTimeout,
  foreignProtocol,
  frameError,
  malformed,
  noOwnIpv4,
  refusedQuestion,
  silence,
} from './errors.ts';
import { FrameFault, FrameReader, frame } from './frame.ts';
import { type Answer, decodeAnswer, RESULT_OK } from './messages.ts';
import { ipNumber } from './sid.ts';
import { WireFault } from './wire.ts';

export interface LinkOptions {
  readonly clock: Clock;
  /** For the connection, and for each answer, ms. */
  readonly connectMs: number;
  readonly answerMs: number;
  readonly maxAnswer: number;
  /** What we say we are (int32); null: the local address of the socket. */
  readonly agentIp: number | null;
}

/** A question: `encode` gets the number of the question and our address. */
export interface Question {
  readonly ack: number;
  encode(seqno: number, ip: number): Buffer;
}

interface Pending {
  readonly seqno: number;
  readonly ack: number;
  readonly timer: Timer;
  resolve(answer: Answer): void;
  reject(thrown: unknown): void;
}

const MAX_SEQNO = 2_147_483_647;

/** Connects. Rejects with SourceError, or with the signal's reason. */
export function openLink(server: ServerAddress, options: LinkOptions, signal: AbortSignal): Promise<Link> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const socket = connect({ host: server.host, port: server.port, noDelay: true, keepAlive: true });
    const settle = (end: () => void): void => {
      timer.cancel();
      signal.removeEventListener('abort', onAbort);
      socket.off('connect', onConnect);
      end();
    };
    const fail = (thrown: unknown): void =>
      settle(() => {
        socket.destroy();
        reject(thrown);
      });
    const onAbort = (): void => fail(signal.reason);
    const onConnect = (): void =>
      settle(() => {
        socket.off('error', onError);
        const agentIp = options.agentIp ?? ipNumber(socket.localAddress ?? '');
        if (agentIp === null) return fail(noOwnIpv4(server.text));
        resolve(new Link(server, socket, agentIp, options));
      });
    const onError = (error: Error): void => fail(connectError(server.text, codeOf(error)));
    const timer = options.clock.setTimer(options.connectMs, () => fail(connectTimeout(server.text, options.connectMs)));
    socket.once('connect', onConnect);
    socket.once('error', onError);
    // What comes after the end is nobody's business, and without a listener it would end the process.
    socket.on('error', () => {});
    signal.addEventListener('abort', onAbort, { once: true });
  });
}

/** See the head of the file. Made by `openLink`. */
export class Link {
  readonly server: ServerAddress;
  readonly agentIp: number;
  /** Monotonic ms at which it opened. */
  readonly openedAt: number;
  /** Told once when the link ends without `close`. */
  onLost: (error: SourceError) => void = () => {};
  readonly #socket: Socket;
  readonly #options: LinkOptions;
  readonly #reader: FrameReader;
  readonly #pending: Pending[] = [];
  #seqno = 0;
  #answered = false;
  #over: SourceError | null = null;

  constructor(server: ServerAddress, socket: Socket, agentIp: number, options: LinkOptions) {
    this.server = server;
    this.agentIp = agentIp;
    this.openedAt = options.clock.now();
    this.#socket = socket;
    this.#options = options;
    this.#reader = new FrameReader(options.maxAnswer);
    socket.on('data', (chunk) => this.#onData(chunk));
    socket.on('error', () => this.#onClosed());
    socket.on('end', () => this.#onClosed());
    socket.on('close', () => this.#onClosed());
  }

  /** Why it ended, or null while it lives. */
  get over(): SourceError | null {
    return this.#over;
  }

  /** Rejects with SourceError (and then the link is over), or with the signal's reason: the answer is waited for all the same. */
  ask(question: Question, signal: AbortSignal): Promise<Answer> {
    const answer = new Promise<Answer>((resolve, reject) => {
      if (this.#over !== null) return reject(this.#over);
      this.#seqno = this.#seqno >= MAX_SEQNO ? 1 : this.#seqno + 1;
      const seqno = this.#seqno;
      const { clock, answerMs } = this.#options;
      const timer = clock.setTimer(answerMs, () => this.#end(silence(this.server.text, answerMs, this.#answered)));
      this.#pending.push({ seqno, ack: question.ack, timer, resolve, reject });
      this.#socket.write(frame(question.encode(seqno, this.agentIp)));
    });
    return raceAbort(answer, signal);
  }

  /** Ends it; questions under way are rejected. */
  close(): void {
    this.onLost = () => {};
    this.#end(new SourceError('lost', `L5 server ${this.server.text}: the connection was given up`));
  }

  #onData(chunk: Buffer): void {
    if (this.#over !== null) return;
    try {
      if (!this.#answered) this.#lookForForeign(chunk);
      this.#reader.push(chunk, (body) => this.#onBody(body));
    } catch (thrown) {
      this.#end(this.#failureOf(thrown));
    }
  }

  /** The first bytes of a server tell what it is. Throws SourceError. */
  #lookForForeign(chunk: Buffer): void {
    const first = Buffer.concat([this.#reader.peek(16), chunk.subarray(0, 16)]);
    const foreign = foreignProtocol(first);
    if (foreign !== null) throw malformed(this.server.text, foreign);
  }

  #onBody(body: Buffer): void {
    if (this.#over !== null) return;
    const head = this.#pending[0];
    if (head === undefined) throw malformed(this.server.text, 'an answer that nobody asked for');
    const answer = decodeAnswer(body);
    if (answer.cmd !== head.ack) throw malformed(this.server.text, `an answer of command ${answer.cmd} instead of ${head.ack}`);
    if (answer.seqno !== head.seqno) {
      throw malformed(this.server.text, `an answer to question ${answer.seqno} instead of ${head.seqno}`);
    }
    if (answer.result !== RESULT_OK) throw refusedQuestion(this.server.text, answer.result, answer.error);
    this.#answered = true;
    this.#pending.shift();
    head.timer.cancel();
    head.resolve(answer);
  }

  #failureOf(thrown: unknown): SourceError {
    if (thrown instanceof SourceError) return thrown;
    if (thrown instanceof FrameFault) return frameError(this.server.text, thrown);
    if (thrown instanceof WireFault) return malformed(this.server.text, `an answer that is no message: ${thrown.message}`);
    throw thrown;
  }

  #onClosed(): void {
    const how = { asked: this.#pending.length > 0, answered: this.#answered, inside: this.#reader.waiting };
    this.#end(closed(this.server.text, how));
  }

  #end(error: SourceError): void {
    if (this.#over !== null) return;
    this.#over = error;
    this.#socket.destroy();
    for (const { timer, reject } of this.#pending.splice(0)) {
      timer.cancel();
      reject(error);
    }
    this.onLost(error);
  }
}

function codeOf(error: Error): string {
  return 'code' in error && typeof error.code === 'string' ? error.code : 'no reason given';
}
