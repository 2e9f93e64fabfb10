import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeSocket } from '../../test/http1/fake-socket.ts';
import { FakeClock, settle } from '../../test/support/fake-clock.ts';
import { TimerWheel } from '../kernel/timer-wheel.ts';
import type { BodyKind, ResponseHead, Trailers, UpstreamConnection, UpstreamFailure, UpstreamUser } from './exchange.ts';
import { Upstream, type UpstreamOwner } from './upstream.ts';

const REQUEST = 'GET / HTTP/1.1\r\nhost: h\r\n\r\n';

interface Sending {
  head?: string;
  body?: Buffer | null;
  more?: boolean;
  method?: string;
  upgrade?: boolean;
}

/** Writes down what it is told. */
class User implements UpstreamUser {
  readonly log: string[] = [];
  failure: UpstreamFailure | null = null;
  connection: UpstreamConnection | null = null;
  onBody: (() => void) | null = null;
  readonly #sending: Sending;

  constructor(sending: Sending) {
    this.#sending = sending;
  }

  connected(connection: UpstreamConnection): void {
    this.connection = connection;
    const { head = REQUEST, body = null, more = false, method = 'GET', upgrade = false } = this.#sending;
    connection.send(head, body, more, method, upgrade);
  }
  informational(head: ResponseHead): void {
    this.log.push(`info ${head.status}`);
  }
  responseWhole(head: ResponseHead, body: Buffer | null): void {
    this.log.push(`whole ${head.status} ${body === null ? 'null' : body.toString('latin1')}`);
  }
  response(head: ResponseHead, kind: BodyKind, length: number): void {
    this.log.push(`response ${head.status} ${kind} ${length}`);
  }
  responseBody(view: Buffer): void {
    this.log.push(`body ${view.toString('latin1')}`);
    this.onBody?.();
  }
  responseEnd(trailers: Trailers | null): void {
    this.log.push(`end${trailers === null ? '' : ` ${trailers.names.map((name) => name.lower)}`}`);
  }
  drained(): void {
    this.log.push('drained');
  }
  upgraded(head: ResponseHead): void {
    this.log.push(`upgraded ${head.status}`);
  }
  upgradeData(view: Buffer): void {
    this.log.push(`data ${view.toString('latin1')}`);
    this.onBody?.();
  }
  upgradeEnd(): void {
    this.log.push('upgradeEnd');
  }
  failed(failure: UpstreamFailure): void {
    this.failure = failure;
    this.log.push(`failed ${failure.class} ${failure.cause}`);
  }
}

