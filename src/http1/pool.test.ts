import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeSocket } from '../../test/http1/fake-socket.ts';
import { FakeClock, settle } from '../../test/support/fake-clock.ts';
import { type Random, randomBelow, seededRandom } from '../kernel/random.ts';
import { TimerWheel } from '../kernel/timer-wheel.ts';
import type { ResponseHead, UpstreamConnection, UpstreamFailure, UpstreamUser } from './exchange.ts';
import { Pool, type PoolEvent, type PoolOptions, type PoolTicket } from './pool.ts';

const REPLY = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok';

class User implements UpstreamUser {
  readonly name: number;
  connection: UpstreamConnection | null = null;
  failure: UpstreamFailure | null = null;
  done = false;
  ticket: PoolTicket | null = null;
  readonly #log: string[];

  constructor(name: number, log: string[] = []) {
    this.name = name;
    this.#log = log;
  }

  get over(): boolean {
    return this.done || this.failure !== null;
  }

  connected(connection: UpstreamConnection): void {
    assert.equal(this.over, false);
    this.connection = connection;
    this.#log.push(`connected ${this.name}`);
    connection.send('GET / HTTP/1.1\r\nhost: h\r\n\r\n', null, false, 'GET', false);
  }
  responseWhole(head: ResponseHead): void {
    assert.equal(head.status, 200);
    this.responseEnd();
  }
  response(): void {}
  responseBody(): void {}
  responseEnd(): void {
    assert.equal(this.over, false);
    this.done = true;
  }
  failed(failure: UpstreamFailure): void {
    assert.equal(this.over, false);
    this.failure = failure;
  }
  informational(): void {}
  drained(): void {}
  upgraded(): void {}
  upgradeData(): void {}
  upgradeEnd(): void {}
}

function makePool(options: Partial<PoolOptions> = {}) {
  const clock = new FakeClock();
  const wheel = new TimerWheel(clock);
  const sockets: FakeSocket[] = [];
  const events: PoolEvent[] = [];
  const pool = new Pool({
    host: 'h',
    port: 80,
    wheel,
    connect: (_host, _port, onread) => {
      const socket = new FakeSocket(onread);
      sockets.push(socket);
      return socket.socket;
    },
    onCount: (event) => events.push(event),
    ...options,
  });
  const acquire = (name = 0, log: string[] = [], fresh = false): User => {
    const user = new User(name, log);
    user.ticket = pool.acquire(user, fresh);
    return user;
  };
  const at = (index: number): FakeSocket => {
    const socket = sockets[index];
    assert.ok(socket !== undefined, `no socket ${index}`);
    return socket;
  };
  return { clock, wheel, sockets, events, pool, acquire, at };
}

test('a waiter is connected when its socket opens, and the idle socket serves the next exchange at once', () => {
  const { pool, acquire, at, sockets } = makePool();
  const first = acquire();
  assert.deepEqual([pool.pending, pool.opening, first.connection], [1, 1, null]);
  at(0).connect();
  assert.equal(first.connection?.reused, false);
  assert.deepEqual([pool.pending, pool.active, pool.idle], [0, 1, 0]);
  at(0).feed(REPLY);
  assert.deepEqual([first.done, pool.active, pool.idle], [true, 0, 1]);
  const second = acquire();
  assert.equal(second.ticket, null);
  assert.equal(second.connection?.reused, true);
  assert.equal(sockets.length, 1);
});

test('the socket that became idle last is used first', () => {
  const { acquire, at } = makePool();
  const users = [acquire(), acquire()];
  at(0).connect();
  at(1).connect();
  at(1).feed(REPLY);
  at(0).feed(REPLY);
  const next = acquire();
  assert.equal(next.connection, users[0]?.connection);
});

test('sockets stay at the cap and waiters are served in order by those that come free', () => {
  const log: string[] = [];
  const { pool, acquire, at, sockets } = makePool({ maxConnections: 1 });
  for (let n = 0; n < 4; n++) acquire(n, log);
  at(0).connect();
  for (let n = 0; n < 3; n++) at(0).feed(REPLY);
  assert.equal(sockets.length, 1);
  assert.deepEqual(log, ['connected 0', 'connected 1', 'connected 2', 'connected 3']);
  assert.deepEqual([pool.active, pool.pending], [1, 0]);
});

