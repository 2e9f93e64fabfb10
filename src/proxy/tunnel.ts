// Owns a connection that became a raw pipe (proxy-semantics §15, WebSocket): both directions, half-close, the idle limit.
// Called by exchange.ts. At most one unread piece per direction is held: the side that is too fast is not read.
import { OUTCOME_IGNORED } from '../cluster/pick-interface.ts';
import type { DownstreamConnection, ResponseHead } from '../http1/exchange.ts';
import { Deadline, type TimerWheel } from '../kernel/timer-wheel.ts';
import type { Attempt } from './attempt.ts';

/** `stream_idle_timeout`: no byte either way for so long ends a tunnel. */
export const TUNNEL_IDLE_MS = 300_000;

/** How often a tunnel is looked at; it is ended at most one look late. */
const LOOK_MS = 1_000;

/** The tunnel of one exchange. */
export class Tunnel {
  bytesIn = 0;
  bytesOut = 0;
  readonly #down: DownstreamConnection;
  readonly #attempt: Attempt;
  readonly #wheel: TimerWheel;
  readonly #deadline: Deadline;
  #moved = false;
  #idleMs = 0;
  /** No byte comes from that side any more. */
  #clientEnded = false;
  #upstreamEnded = false;
  /** The socket of that side is gone. */
  #clientGone = false;
  #upstreamGone = false;
  #onClosed: () => void = noop;

  constructor(down: DownstreamConnection, attempt: Attempt, wheel: TimerWheel) {
    this.#down = down;
    this.#attempt = attempt;
    this.#wheel = wheel;
    this.#deadline = new Deadline((lateMs) => this.#look(lateMs));
  }

  /** The pipe is open; `onClosed` is called once, when both sides are gone. */
  open(onClosed: () => void): void {
    this.#onClosed = onClosed;
    this.#wheel.arm(this.#deadline, LOOK_MS);
  }

  /** From the client. */
  up(view: Buffer): void {
    this.#moved = true;
    this.bytesIn += view.length;
    // No copy: the downstream reads by `data` events, whose buffers are never used again, and the write keeps it alive.
    if (!this.#attempt.tunnelWrite(view)) this.#down.pause();
  }

  upDrained(): void {
    this.#down.resume();
  }

  upEnd(): void {
    this.#clientEnded = true;
    this.#attempt.tunnelFinish();
  }

  /** From the upstream: it is not read on until the client's kernel has the piece. */
  back(view: Buffer): void {
    this.#moved = true;
    this.bytesOut += view.length;
    this.#attempt.hold();
    this.#down.upgradedWrite(view, this.#attempt.release);
  }

  backEnd(): void {
    this.#upstreamEnded = true;
    this.#down.upgradedEnd();
  }

  /** The upstream's socket is gone. After its orderly end what it sent may still be on the way to the client. */
  upstreamGone(): void {
    this.#upstreamGone = true;
    if (!this.#upstreamEnded) this.#down.destroy();
    this.#checkClosed();
  }

  /** The client's socket is gone. After its orderly end what it sent may still be on the way to the upstream. */
  clientGone(): void {
    this.#clientGone = true;
    if (!this.#clientEnded) this.cut();
    this.#checkClosed();
  }

  /** Ends both sides at once. */
  cut(): void {
    if (!this.#upstreamGone) {
      this.#upstreamGone = true;
      this.#attempt.giveUp(OUTCOME_IGNORED);
    }
    if (!this.#clientGone) this.#down.destroy();
  }

  #checkClosed(): void {
    if (!this.#upstreamGone || !this.#clientGone) return;
    this.#wheel.disarm(this.#deadline);
    this.#onClosed();
  }

  #look(lateMs: number): void {
    this.#idleMs = this.#moved ? 0 : this.#idleMs + LOOK_MS + lateMs;
    this.#moved = false;
    if (this.#idleMs >= TUNNEL_IDLE_MS) {
      this.cut();
      this.#checkClosed();
    } else this.#wheel.arm(this.#deadline, LOOK_MS);
  }
}

function noop(): void {}

/** True when a 101 switches to what was asked for. */
export function isWebSocketSwitch(head: ResponseHead): boolean {
  let upgrade = '';
  for (let i = 0; i < head.names.length; i++) if (head.names[i]?.lower === 'upgrade') upgrade += head.values[i] ?? '';
  return upgrade.toLowerCase() === 'websocket';
}
