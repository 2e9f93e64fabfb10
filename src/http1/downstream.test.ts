import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeSocket } from '../../test/http1/fake-socket.ts';
import { FakeClock, settle } from '../../test/support/fake-clock.ts';
import { TimerWheel } from '../kernel/timer-wheel.ts';
import {
  createDownstream,
  DOWNSTREAM_LIMITS,
  type Downstream,
  type DownstreamLimits,
  type DownstreamOptions,
  REFUSAL_FIELDS,
} from './downstream.ts';
import type { BodyKind, DownstreamUser, RequestHead } from './exchange.ts';
import { statusLine } from './writer.ts';

const OK = statusLine(200);

/** Writes down what it is told; the test answers. */
class User implements DownstreamUser {
  readonly log: string[] = [];
  readonly connection: Downstream;
  onRequest: (() => void) | null = null;
  onBody: (() => void) | null = null;

  constructor(connection: Downstream) {
    this.connection = connection;
  }

  request(head: RequestHead, kind: BodyKind, length: number): void {
    this.log.push(`request ${head.method} ${head.target} ${kind} ${length}`);
    this.onRequest?.();
  }
  body(view: Buffer): void {
    this.log.push(`body ${view.toString('latin1')}`);
    this.onBody?.();
  }
  requestEnd(): void {
    this.log.push('end');
  }
  aborted(cause: string): void {
    this.log.push(`aborted ${cause}`);
  }
  drained(): void {
    this.log.push('drained');
  }
  upgradeData(view: Buffer): void {
    this.log.push(`data ${view.toString('latin1')}`);
  }
  upgradeEnd(): void {
    this.log.push('upgradeEnd');
  }
  closed(): void {
    this.log.push('closed');
  }
}

function make(limits: Partial<DownstreamLimits> = {}) {
  const clock = new FakeClock();
  const wheel = new TimerWheel(clock);
  const socket = new FakeSocket();
  const refusals: number[] = [];
  const users: User[] = [];
  const options: DownstreamOptions = {
    open: (connection) => {
      const made = new User(connection);
      users.push(made);
      return made;
    },
    wheel,
    limits: { ...DOWNSTREAM_LIMITS, ...limits },
    draining: false,
    refusalFields: REFUSAL_FIELDS,
    onRefused: (status) => refusals.push(status),
  };
  const connection = createDownstream(socket.socket, options);
  const user = users[0] ?? new User(connection);
  /** What was written since the last call. */
  const written = (): string => Buffer.concat(socket.out.splice(0)).toString('latin1');
  return { clock, wheel, socket, refusals, options, connection, user, written };
}

const GET = 'GET /a HTTP/1.1\r\nHost: h\r\n\r\n';
const POST = 'POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n';
const CHUNKED = 'POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n';

test('a whole reply goes out in one write and the connection serves the next request', () => {
  const { socket, user, connection, written } = make();
  socket.feed(GET);
  assert.deepEqual(user.log, ['request GET /a none -1', 'end']);
  connection.reply(`${OK}a: b\r\n`, 'hello');
  assert.equal(socket.out.length, 1);
  assert.equal(written(), 'HTTP/1.1 200 OK\r\na: b\r\ncontent-length: 5\r\n\r\nhello');
  socket.feed(GET);
  connection.reply(OK, Buffer.from([0xe9, 0, 0xff]));
  assert.equal(written(), 'HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n\xe9\0\xff');
  connection.reply(OK, 'nobody asked');
  assert.equal(written(), '');
});

test('a reply of 1 MiB arrives whole although its view changes after the call', () => {
  const { socket, connection, written } = make();
  socket.feed(GET);
  const body = Buffer.alloc(1_048_576, 'a');
  connection.reply(OK, body);
  body.fill('b');
  assert.equal(written(), `HTTP/1.1 200 OK\r\ncontent-length: 1048576\r\n\r\n${'a'.repeat(1_048_576)}`);
});

