// Runs bytes through one side of the codec on a fake socket and writes down what its user saw, body pieces joined, so that two
// runs of the same bytes can be compared however they were split.

import {
  createDownstream,
  DOWNSTREAM_LIMITS,
  type Downstream,
  type DownstreamLimits,
  REFUSAL_FIELDS,
} from '../../src/http1/downstream.ts';
import type {
  BodyKind,
  DownstreamUser,
  RequestHead,
  ResponseHead,
  Trailers,
  UpstreamConnection,
  UpstreamFailure,
  UpstreamUser,
} from '../../src/http1/exchange.ts';
import { Upstream, type UpstreamOwner } from '../../src/http1/upstream.ts';
import { statusLine } from '../../src/http1/writer.ts';
import { systemClock } from '../../src/kernel/clock.ts';
import { TimerWheel } from '../../src/kernel/timer-wheel.ts';
import { settle } from '../support/fake-clock.ts';
import { FakeSocket } from './fake-socket.ts';

/** One message as the user saw it. */
export interface Seen {
  readonly start: string;
  readonly fields: readonly (readonly [string, string])[];
  readonly kind: BodyKind;
  readonly length: number;
  body: string;
  /** Null while the end was not seen. */
  trailers: readonly (readonly [string, string])[] | null;
}

function pairs(head: { names: readonly { text: string }[]; values: readonly string[] } | null): (readonly [string, string])[] {
  return head === null ? [] : head.names.map((name, i) => [name.text, head.values[i] ?? ''] as const);
}

/** What became of a run of request bytes. */
export interface RequestRun {
  readonly requests: readonly Seen[];
  readonly aborted: readonly string[];
  /** Status of the codec's own refusal, 0 without one. */
  readonly refused: number;
  readonly reason: string;
  readonly closed: boolean;
  readonly written: string;
}

/** Answers each request with 200 and its number once it is whole; keeps what it saw. */
export class RecordingUser implements DownstreamUser {
  readonly requests: Seen[] = [];
  readonly aborts: string[] = [];
  ended = 0;
  isClosed = false;
  readonly connection: Downstream;

  constructor(connection: Downstream) {
    this.connection = connection;
  }

  request(head: RequestHead, kind: BodyKind, length: number): void {
    this.connection.continue100();
    this.requests.push({
      start: `${head.method} ${head.target} 1.${head.minor}`,
      fields: pairs(head),
      kind,
      length,
      body: '',
      trailers: null,
    });
  }

  body(view: Buffer): void {
    const last = this.requests.at(-1);
    if (last !== undefined) last.body += view.toString('latin1');
    view.fill(0x21);
  }

  requestEnd(trailers: Trailers | null): void {
    const last = this.requests.at(-1);
    if (last !== undefined) last.trailers = pairs(trailers);
    this.ended++;
    this.connection.reply(statusLine(200), String(this.ended));
  }

  aborted(cause: string): void {
    this.aborts.push(cause);
  }

  drained(): void {}
  upgradeData(): void {}
  upgradeEnd(): void {}
  closed(): void {
    this.isClosed = true;
  }
}

const wheel = new TimerWheel(systemClock);

/** Feeds the pieces one after the other. */
export async function runRequests(pieces: readonly Buffer[], limits: DownstreamLimits = DOWNSTREAM_LIMITS): Promise<RequestRun> {
  const socket = new FakeSocket();
  const users: RecordingUser[] = [];
  let refused = 0;
  let reason = '';
  createDownstream(socket.socket, {
    open: (connection) => {
      const user = new RecordingUser(connection);
      users.push(user);
      return user;
    },
    wheel,
    limits,
    draining: false,
    refusalFields: REFUSAL_FIELDS,
    onRefused: (status, why) => {
      refused = status;
      reason = why;
    },
  });
  for (const piece of pieces) socket.feed(piece);
  await settle(1);
  const closed = socket.writableEnded || socket.destroyed;
  const written = socket.text;
  const user = users[0] as RecordingUser;
  const run: RequestRun = { requests: [...user.requests], aborted: [...user.aborts], refused, reason, closed, written };
  socket.destroy();
  await settle(1);
  return run;
}

/** What became of a run of response bytes on one connection. */
export interface ResponseRun {
  readonly response: Seen | null;
  readonly interim: readonly string[];
  readonly failed: UpstreamFailure | null;
  /** The socket went back to the pool. */
  readonly reusable: boolean;
  readonly destroyed: boolean;
}

export class RecordingUpstreamUser implements UpstreamUser {
  response1: Seen | null = null;
  readonly interim: string[] = [];
  failure: UpstreamFailure | null = null;
  ended = false;
  connection: UpstreamConnection | null = null;
  readonly #method: string;

  constructor(method: string) {
    this.#method = method;
  }

  connected(connection: UpstreamConnection): void {
    this.connection = connection;
    connection.send(`${this.#method} / HTTP/1.1\r\nhost: h\r\n\r\n`, null, false, this.#method, false);
  }

  informational(head: ResponseHead): void {
    this.interim.push(String(head.status));
  }

  responseWhole(head: ResponseHead, body: Buffer | null): void {
    this.response(head, 'none', -1);
    if (body !== null) this.responseBody(body);
    this.responseEnd(null);
  }

  // The kind is left out of what is compared: a small response comes whole or in pieces, by how it was split.
  response(head: ResponseHead, _kind: BodyKind, _length: number): void {
    this.response1 = {
      start: `${head.status} ${head.reason} 1.${head.minor}`,
      fields: pairs(head),
      kind: 'none',
      length: -1,
      body: '',
      trailers: null,
    };
  }

  responseBody(view: Buffer): void {
    if (this.response1 !== null) this.response1.body += view.toString('latin1');
  }

  responseEnd(trailers: Trailers | null): void {
    if (this.response1 !== null) this.response1.trailers = pairs(trailers);
    this.ended = true;
  }

  drained(): void {}
  upgraded(): void {}
  upgradeData(): void {}
  upgradeEnd(): void {}
  failed(failure: UpstreamFailure): void {
    this.failure = failure;
  }
}

/** Feeds the pieces as the answer to one request; `fin`: the upstream then closes. */
export async function runResponse(pieces: readonly Buffer[], method = 'GET', fin = true): Promise<ResponseRun> {
  let released = false;
  const owner: UpstreamOwner = {
    opened(connection) {
      connection.take(user);
      user.connected(connection);
    },
    openFailed() {},
    released() {
      released = true;
    },
    gone() {},
  };
  const user = new RecordingUpstreamUser(method);
  const sockets: FakeSocket[] = [];
  new Upstream(
    owner,
    wheel,
    (_host, _port, onread) => {
      const made = new FakeSocket(onread);
      sockets.push(made);
      return made.socket;
    },
    'h',
    80,
    1_000,
  );
  const socket = sockets[0] as FakeSocket;
  socket.connect();
  for (const piece of pieces) socket.feed(piece);
  await settle(1);
  const reusable = released && !socket.destroyed;
  if (fin) socket.fin();
  await settle(1);
  const run: ResponseRun = {
    response: user.response1,
    interim: user.interim,
    failed: user.failure,
    reusable,
    destroyed: socket.destroyed,
  };
  socket.destroy();
  await settle(1);
  return run;
}
