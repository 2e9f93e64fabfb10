// Owns questions and answers over Discover streams: first in, first out, a window, the renewal of the stream, the answer timeout.
// Called by servers.ts; must never ask again by itself, and never match an answer by anything but its place (protocol notes, section 4).
import { Deadline, type TimerWheel } from '../../src/kernel/timer-wheel.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import type { RawStream } from './client.ts';
import { INVALID_TYPE, NO_CHANGE, type PolarisFailure, sourceError } from './errors.ts';
import { codec, type DiscoverResponse, TYPE_SERVICES, textOf } from './protocol.ts';
import type { Asker, Question, Result } from './question.ts';

/** Requests without an answer at one time; more gains nothing (section 4, Cadence). */
export const WINDOW = 64;
/** 1.18.1 keeps every request and answer in memory until the stream ends (section 2). */
export const REQUESTS_PER_STREAM = 10_000;

export interface StreamDeps {
  readonly server: string;
  readonly wheel: TimerWheel;
  /** Longest silence while an answer is due, ms. */
  readonly timeout: number;
  open(onMessage: (message: Buffer) => void, onEnd: (failure: PolarisFailure) => void): RawStream;
  /** Called once, however it ends. */
  onEnd(): void;
  /** Called once when the stream is lost, after everything open was settled; not after `close` or `drain`. */
  onLost(error: SourceError): void;
}

interface Asked {
  readonly question: Question;
  readonly settle: (result: Result) => void;
}

const SAME: Result = { kind: 'same' };
const { decodeResponse } = codec('Discover');

export class DiscoverStreams implements Asker {
  readonly server: string;
  readonly #deps: StreamDeps;
  readonly #silence: Deadline;
  /** In the order of their requests on the stream. */
  readonly #asked: Asked[] = [];
  /** Not sent yet; `#next` is its head, so that taking one costs nothing. */
  #waiting: Asked[] = [];
  #next = 0;
  #stream: RawStream | null = null;
  #sent = 0;
  #draining = false;
  #lost: SourceError | null = null;

  constructor(deps: StreamDeps) {
    this.server = deps.server;
    this.#deps = deps;
    this.#silence = new Deadline(() =>
      this.#lose(
        new SourceError('lost', `polaris ${deps.server}: no answer within ${deps.timeout} ms: the server or the way to it hangs`),
      ),
    );
  }

  ask(question: Question, settle: (result: Result) => void): void {
    if (this.#lost !== null) settle({ kind: 'failed', error: this.#lost });
    else {
      this.#waiting.push({ question, settle });
      this.#pump();
    }
  }

  drain(): void {
    this.#draining = true;
    this.#endIfDrained();
  }

  close(error: SourceError): void {
    this.#end(error);
  }

  #endIfDrained(): void {
    if (!this.#draining || this.#asked.length > 0 || this.#next < this.#waiting.length) return;
    this.#end(new SourceError('lost', `polaris ${this.server}: left for another server`));
  }

  #pump(): void {
    while (this.#lost === null && this.#next < this.#waiting.length && this.#asked.length < WINDOW) {
      if (this.#sent >= REQUESTS_PER_STREAM) {
        // The last answers first: a stream that is half-closed earlier may lose them.
        if (this.#asked.length > 0) return;
        this.#stream?.retire();
        this.#stream = null;
        this.#sent = 0;
      }
      const one = this.#waiting[this.#next++];
      if (one === undefined) return;
      if (this.#next > 256 && this.#next * 2 > this.#waiting.length) {
        this.#waiting = this.#waiting.slice(this.#next);
        this.#next = 0;
      }
      this.#stream ??= this.#open();
      if (this.#asked.length === 0) this.#deps.wheel.arm(this.#silence, this.#deps.timeout);
      this.#asked.push(one);
      this.#sent++;
      this.#stream.write(one.question.bytes);
    }
  }

  #open(): RawStream {
    const stream: RawStream = this.#deps.open(
      (message) => this.#onMessage(message),
      (failure) => this.#lose(sourceError(failure)),
    );
    return stream;
  }

  #onMessage(message: Buffer): void {
    const head = this.#asked.shift();
    if (head === undefined) {
      this.#lose(this.#broken('an answer that nobody asked for'));
      return;
    }
    const result = this.#judge(head.question, message);
    if (result !== null) {
      this.#settle(head.settle, result);
      return;
    }
    this.#asked.unshift(head);
    this.#lose(this.#broken(`${head.question.about}: an answer to something else: answers are out of step`));
  }

  /** What a message says to the question at the head of the row; null when it cannot be its answer. */
  #judge(question: Question, message: Buffer): Result | null {
    if (question.isSame(message)) return SAME;
    let answer: DiscoverResponse;
    try {
      answer = decodeResponse(message);
    } catch {
      // The frame is whole, so the place in the row is right: only this answer is lost.
      return { kind: 'failed', error: this.#broken(`${question.about}: an answer that cannot be decoded`) };
    }
    if (contradiction(question, answer) !== null) return null;
    if (answer.code?.value !== NO_CHANGE) return { kind: 'answer', answer };
    question.keepSame(message);
    return SAME;
  }

  #settle(settle: (result: Result) => void, result: Result): void {
    const { wheel, timeout } = this.#deps;
    if (this.#asked.length === 0) wheel.disarm(this.#silence);
    else wheel.arm(this.#silence, timeout);
    settle(result);
    this.#pump();
    this.#endIfDrained();
  }

  #broken(text: string): SourceError {
    return new SourceError('malformed', `polaris ${this.server}: ${text}`);
  }

  #lose(error: SourceError): void {
    if (this.#lost !== null) return;
    this.#end(error);
    this.#deps.onLost(error);
  }

  #end(error: SourceError): void {
    if (this.#lost !== null) return;
    this.#lost = error;
    this.#deps.wheel.disarm(this.#silence);
    this.#stream?.cancel();
    const open = [...this.#asked.splice(0), ...this.#waiting.slice(this.#next)];
    this.#waiting = [];
    this.#deps.onEnd();
    for (const { settle } of open) settle({ kind: 'failed', error });
  }
}

/** What of an answer cannot belong to the question, or null. Refusals may carry a code alone, 400004 always says ROUTING. */
export function contradiction(question: Question, answer: DiscoverResponse): string | null {
  const code = answer.code?.value ?? 0;
  if (code === INVALID_TYPE) return null;
  const codeOnly = answer.service === undefined && (answer.type ?? 0) === 0;
  if (codeOnly) return code === 200_000 || code === NO_CHANGE ? 'an answer without a service' : null;
  if ((answer.type ?? 0) !== question.type) return `an answer of type ${answer.type ?? 0} instead of ${question.type}`;
  if (answer.service === undefined) return null;
  const name = textOf(answer.service.name) ?? '';
  const namespace = textOf(answer.service.namespace) ?? '';
  if (question.type !== TYPE_SERVICES && name !== question.name) return 'an answer for another service';
  return namespace === question.namespace || question.namespace === '' ? null : 'an answer for another namespace';
}
