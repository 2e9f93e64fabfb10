// Owns the answer to a peer that does not read: no write progress for a while, and the socket is cut (proxy-semantics §3,
// slow reader). Called by downstream after each write. It must cost nothing while the kernel takes all that is written.
import type { Socket } from 'node:net';
import { Deadline, type TimerWheel } from '../kernel/timer-wheel.ts';

/** How many looks fit into the allowed time; a stall is seen at most one look late. */
const LOOKS = 6;

/** Watches the writing side of one socket; lives as long as the socket. */
export class WriteWatch {
  readonly #socket: Socket;
  readonly #wheel: TimerWheel;
  readonly #lookMs: number;
  readonly #onStalled: () => void;
  readonly #deadline: Deadline;
  #handed = 0;
  #flushed = 0;
  #still = 0;

  constructor(socket: Socket, wheel: TimerWheel, limitMs: number, onStalled: () => void) {
    this.#socket = socket;
    this.#wheel = wheel;
    this.#lookMs = limitMs / LOOKS;
    this.#onStalled = onStalled;
    this.#deadline = new Deadline(() => this.#look());
  }

  /** Call after each write with the bytes it handed over. */
  wrote(bytes: number): void {
    this.#handed += bytes;
    if (this.#socket.writableLength === 0 || this.#deadline.armed || this.#socket.writableCorked > 0) return;
    this.#flushed = this.#handed - this.#socket.writableLength;
    this.#still = 0;
    this.#wheel.arm(this.#deadline, this.#lookMs);
  }

  /** Stops watching. */
  stop(): void {
    this.#wheel.disarm(this.#deadline);
  }

  #look(): void {
    const waiting = this.#socket.writableLength;
    if (waiting === 0 || this.#socket.destroyed) return;
    const flushed = this.#handed - waiting;
    this.#still = flushed === this.#flushed ? this.#still + 1 : 0;
    this.#flushed = flushed;
    if (this.#still >= LOOKS) this.#onStalled();
    else this.#wheel.arm(this.#deadline, this.#lookMs);
  }
}