test('an exchange above maxPending fails at once as unsent overflow, and is counted', () => {
  const { acquire, events, pool } = makePool({ maxConnections: 1, maxPending: 2 });
  acquire();
  acquire();
  const third = acquire();
  assert.equal(third.ticket, null);
  assert.deepEqual([third.failure?.class, third.failure?.cause], ['unsent', 'overflow']);
  assert.deepEqual(events, ['overflow']);
  assert.equal(pool.pending, 2);
});

/** A cap over several pools, counted by hand. */
function sharedCap(max: number) {
  const cap = { active: 0, tryStart: () => cap.active < max && ++cap.active > 0, end: () => void cap.active-- };
  return cap;
}

test('pools that share a cap of connections stay within it, and one without any opens one all the same', () => {
  const connectionCap = sharedCap(2);
  const first = makePool({ connectionCap });
  const second = makePool({ connectionCap });
  for (let n = 0; n < 3; n++) first.acquire();
  assert.equal(first.sockets.length, 2, 'the third waits');
  second.acquire();
  second.acquire();
  assert.equal(second.sockets.length, 1, 'one above the cap, or it would never get its turn');
  assert.equal(connectionCap.active, 2);
  second.pool.close();
  assert.equal(connectionCap.active, 2, 'what was never counted in is not counted out');
  first.pool.close();
  assert.equal(connectionCap.active, 0);
  assert.ok(first.events.includes('connection-overflow'));
});

test('pools that share a cap of waiters refuse above it, and whoever leaves the queue makes room', () => {
  const pendingCap = sharedCap(2);
  const first = makePool({ pendingCap });
  const second = makePool({ pendingCap });
  first.acquire();
  second.acquire();
  assert.equal(second.acquire().failure?.cause, 'overflow');
  first.at(0).connect();
  assert.equal(pendingCap.active, 1, 'connected is not pending');
  assert.equal(second.acquire().failure, null);
  second.pool.close();
  first.pool.close();
  assert.equal(pendingCap.active, 0);
});

test('a connection that fails to open gives its place in the shared cap back', async () => {
  const connectionCap = sharedCap(1);
  const { acquire, at } = makePool({ connectionCap });
  const user = acquire();
  at(0).reset('connect ECONNREFUSED');
  await settle();
  assert.equal(user.failure?.cause, 'connect');
  assert.equal(connectionCap.active, 0);
});

test('a cancelled waiter is not called and the socket opened for it becomes idle', () => {
  const { pool, acquire, at } = makePool();
  const user = acquire();
  user.ticket?.cancel();
  user.ticket?.cancel();
  at(0).connect();
  assert.deepEqual([user.connection, user.failure, pool.idle, pool.pending], [null, null, 1, 0]);
});

test('a refused connection fails the waiter as unsent and the next waiter gets a socket of its own', async () => {
  const { acquire, at, sockets } = makePool({ maxConnections: 1 });
  const first = acquire();
  const second = acquire();
  at(0).reset('connect ECONNREFUSED');
  await settle();
  assert.deepEqual(first.failure, { class: 'unsent', cause: 'connect', message: 'connect ECONNREFUSED', reused: false });
  assert.equal(sockets.length, 2);
  at(1).connect();
  assert.ok(second.connection !== null);
});

test('a connection that does not open within connectTimeoutMs fails as unsent connect, between 1,000 and 1,040 ms', async () => {
  const { clock, acquire, at } = makePool();
  const user = acquire();
  await clock.advance(999);
  assert.equal(user.over, false);
  await clock.advance(41);
  await settle();
  assert.deepEqual([user.failure?.class, user.failure?.cause], ['unsent', 'connect']);
  assert.equal(at(0).destroyed, true);
});

test('a connection that opened while our loop stood still is not failed by the timer that comes first', async () => {
  const { clock, acquire, at } = makePool();
  const user = acquire();
  clock.advanceSync(3_000);
  at(0).connect();
  await settle();
  assert.deepEqual([user.failure, user.connection?.reused], [null, false]);
});

test('a connect that throws fails the waiter later in the same turn', async () => {
  const { acquire } = makePool({
    connect: () => {
      throw new RangeError('port is bad');
    },
  });
  const user = acquire();
  assert.equal(user.over, false);
  await settle();
  assert.deepEqual([user.failure?.class, user.failure?.cause, user.failure?.message], ['unsent', 'connect', 'port is bad']);
});