test('HEAD, 204 and 304 have no body bytes; content-length is what was given, and never on a 204', () => {
  const rows: [string, number, string | null, number | undefined, string][] = [
    ['HEAD', 200, 'hello', undefined, 'content-length: 5\r\n'],
    ['HEAD', 200, null, 77, 'content-length: 77\r\n'],
    ['HEAD', 200, null, undefined, ''],
    ['GET', 304, null, 99, 'content-length: 99\r\n'],
    ['GET', 304, null, undefined, ''],
    ['GET', 204, 'x', 1, ''],
    ['GET', 200, null, undefined, 'content-length: 0\r\n'],
  ];
  for (const [method, status, body, length, field] of rows) {
    const { socket, connection, written } = make();
    socket.feed(`${method} / HTTP/1.1\r\nHost: h\r\n\r\n`);
    connection.reply(statusLine(status), body, length);
    assert.equal(written(), `${statusLine(status)}${field}\r\n`, `${method} ${status}`);
  }
});

test('one exchange at a time: a pipelined request is kept unread until the reply is complete', async () => {
  const { socket, user, connection } = make();
  socket.feed(GET + GET.replace('/a', '/b'));
  assert.deepEqual(user.log, ['request GET /a none -1', 'end']);
  assert.equal(socket.paused, true);
  socket.feed(GET.replace('/a', '/c'));
  assert.equal(socket.unread, GET.length);
  connection.reply(OK, '1');
  assert.deepEqual(user.log.slice(2), ['request GET /b none -1', 'end']);
  connection.reply(OK, '2');
  await settle();
  assert.deepEqual(user.log.slice(4), ['request GET /c none -1', 'end']);
});

test('a thousand pipelined requests that are answered at once need no stack', () => {
  const { socket, user, connection, written } = make();
  user.onRequest = () => connection.reply(OK, 'x');
  socket.feed(GET.repeat(1_000));
  assert.equal(user.log.length, 1_000);
  assert.equal(written().split('HTTP/1.1 200').length, 1_001);
});

test('a client that does not read its replies gets no further request in until it does', () => {
  const { socket, user, connection } = make();
  socket.stuck = true;
  user.onRequest = () => connection.reply(OK, 'x'.repeat(30_000));
  socket.feed(GET.repeat(10));
  assert.equal(user.log.length, 3);
  socket.unstick();
  assert.equal(user.log.length, 10);
});

test('a body of known length comes as views and ends; chunks of one read come as one view', () => {
  const { socket, user, connection } = make();
  socket.feed(`${POST}he`);
  socket.feed('llo');
  assert.deepEqual(user.log, ['request POST /p length 5', 'body he', 'body llo', 'end']);
  connection.reply(OK, null);
  user.log.length = 0;
  socket.feed(`${CHUNKED}2\r\nab\r\n3\r\ncde\r\n`);
  socket.feed('1\r\nf\r\n0\r\n\r\n');
  assert.deepEqual(user.log, ['request POST /c chunked -1', 'body abcde', 'body f', 'end']);
});

test('pause inside request keeps the body that is already here until resume', async () => {
  const { socket, user, connection } = make();
  user.onRequest = () => connection.pause();
  socket.feed(`${POST}hello`);
  assert.deepEqual(user.log, ['request POST /p length 5']);
  assert.equal(socket.paused, true);
  connection.resume();
  await settle();
  assert.deepEqual(user.log.slice(1), ['body hello', 'end']);
  connection.reply(OK, null);
  user.onRequest = null;
  socket.feed(GET);
  await settle();
  assert.equal(user.log.at(-2), 'request GET /a none -1');
});

test('a pause that is still set when the reply ends does not stop the next request', async () => {
  const { socket, user, connection } = make();
  socket.feed(`${POST}hello`);
  connection.pause();
  socket.feed(GET);
  connection.reply(OK, null);
  await settle();
  assert.equal(user.log.at(-1), 'end');
  assert.equal(user.log.length, 5);
});

