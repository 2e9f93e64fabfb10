// Whenever and however a user answers, pauses and resumes, and however the bytes are split: a body is never read as a request,
// and a request is never seen twice or out of order.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createDownstream, DOWNSTREAM_LIMITS, type Downstream, REFUSAL_FIELDS } from '../../src/http1/downstream.ts';
import type { DownstreamUser, RequestHead } from '../../src/http1/exchange.ts';
import { statusLine } from '../../src/http1/writer.ts';
import { type Random, randomBelow, seededRandom } from '../../src/kernel/random.ts';
import { TimerWheel } from '../../src/kernel/timer-wheel.ts';
import { FakeClock, settle } from '../support/fake-clock.ts';
import { FakeSocket } from './fake-socket.ts';
import { randomPieces } from './splits.ts';

const EVIL = 'GET /evil HTTP/1.1\r\nHost: h\r\n\r\n';

/** Answers at random moments: inside any callback, or later. */
class MoodyUser implements DownstreamUser {
  readonly targets: string[] = [];
  readonly #connection: Downstream;
  readonly #random: Random;
  #open = false;
  #streaming = false;

  constructor(connection: Downstream, random: Random) {
    this.#connection = connection;
    this.#random = random;
  }

  /** One random deed; called inside callbacks and between them. */
  act(): void {
    const connection = this.#connection;
    switch (randomBelow(this.#random, 7)) {
      case 0:
        connection.pause();
        break;
      case 1:
        connection.resume();
        break;
      case 2:
        if (this.#streaming) this.#end();
        else if (this.#open) {
          this.#open = false;
          connection.reply(statusLine(200), 'x');
        }
        break;
      case 3:
        if (this.#open && !this.#streaming) {
          this.#streaming = true;
          connection.replyHead(statusLine(200), -1);
        }
        break;
      case 4:
        if (this.#streaming) connection.replyBody(Buffer.from('piece'), () => {});
        break;
      case 5:
        connection.continue100();
        break;
      default:
    }
  }

  #end(): void {
    this.#streaming = false;
    this.#open = false;
    this.#connection.replyEnd();
  }

  request(head: RequestHead): void {
    assert.equal(this.#open, false, 'two exchanges at a time');
    this.#open = true;
    this.targets.push(head.target);
    this.act();
  }
  body(): void {
    assert.equal(this.#open, true, 'body after the reply');
    this.act();
  }
  requestEnd(): void {
    assert.equal(this.#open, true, 'end after the reply');
    this.act();
  }
  aborted(): void {
    this.#open = false;
    this.#streaming = false;
  }
  drained(): void {}
  upgradeData(): void {}
  upgradeEnd(): void {}
  closed(): void {}
}

function stream(random: Random): { bytes: Buffer; targets: string[] } {
  let text = '';
  const targets: string[] = [];
  for (let n = 0; n < 8; n++) {
    targets.push(`/${n}`);
    const start = `POST /${n} HTTP/1.1\r\nHost: h\r\n${randomBelow(random, 3) === 0 ? 'Expect: 100-continue\r\n' : ''}`;
    const body = EVIL.repeat(randomBelow(random, 3));
    if (randomBelow(random, 2) === 0) text += `${start}Content-Length: ${body.length}\r\n\r\n${body}`;
    else
      text += `${start}Transfer-Encoding: chunked\r\n\r\n${body === '' ? '' : `${body.length.toString(16)}\r\n${body}\r\n`}0\r\n\r\n`;
  }
  return { bytes: Buffer.from(text, 'latin1'), targets };
}

test('2,000 random conversations: no body is read as a request, requests come in order and one at a time', async () => {
  let whole = 0;
  for (let seed = 1; seed <= 2_000; seed++) {
    const random = seededRandom(seed);
    const { bytes, targets } = stream(random);
    const socket = new FakeSocket();
    const users: MoodyUser[] = [];
    createDownstream(socket.socket, {
      open: (connection) => {
        const user = new MoodyUser(connection, random);
        users.push(user);
        return user;
      },
      wheel: new TimerWheel(new FakeClock()),
      limits: DOWNSTREAM_LIMITS,
      draining: false,
      refusalFields: REFUSAL_FIELDS,
      onRefused: (status) => assert.fail(`refused ${status}, seed ${seed}`),
    });
    const user = users[0] as MoodyUser;
    for (const piece of randomPieces(bytes, random)) {
      socket.feed(piece);
      user.act();
      if (randomBelow(random, 3) === 0) await settle(1);
    }
    for (let n = 0; n < 60 && !socket.writableEnded; n++) {
      user.act();
      if (n % 4 === 0) await settle(1);
    }
    assert.deepEqual(user.targets, targets.slice(0, user.targets.length), `seed ${seed}`);
    if (user.targets.length === targets.length) whole++;
    socket.destroy();
  }
  assert.ok(whole > 20, `${whole} conversations went to their end`);
});
