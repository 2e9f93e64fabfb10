// Owns the sockets of the API's server: requests in flight per socket, readers that stopped reading, the end of all at close.
// Called by server.ts; one timer for all sockets.
import type { Socket } from 'node:net';
import type { Clock, Timer } from '../kernel/clock.ts';

/** No byte of a waiting answer taken for this long: the reader is gone or hostile (dependencies.md §5). */
const STALL_MS = 30_000;
const SWEEP_MS = 10_000;
/** Answers in flight on one socket; more is pipelining that nobody needs here. */
const MAX_IN_FLIGHT = 8;

interface SocketState {
  inFlight: number;
  waiting: number;
  since: number;
}

export class Connections {
  readonly #clock: Clock;
  readonly #sockets = new Map<Socket, SocketState>();
  #timer: Timer | null = null;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get size(): number {
    return this.#sockets.size;
  }

  add(socket: Socket): void {
    this.#sockets.set(socket, { inFlight: 0, waiting: 0, since: this.#clock.now() });
    socket.once('close', () => this.#sockets.delete(socket));
    this.#timer ??= this.#clock.setTimer(SWEEP_MS, this.#sweep);
  }

  /** Counts a request in; false: too many are in flight on this socket. `leave` counts it out. */
  enter(socket: Socket): boolean {
    const state = this.#sockets.get(socket);
    if (state === undefined) return true;
    state.inFlight++;
    return state.inFlight <= MAX_IN_FLIGHT;
  }

  leave(socket: Socket): void {
    const state = this.#sockets.get(socket);
    if (state !== undefined) state.inFlight--;
  }

  /** Ends every socket now. */
  destroyAll(): void {
    for (const socket of this.#sockets.keys()) socket.destroy();
    this.#timer?.cancel();
    this.#timer = null;
  }

  /** Cuts sockets whose unsent bytes have not become fewer for 30 s. */
  readonly #sweep = (): void => {
    const now = this.#clock.now();
    for (const [socket, state] of this.#sockets) {
      const waiting = socket.writableLength;
      if (waiting === 0 || waiting < state.waiting || state.waiting === 0) state.since = now;
      state.waiting = waiting;
      if (waiting > 0 && now - state.since >= STALL_MS) socket.destroy();
    }
    this.#timer = this.#sockets.size === 0 ? null : this.#clock.setTimer(SWEEP_MS, this.#sweep);
  };
}