test('100 is sent once, when asked for, only to a client that waits for it', () => {
  const expect = POST.replace('\r\n\r\n', '\r\nExpect: 100-continue\r\n\r\n');
  const first = make();
  first.socket.feed(expect);
  first.connection.continue100();
  first.connection.continue100();
  assert.equal(first.written(), 'HTTP/1.1 100 Continue\r\n\r\n');
  const second = make();
  second.socket.feed(`${expect}he`);
  second.connection.continue100();
  assert.equal(second.written(), '', 'the body is already coming');
  const third = make();
  third.socket.feed(expect.replace('HTTP/1.1', 'HTTP/1.0'));
  third.connection.continue100();
  assert.equal(third.written(), '');
  const fourth = make();
  fourth.socket.feed(POST);
  fourth.connection.continue100();
  assert.equal(fourth.written(), '');
});

test('informational responses go to 1.1 clients before the reply and to nobody else', () => {
  const { socket, connection, written } = make();
  socket.feed(GET);
  connection.informational('HTTP/1.1 103 Early Hints\r\nlink: x\r\n');
  assert.equal(written(), 'HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n');
  connection.reply(OK, null);
  written();
  connection.informational('HTTP/1.1 103 Early Hints\r\n');
  assert.equal(written(), '');
  socket.feed('GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n');
  connection.informational('HTTP/1.1 103 Early Hints\r\n');
  assert.equal(written(), '');
});

test('a streamed reply of known length, chunked with trailers to 1.1, and until close to 1.0', async () => {
  const done: string[] = [];
  const known = make();
  known.socket.feed(GET);
  known.connection.replyHead(OK, 5);
  known.connection.replyBody(Buffer.from('he'), () => done.push('1'));
  known.connection.replyBody(Buffer.from('llo'), () => done.push('2'));
  known.connection.replyEnd();
  assert.equal(known.written(), 'HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello');
  await settle();
  assert.deepEqual(done, ['1', '2']);

  const chunked = make();
  chunked.socket.feed(GET);
  chunked.connection.replyHead(OK, -1);
  chunked.connection.replyBody(Buffer.from('hello'), () => {});
  chunked.connection.replyBody(Buffer.alloc(0), () => {});
  chunked.connection.replyBody(Buffer.alloc(5_000, 'x'), () => {});
  chunked.connection.replyEnd({ names: [{ text: 'Grpc-Status', lower: 'grpc-status', flags: 0 }], values: ['0'] });
  assert.equal(
    chunked.written(),
    `HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n1388\r\n${'x'.repeat(5_000)}\r\n0\r\nGrpc-Status: 0\r\n\r\n`,
  );
  assert.equal(chunked.socket.writableEnded, false);

  const old = make();
  old.socket.feed('GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n');
  old.connection.replyHead(OK, -1);
  assert.equal(old.connection.closing, true);
  old.connection.replyBody(Buffer.from('hello'), () => {});
  old.connection.replyEnd();
  assert.equal(old.written(), 'HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello');
  assert.equal(old.socket.writableEnded, true);
});

test('HTTP/1.0 stays open only where keep-alive was asked for, and is told so', () => {
  const { socket, connection, written } = make();
  socket.feed('GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n');
  connection.reply(OK, null);
  assert.equal(written(), 'HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n');
  socket.feed('GET / HTTP/1.0\r\nHost: h\r\n\r\n');
  connection.reply(OK, null);
  assert.equal(written(), 'HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n');
});

test('a streamed body that is longer or shorter than announced cuts the socket and aborts the exchange', async () => {
  for (const end of [(c: Downstream) => c.replyEnd(), (c: Downstream) => void c.replyBody(Buffer.from('xxxx'), () => {})]) {
    const { socket, connection, user } = make();
    socket.feed(GET);
    connection.replyHead(OK, 5);
    connection.replyBody(Buffer.from('he'), () => {});
    end(connection);
    assert.equal(socket.destroyed, true);
    await settle();
    assert.deepEqual(user.log.slice(2), ['aborted client', 'closed']);
  }
});