test('an idle socket closes before 4 s, or before the hint of the upstream less 2 s', async () => {
  for (const [hint, idleMs] of [
    ['', 4_000],
    ['keep-alive: timeout=9\r\n', 7_000],
  ] as const) {
    const { clock, pool, acquire, at, events, wheel } = makePool();
    acquire();
    at(0).connect();
    at(0).feed(`HTTP/1.1 200 OK\r\n${hint}content-length: 0\r\n\r\n`);
    await clock.advance(idleMs - 600);
    assert.equal(pool.idle, 1);
    await clock.advance(620);
    assert.equal(pool.idle, 0);
    assert.equal(at(0).destroyed, true);
    assert.deepEqual(events, ['opened', 'idle-expired', 'closed']);
    await clock.advance(2_000);
    assert.equal(wheel.armed, 0, 'an empty pool arms nothing');
  }
});

test('bytes or an end on an idle socket remove it, and an exchange that follows opens another', async () => {
  for (const hurt of [(socket: FakeSocket) => socket.feed('HTTP/1.1 408 x\r\n\r\n'), (socket: FakeSocket) => socket.fin()]) {
    const { pool, acquire, at, sockets } = makePool();
    acquire();
    at(0).connect();
    at(0).feed(REPLY);
    hurt(at(0));
    await settle();
    assert.deepEqual([pool.idle, at(0).destroyed], [0, true]);
    acquire();
    assert.equal(sockets.length, 2);
  }
});

test('an idle socket that was destroyed a moment ago is not handed out', () => {
  const { acquire, at, sockets, pool } = makePool();
  acquire();
  at(0).connect();
  at(0).feed(REPLY);
  at(0).destroy();
  const user = acquire();
  assert.equal(user.connection, null);
  assert.deepEqual([sockets.length, pool.pending], [2, 1]);
});

test('a fresh exchange leaves idle sockets alone and gets one that was opened for it', () => {
  const { pool, acquire, at, sockets } = makePool();
  acquire();
  at(0).connect();
  at(0).feed(REPLY);
  const fresh = acquire(0, [], true);
  assert.deepEqual([fresh.connection, pool.idle, sockets.length], [null, 1, 2]);
  at(1).connect();
  assert.equal(fresh.connection?.reused, false);
});

test('a socket that comes free passes a waiting fresh exchange over and serves the one behind it', () => {
  const log: string[] = [];
  const { pool, acquire, at } = makePool({ maxConnections: 2 });
  acquire(0, log);
  at(0).connect();
  acquire(1, log, true);
  acquire(2, log);
  at(0).feed(REPLY);
  assert.deepEqual(log, ['connected 0', 'connected 2']);
  at(1).connect();
  assert.deepEqual([log.at(-1), pool.pending], ['connected 1', 0]);
});

test('at the cap an idle socket, or the next one that comes free, makes room for a fresh exchange', () => {
  for (const idleFirst of [true, false]) {
    const { pool, acquire, at, sockets } = makePool({ maxConnections: 1 });
    acquire();
    at(0).connect();
    if (idleFirst) at(0).feed(REPLY);
    const fresh = acquire(0, [], true);
    if (!idleFirst) at(0).feed(REPLY);
    assert.deepEqual([at(0).destroyed, sockets.length, pool.opening], [true, 2, 1]);
    at(1).connect();
    assert.equal(fresh.connection?.reused, false);
  }
});

test('a socket that was opened for somebody who left has idled: whoever gets it is told that it may be stale', () => {
  const { acquire, at } = makePool();
  acquire().ticket?.cancel();
  at(0).connect();
  assert.equal(acquire().connection?.reused, true);
});

test('above maxIdle a socket closes when it comes free', () => {
  const { pool, acquire, at } = makePool({ maxIdle: 1 });
  acquire();
  acquire();
  at(0).connect();
  at(1).connect();
  at(0).feed(REPLY);
  at(1).feed(REPLY);
  assert.deepEqual([pool.idle, at(0).destroyed, at(1).destroyed], [1, false, true]);
});

test('drain fails waiters as unsent, closes idle sockets, lets open exchanges end, and then resolves', async () => {
  const { pool, acquire, at, events } = makePool({ maxConnections: 2 });
  const running = acquire();
  const idle = acquire();
  const waiting = acquire();
  at(0).connect();
  at(1).connect();
  at(1).feed(REPLY);
  assert.ok(idle.done && waiting.connection !== null);
  at(1).feed(REPLY);
  let empty = false;
  const drained = pool.drain().then(() => {
    empty = true;
  });
  await settle();
  assert.deepEqual([at(0).destroyed, at(1).destroyed, empty], [false, true, false]);
  const late = acquire();
  assert.deepEqual([late.failure?.class, late.failure?.cause], ['unsent', 'cancelled']);
  at(0).feed(REPLY);
  await drained;
  assert.deepEqual([running.done, at(0).destroyed, pool.active, pool.idle], [true, true, 0, 0]);
  assert.equal(events.filter((event) => event === 'closed').length, 2);
});