function make(sending: Sending = {}) {
  const clock = new FakeClock();
  const wheel = new TimerWheel(clock);
  const told: string[] = [];
  const sockets: FakeSocket[] = [];
  const owner: UpstreamOwner = {
    opened(connection) {
      connection.take(user);
      user.connected(connection);
    },
    openFailed: (_connection, message) => told.push(`openFailed ${message}`),
    released: (_connection, idleMs) => told.push(`released ${idleMs}`),
    gone: () => told.push('gone'),
  };
  const user = new User(sending);
  const upstream = new Upstream(
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
  const socket = sockets[0];
  assert.ok(socket !== undefined);
  return { clock, wheel, told, socket, user, upstream, log: user.log };
}

function open(sending: Sending = {}) {
  const made = make(sending);
  made.socket.connect();
  return made;
}

test('head and whole body in one read are one callback, and the socket goes back after it', () => {
  const { socket, log, told } = open();
  socket.feed('HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello');
  assert.deepEqual(log, ['whole 200 hello']);
  assert.deepEqual(told, ['released 4000']);
});

test('a small chunked body in one read is one callback too, its pieces joined', () => {
  const { socket, log, told } = open();
  socket.feed('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n');
  assert.deepEqual(log, ['whole 200 hello']);
  assert.deepEqual(told, ['released 4000']);
});

test('a response in several reads is head, pieces, end; trailers come with the end', () => {
  const { socket, log, told } = open();
  socket.feed('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n1\r\nl');
  socket.feed('\r\n2\r\nlo\r\n0\r\ngrpc-status: 0\r\n\r\n');
  assert.deepEqual(log, ['response 200 chunked -1', 'body hel', 'body lo', 'end grpc-status']);
  assert.deepEqual(told, ['released 4000']);
});

test('a held view stops reading and keeps its bytes until release; the end waits for it', async () => {
  const { socket, log, user, told } = open();
  const kept: Buffer[] = [];
  user.responseBody = (view) => {
    kept.push(view);
    user.connection?.hold();
  };
  socket.feed('HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello');
  socket.feed('world');
  assert.equal(kept.length, 1);
  assert.equal(socket.paused, true);
  assert.equal(kept[0]?.toString(), 'hello');
  user.connection?.release();
  await settle();
  assert.equal(kept[1]?.toString(), 'world');
  assert.deepEqual([log.at(-1), told], ['response 200 length 10', []]);
  user.connection?.release();
  assert.deepEqual([log.at(-1), told], ['end', ['released 4000']]);
});

test('a release inside the callback that held lets reading go on', () => {
  const { socket, log, user } = open();
  user.onBody = () => {
    user.connection?.hold();
    user.connection?.release();
  };
  socket.feed('HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello');
  socket.feed('world');
  assert.deepEqual(log.slice(1), ['body hello', 'body world', 'end']);
});

test('the class of a failure: unsent, no-response, started', async () => {
  const none = open();
  none.socket.fin();
  assert.deepEqual(none.log, ['failed no-response reset']);
  const started = open();
  started.socket.feed('H');
  started.socket.reset();
  await settle();
  assert.deepEqual(started.log, ['failed started reset']);
  assert.equal(started.user.failure?.message, 'read ECONNRESET');
  const unsent = make();
  unsent.socket.write = () => {
    unsent.socket.reset('write EPIPE');
    return false;
  };
  unsent.socket.connect();
  await settle();
  assert.deepEqual(unsent.log, ['failed unsent reset'], 'the kernel took no byte');
  for (const made of [none, started, unsent]) assert.deepEqual(made.told, ['gone']);
});

test('a response cut in its body fails as started and is never an end', async () => {
  for (const head of ['content-length: 10', 'transfer-encoding: chunked']) {
    const { socket, log, told } = open();
    socket.feed(`HTTP/1.1 200 OK\r\n${head}\r\n\r\n5\r\nhel`);
    socket.fin();
    await settle();
    assert.equal(log.at(-1), 'failed started reset');
    assert.equal(log.includes('end'), false);
    assert.deepEqual(told, ['gone']);
  }
});

test('a reset while the body runs until close is a failure, an end is an end', async () => {
  const clean = open();
  clean.socket.feed('HTTP/1.1 200 OK\r\n\r\nhel');
  clean.socket.fin();
  assert.deepEqual(clean.log, ['response 200 close -1', 'body hel', 'end']);
  const cut = open();
  cut.socket.feed('HTTP/1.1 200 OK\r\n\r\nhel');
  cut.socket.reset();
  await settle();
  assert.equal(cut.log.at(-1), 'failed started reset');
});

test('16 informational responses pass, and the final one must come within 10 s of the first', async () => {
  const { socket, log, clock, user } = open();
  socket.feed('HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n');
  await clock.advance(9_900);
  assert.deepEqual(log, ['info 103']);
  await clock.advance(200);
  assert.equal(log.at(-1), 'failed started protocol');
  assert.match(user.failure?.message ?? '', /10000 ms/);
});

test('a final response disarms the informational deadline', async () => {
  const { socket, log, clock, wheel } = open();
  socket.feed('HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe');
  assert.equal(wheel.armed, 0);
  await clock.advance(20_000);
  socket.feed('llo');
  assert.equal(log.at(-1), 'end');
});

test('a request body is written as it comes and an early response leaves a socket that is destroyed', () => {
  const { socket, log, user, told } = open({
    head: 'POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\n',
    more: true,
    method: 'POST',
  });
  user.connection?.write(Buffer.from('abc'), () => {});
  assert.equal(socket.text.endsWith('\r\n\r\nabc'), true);
  socket.feed('HTTP/1.1 413 No\r\ncontent-length: 0\r\n\r\n');
  assert.deepEqual(log, ['whole 413 null']);
  assert.deepEqual(told, ['gone']);
});

test('after endBody with its tail the socket is clean again', () => {
  const { socket, user, told } = open({ more: true });
  user.connection?.write(Buffer.from('3\r\nabc\r\n'), () => {});
  user.connection?.endBody('0\r\n\r\n');
  socket.feed('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n');
  assert.deepEqual(told, ['released 4000']);
});

test('a request that the kernel has not taken whole makes the socket unclean', () => {
  const { socket, told } = make();
  socket.stuck = true;
  socket.connect();
  socket.feed('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n');
  assert.deepEqual(told, ['gone']);
});

test('small and large bodies given with the head go out behind it and are copied', () => {
  for (const size of [10, 100_000]) {
    const body = Buffer.alloc(size, 'a');
    const { socket } = open({ body });
    body.fill('b');
    assert.equal(socket.text, REQUEST + 'a'.repeat(size));
  }
});

test('101 passes only where it was allowed; bytes behind it belong to the tunnel', async () => {
  const { socket, log, user, told } = open({ upgrade: true });
  socket.feed('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nearly');
  socket.feed('later');
  user.connection?.upgradedWrite(Buffer.from('up'), () => {});
  assert.equal(socket.text, `${REQUEST}up`);
  assert.deepEqual(log, ['upgraded 101', 'data early', 'data later']);
  socket.fin();
  assert.equal(log.at(-1), 'upgradeEnd');
  user.connection?.upgradedEnd();
  await settle();
  assert.deepEqual([log.at(-1), told], ['upgradeEnd', ['gone']], 'an orderly end is no failure');
  const refused = open();
  refused.socket.feed('HTTP/1.1 101 Switching Protocols\r\n\r\n');
  assert.deepEqual(refused.log, ['failed started protocol']);
});

test('a tunnel that is reset fails as started', async () => {
  const { socket, log } = open({ upgrade: true });
  socket.feed('HTTP/1.1 101 Switching Protocols\r\n\r\n');
  socket.reset();
  await settle();
  assert.equal(log.at(-1), 'failed started reset');
});

test('a non-101 reply to an upgrade is an ordinary response', () => {
  const { socket, log, told } = open({ upgrade: true });
  socket.feed('HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno');
  assert.deepEqual([log, told], [['whole 403 no'], ['released 4000']]);
});

test('abandon destroys the socket and nothing more is called', async () => {
  const { socket, log, user, told } = open();
  user.connection?.abandon();
  user.connection?.abandon();
  socket.feed('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n');
  await settle();
  assert.deepEqual([log, told, socket.destroyed], [[], ['gone'], true]);
});

test('abandon inside a callback stops all further ones', async () => {
  const { socket, log, user } = open();
  user.onBody = () => user.connection?.abandon();
  socket.feed('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n');
  socket.feed('0\r\n\r\n');
  await settle();
  assert.deepEqual(log, ['response 200 chunked -1', 'body a']);
});

test('the Keep-Alive hint less 2 s is the idle time, at most 600 s; too short a hint closes', () => {
  for (const [hint, told] of [
    ['timeout=5', 'released 3000'],
    ['timeout=60, max=100', 'released 58000'],
    ['max=5, timeout=7', 'released 5000'],
    ['timeout=99999', 'released 600000'],
    ['timeout=2', 'gone'],
    ['timeout=x', 'released 4000'],
  ] as const) {
    const made = open();
    made.socket.feed(`HTTP/1.1 200 OK\r\nKeep-Alive: ${hint}\r\ncontent-length: 0\r\n\r\n`);
    assert.deepEqual(made.told, [told], hint);
  }
});

test('drained follows a write that returned false', () => {
  const { socket, user, log } = open({ more: true });
  socket.stuck = true;
  assert.equal(
    user.connection?.write(Buffer.alloc(70_000), () => {}),
    false,
  );
  socket.unstick();
  assert.deepEqual(log, ['drained']);
});