test('every way to the last reply of a connection says so: client, drain, request cap, user, early reply', async () => {
  const close = /\r\nconnection: close\r\n\r\n/;
  const byClient = make();
  byClient.socket.feed(GET.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'));
  byClient.connection.reply(OK, null);
  assert.match(byClient.written(), close);
  const byDrain = make();
  byDrain.socket.feed(GET);
  byDrain.options.draining = true;
  byDrain.connection.reply(OK, null);
  assert.match(byDrain.written(), close);
  const byCap = make({ maxRequestsPerSocket: 2 });
  byCap.socket.feed(GET);
  byCap.connection.reply(OK, null);
  assert.doesNotMatch(byCap.written(), close);
  byCap.socket.feed(GET);
  byCap.connection.reply(OK, null);
  assert.match(byCap.written(), close);
  const byUser = make();
  byUser.socket.feed(GET);
  byUser.connection.closing = true;
  byUser.connection.reply(OK, null);
  assert.match(byUser.written(), close);
  const early = make();
  early.socket.feed(`${POST}he`);
  early.connection.reply(OK, null);
  assert.match(early.written(), close);
  assert.equal(early.socket.writableEnded, true);
  early.socket.feed('llo');
  assert.deepEqual(early.user.log, ['request POST /p length 5', 'body he'], 'nothing follows the reply');
});

test('a reply inside request steps over a body that is in hand and keeps the connection', () => {
  const { socket, user, connection, written } = make();
  user.onRequest = () => connection.reply(OK, null);
  socket.feed(`${POST}hello${GET}`);
  assert.deepEqual(user.log, ['request POST /p length 5', 'request GET /a none -1']);
  assert.equal(written(), 'HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n'.repeat(2));
});

test('a body that the user paused and then answered without reading is dropped, never read as a request', async () => {
  const evil = 'GET /evil HTTP/1.1\r\nHost: h\r\n\r\n';
  const withBody = POST.replace('5', String(evil.length)) + evil;
  for (const pause of ['request', 'later']) {
    const { socket, user, connection, written } = make();
    if (pause === 'request') user.onRequest = () => connection.pause();
    socket.feed(withBody + GET);
    user.onRequest = null;
    connection.reply(OK, null);
    await settle();
    assert.deepEqual(
      user.log.filter((line) => line.startsWith('request')),
      [`request POST /p length ${evil.length}`, 'request GET /a none -1'],
    );
    assert.equal(written(), 'HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n');
  }
  const partly = make();
  partly.user.onRequest = () => partly.connection.pause();
  partly.socket.feed(withBody.slice(0, -1));
  partly.connection.reply(OK, null);
  await settle();
  assert.equal(partly.user.log.length, 1);
  assert.match(partly.written(), /connection: close/);
});

test('a streamed reply that ends before the body was read ends the connection, whatever its head said', async () => {
  const evil = 'GET /evil HTTP/1.1\r\nHost: h\r\n\r\n';
  const { socket, user, connection } = make();
  user.onRequest = () => {
    connection.pause();
    connection.replyHead(OK, 0);
  };
  socket.feed(POST.replace('5', String(evil.length)) + evil);
  connection.replyEnd();
  await settle();
  assert.deepEqual(user.log, [`request POST /p length ${evil.length}`]);
  assert.equal(socket.writableEnded, true);
});

test('a reply inside body ends the exchange without requestEnd', () => {
  const { socket, user, connection } = make();
  user.onBody = () => connection.reply(OK, null);
  socket.feed(`${POST}hello${GET}`);
  assert.deepEqual(user.log, ['request POST /p length 5', 'body hello', 'request GET /a none -1', 'end']);
});

test('after the last reply the socket is half-closed, still read for 2 s at most, then destroyed', async () => {
  const { socket, user, connection, clock, wheel } = make();
  socket.feed(GET.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'));
  connection.reply(OK, null);
  assert.deepEqual([socket.writableEnded, socket.destroyed], [true, false]);
  socket.feed('x'.repeat(1_000));
  await clock.advance(1_990);
  assert.equal(socket.destroyed, false);
  await clock.advance(60);
  assert.equal(socket.destroyed, true);
  assert.equal(user.log.at(-1), 'closed');
  assert.equal(wheel.armed, 0);
});

test('lingering ends early when the client closes, and when it sends more than the cap', async () => {
  for (const end of [(s: FakeSocket) => s.fin(), (s: FakeSocket) => s.feed('x'.repeat(101))]) {
    const { socket, connection } = make({ lingerBytes: 100 });
    socket.feed(GET.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'));
    connection.reply(OK, null);
    end(socket);
    await settle();
    assert.equal(socket.destroyed, true);
  }
});

test('a refusal in mid-body aborts the exchange, then answers and closes; after the head of a reply it cuts', async () => {
  const { socket, user, refusals, written } = make();
  socket.feed(`${CHUNKED}2\r\nab\r\nzz`);
  assert.deepEqual(user.log, ['request POST /c chunked -1', 'body ab', 'aborted refused']);
  assert.match(written(), /^HTTP\/1.1 400 Bad Request\r\n(?:.*\r\n)*x-weir-error: BAD_REQUEST\r\nx-weir-attempts: 0\r\n/);
  assert.deepEqual(refusals, [400]);
  const cut = make();
  cut.socket.feed(`${CHUNKED}2\r\nab\r\n`);
  cut.connection.replyHead(OK, 10);
  cut.socket.feed('zz');
  assert.equal(cut.socket.destroyed, true);
  assert.equal(cut.user.log.at(-1), 'aborted refused');
  await settle();
  assert.deepEqual(cut.user.log.slice(-2), ['aborted refused', 'closed']);
});

test('a client that goes away aborts the open exchange once, then closed follows', async () => {
  for (const leave of [(s: FakeSocket) => s.fin(), (s: FakeSocket) => s.reset()]) {
    const { socket, user, wheel } = make();
    socket.feed(GET);
    leave(socket);
    await settle();
    assert.deepEqual(user.log.slice(2), ['aborted client', 'closed']);
    assert.equal(wheel.armed, 0);
  }
});

test('destroy by the user cuts without aborted', async () => {
  const { socket, user, connection } = make();
  socket.feed(GET);
  connection.destroy();
  connection.destroy();
  await settle();
  assert.deepEqual(user.log.slice(2), ['closed']);
  assert.equal(socket.destroyed, true);
});

test('408 for a head that is not whole after 10 s, counted from its first byte however it drips', async () => {
  const { socket, clock, written, refusals } = make();
  await clock.advance(30_000);
  socket.feed('G');
  for (let n = 0; n < 9; n++) {
    await clock.advance(1_000);
    socket.feed('E');
  }
  assert.deepEqual(refusals, []);
  await clock.advance(1_040);
  assert.deepEqual(refusals, [408]);
  assert.match(written(), /^HTTP\/1.1 408 Request Timeout\r\n/);
});

test('an empty line after a request starts no head: no 408 comes of it, and the next request is served', async () => {
  const { socket, clock, connection, user, refusals } = make();
  socket.feed(`${POST}hello`);
  connection.reply(OK, null);
  socket.feed('\r\n');
  await clock.advance(20_000);
  assert.deepEqual([refusals, socket.writableEnded, connection.idle], [[], false, true]);
  socket.feed(GET);
  assert.equal(user.log.at(-1), 'end');
});

test('an idle connection is closed without a word after 60 s, counted from the last reply', async () => {
  const { socket, clock, connection, written } = make();
  await clock.advance(50_000);
  socket.feed(GET);
  await clock.advance(20_000);
  assert.equal(socket.destroyed, false, 'an open exchange is not idle');
  connection.reply(OK, null);
  written();
  await clock.advance(59_900);
  assert.equal(socket.writableEnded, false);
  await clock.advance(200);
  assert.equal(socket.writableEnded, true);
  assert.equal(written(), '');
});

test('408 for a body below 240 B/s after the first 10 s, and for one that takes 60 s', async () => {
  const slow = make();
  slow.socket.feed(POST.replace('5', '100000'));
  await slow.clock.advance(10_000);
  slow.socket.feed('x'.repeat(300));
  await slow.clock.advance(1_000);
  assert.deepEqual(slow.refusals, []);
  await slow.clock.advance(1_100);
  assert.deepEqual(slow.refusals, [408]);
  assert.equal(slow.user.log.at(-1), 'aborted timeout');
  const long = make();
  long.socket.feed(POST.replace('5', '100000'));
  for (let n = 0; n < 59; n++) {
    await long.clock.advance(1_000);
    long.socket.feed('x'.repeat(1_000));
  }
  assert.deepEqual(long.refusals, []);
  await long.clock.advance(1_100);
  assert.deepEqual(long.refusals, [408]);
});

test('liftRequestTimeout frees a streaming request, and a pause by us asks for no bytes', async () => {
  const lifted = make();
  lifted.user.onRequest = () => lifted.connection.liftRequestTimeout();
  lifted.socket.feed(POST.replace('5', '100000'));
  await lifted.clock.advance(600_000);
  assert.deepEqual(lifted.refusals, []);
  const paused = make();
  paused.socket.feed(POST.replace('5', '100000'));
  paused.connection.pause();
  await paused.clock.advance(30_000);
  assert.deepEqual(paused.refusals, []);
  paused.connection.resume();
  await paused.clock.advance(3_000);
  assert.deepEqual(paused.refusals, [408]);
});

test('a lift lasts for one exchange only', async () => {
  const { socket, user, connection, clock, refusals } = make();
  user.onRequest = () => connection.liftRequestTimeout();
  socket.feed(`${POST}hello`);
  connection.reply(OK, null);
  user.onRequest = null;
  socket.feed(POST);
  await clock.advance(12_000);
  assert.deepEqual(refusals, [408]);
});

test('a reader that takes nothing for 30 s is cut, and the exchange is aborted as timeout', async () => {
  const { socket, user, connection, clock } = make();
  socket.feed(GET);
  socket.stuck = true;
  connection.replyHead(OK, 200_000);
  connection.replyBody(Buffer.alloc(65_536), () => {});
  await clock.advance(29_000);
  assert.equal(socket.destroyed, false);
  await clock.advance(6_100);
  assert.equal(socket.destroyed, true);
  assert.deepEqual(user.log.slice(2), ['aborted timeout', 'closed']);
});

test('a reader that takes some within 30 s is kept', async () => {
  const { socket, user, connection, clock } = make();
  socket.feed(GET);
  connection.replyHead(OK, 1_000_000);
  for (let n = 0; n < 6; n++) {
    socket.stuck = true;
    connection.replyBody(Buffer.alloc(65_536), () => {});
    await clock.advance(25_000);
    socket.unstick();
  }
  assert.equal(socket.destroyed, false);
  assert.ok(user.log.includes('drained'));
});

test('after upgrade bytes pass raw both ways, early ones first, and half-close is told', async () => {
  const { socket, user, connection, written } = make();
  socket.feed(`${GET}early`);
  connection.upgrade('HTTP/1.1 101 Switching Protocols\r\n\r\n');
  await settle();
  socket.feed('later');
  connection.upgradedWrite(Buffer.from('back'), () => {});
  assert.deepEqual(user.log.slice(2), ['data early', 'data later']);
  assert.equal(written(), 'HTTP/1.1 101 Switching Protocols\r\n\r\nback');
  socket.fin();
  await settle();
  assert.equal(user.log.at(-1), 'upgradeEnd');
  connection.upgradedEnd();
  await settle();
  assert.equal(user.log.at(-1), 'closed');
  assert.equal(user.log.includes('aborted client'), false);
});

test('closeIfIdle ends an idle connection and leaves one alone that is in a head or an exchange', () => {
  const { socket, connection } = make();
  socket.feed('GET');
  assert.equal(connection.closeIfIdle(), false);
  socket.feed(' / HTTP/1.1\r\nHost: h\r\n\r\n');
  assert.equal(connection.closeIfIdle(), false);
  connection.reply(OK, null);
  assert.equal(connection.closeIfIdle(), true);
  assert.equal(socket.writableEnded, true);
});