test('close cuts open exchanges, which fail as cancelled with their own class', async () => {
  const { pool, acquire, at, wheel } = makePool({ maxConnections: 1 });
  const running = acquire();
  const waiting = acquire();
  at(0).connect();
  pool.close();
  await settle();
  assert.deepEqual([running.failure?.class, running.failure?.cause], ['no-response', 'cancelled']);
  assert.deepEqual([waiting.failure?.class, waiting.failure?.cause], ['unsent', 'cancelled']);
  assert.equal(wheel.armed, 0);
});

/** One random history; every invariant is checked after every step. */
async function history(seed: number): Promise<void> {
  const random: Random = seededRandom(seed);
  const cap = 1 + randomBelow(random, 4);
  const { clock, wheel, sockets, pool, acquire } = makePool({ maxConnections: cap, maxPending: 6, maxIdle: 2 });
  const users: User[] = [];
  const order: string[] = [];
  const fresh = new Set<number>();
  const open = (): FakeSocket[] => sockets.filter((socket) => !socket.destroyed);
  const any = <T>(list: readonly T[]): T | undefined => list[randomBelow(random, Math.max(1, list.length))];
  const opened = new WeakSet<FakeSocket>();
  const steps: (() => void | Promise<void>)[] = [
    () => void users.push(acquire(users.length, order)),
    () => void users.push(acquire(users.length, order)),
    () => void fresh.add(users.push(acquire(users.length, order, true)) - 1),
    () => {
      const socket = any(open().filter((one) => !opened.has(one)));
      if (socket === undefined) return;
      opened.add(socket);
      socket.connect();
    },
    () => any(open().filter((one) => !opened.has(one)))?.reset('connect ECONNREFUSED'),
    () => any(open())?.feed(REPLY.slice(0, randomBelow(random, REPLY.length + 1))),
    () => any(open())?.feed(REPLY),
    () => any(open())?.feed(REPLY),
    () => any(open())?.feed('HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n'),
    () => any(open())?.fin(),
    () => any(open())?.reset(),
    () => any(users.filter((user) => user.connection === null && !user.over))?.ticket?.cancel(),
    () => {
      const user = any(users.filter((one) => one.connection !== null && !one.over));
      if (user === undefined) return;
      user.connection?.abandon();
      user.done = true;
    },
    () => clock.advance(randomBelow(random, 1_500)),
    () => settle(1),
  ];
  for (let n = 0; n < 60; n++) {
    await steps[randomBelow(random, steps.length)]?.();
    assert.ok(open().length <= cap, `seed ${seed}: ${open().length} sockets, cap ${cap}`);
    const running = users.filter((user) => user.connection !== null && !user.over);
    assert.equal(new Set(running.map((user) => user.connection)).size, running.length, `seed ${seed}: two exchanges on a socket`);
    assert.equal(pool.active, running.length, `seed ${seed}: active gauge`);
    assert.ok(pool.pending <= 6 && pool.idle <= 2);
    const served = order.map((line) => Number(line.split(' ')[1]));
    for (const kind of [served.filter((one) => fresh.has(one)), served.filter((one) => !fresh.has(one))]) {
      assert.deepEqual(
        kind,
        [...kind].sort((a, b) => a - b),
        `seed ${seed}: served out of order`,
      );
    }
    for (const one of fresh) assert.notEqual(users[one]?.connection?.reused && !users[one]?.over, true, `seed ${seed}: stale`);
    assert.ok(
      pool.pending === 0 || open().length === cap || pool.opening >= pool.pending,
      `seed ${seed}: a waiter was forgotten`,
    );
  }
  pool.close();
  await settle(1);
  assert.equal(open().length, 0, `seed ${seed}: a socket was lost`);
  assert.deepEqual([pool.active, pool.idle, pool.pending, pool.opening, wheel.armed], [0, 0, 0, 0, 0], `seed ${seed}`);
}

test('random histories: never two exchanges on a socket, never above the cap, in order, nothing lost, nothing left', async () => {
  for (let seed = 1; seed <= 400; seed++) await history(seed);
});
