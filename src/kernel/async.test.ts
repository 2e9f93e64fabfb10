// Scope, mailbox, clock.sleep, deadlines and back-off: the small pieces that every long-lived object is made of.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock, settle } from '../../test/support/fake-clock.ts';
import { reconnectDelay, retryDelay } from './backoff.ts';
import { withDeadline } from './cancel.ts';
import { Mailbox } from './mailbox.ts';
import { seededRandom } from './random.ts';
import { Scope } from './scope.ts';

test('a mailbox keeps the newest value and hands it to a slow reader', async () => {
  const box = new Mailbox<number>();
  const controller = new AbortController();
  box.put(1);
  box.put(2);
  const seen: number[] = [];
  const reading = (async () => {
    for await (const value of box.read(controller.signal)) seen.push(value);
  })();
  await settle();
  box.put(3);
  await settle();
  controller.abort();
  await reading;
  assert.deepEqual(seen, [2, 3]);
});

test('a mailbox merges what was not read, and ends with the failure after the last value', async () => {
  const box = new Mailbox<string>((waiting, incoming) => `${waiting}${incoming}`);
  box.put('a');
  box.put('b');
  box.fail(new Error('cut'));
  box.put('ignored');
  const seen: string[] = [];
  await assert.rejects(async () => {
    for await (const value of box.read(new AbortController().signal)) seen.push(value);
  }, /cut/);
  assert.deepEqual(seen, ['ab']);
});

test('a mailbox that ended gives its last value, then the end', async () => {
  const box = new Mailbox<number>();
  box.put(1);
  box.end();
  const seen: number[] = [];
  for await (const value of box.read(new AbortController().signal)) seen.push(value);
  assert.deepEqual(seen, [1]);
});

test('closing a scope aborts its tasks, runs its ends in reverse, and reports failures before the close only', async () => {
  const failures: string[] = [];
  const order: string[] = [];
  const scope = new Scope((name) => failures.push(name));
  scope.defer(() => void order.push('first'));
  scope.defer(() => void order.push('second'));
  scope.spawn('broken', async () => {
    throw new Error('x');
  });
  scope.spawn(
    'waits',
    (signal) => new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
  );
  await settle();
  await Promise.all([scope.close(), scope.close()]);
  scope.spawn('late', async () => void order.push('never'));
  assert.deepEqual(failures, ['broken']);
  assert.deepEqual(order, ['second', 'first']);
});

test('an end that throws is reported and the other ends still run', async () => {
  const failures: string[] = [];
  let ran = false;
  const scope = new Scope((name) => failures.push(name));
  scope.defer(() => {
    ran = true;
  });
  scope.defer(() => {
    throw new Error('x');
  });
  await scope.close();
  assert.deepEqual(failures, ['close']);
  assert.ok(ran);
});

test('sleep resolves at its time and rejects at once when aborted, leaving no timer', async () => {
  const clock = new FakeClock();
  let done = false;
  void clock.sleep(100).then(() => {
    done = true;
  });
  await clock.advance(99);
  assert.equal(done, false);
  await clock.advance(1);
  assert.equal(done, true);
  const controller = new AbortController();
  const sleeping = clock.sleep(1_000, controller.signal);
  controller.abort(new Error('stop'));
  await assert.rejects(sleeping, /stop/);
  await assert.rejects(clock.sleep(5, controller.signal), /stop/);
  assert.equal(clock.pending, 0);
});

test('a call is cut at its deadline, and at the outer signal, whether it listens or not', async () => {
  const clock = new FakeClock();
  const outer = new AbortController();
  const deaf = withDeadline(clock, 50, outer.signal, () => new Promise<never>(() => {}));
  const cut = assert.rejects(deaf, /within 50 ms/);
  await clock.advance(50);
  await cut;
  const second = withDeadline(clock, 50, outer.signal, () => new Promise<never>(() => {}));
  const ended = assert.rejects(second, /outer/);
  outer.abort(new Error('outer'));
  await ended;
  assert.equal(await withDeadline(clock, 50, new AbortController().signal, async () => 7), 7);
  assert.equal(clock.pending, 0);
});

test('reconnect waits lie in [cap/2, cap] with cap = min(30 s, 2^(k-1) s)', () => {
  const random = seededRandom(1);
  for (let k = 1; k <= 50; k++) {
    const cap = Math.min(30_000, 1_000 * 2 ** (k - 1));
    for (let i = 0; i < 50; i++) {
      const wait = reconnectDelay(k, random);
      assert.ok(wait >= cap / 2 && wait <= cap, `try ${k}: ${wait}`);
    }
  }
});

test('retry back-off has the upper bounds 25, 75, 175, 250, 250 ms', () => {
  const bounds = [25, 75, 175, 250, 250];
  bounds.forEach((bound, i) => {
    assert.ok(Math.abs(retryDelay(i + 1, () => 1) - bound) < 1e-9);
    assert.equal(
      retryDelay(i + 1, () => 0),
      0,
    );
  });
  assert.equal(
    retryDelay(1, () => 1, 0.1),
    1,
  );
});

test('equal seeds give equal sequences in [0, 1)', () => {
  const a = seededRandom(7);
  const b = seededRandom(7);
  const c = seededRandom(8);
  const first = Array.from({ length: 1_000 }, () => a());
  assert.deepEqual(
    first,
    Array.from({ length: 1_000 }, () => b()),
  );
  assert.notDeepEqual(
    first.slice(0, 5),
    Array.from({ length: 5 }, () => c()),
  );
  assert.ok(first.every((n) => n >= 0 && n < 1));
  const mean = first.reduce((sum, n) => sum + n, 0) / first.length;
  assert.ok(Math.abs(mean - 0.5) < 0.05);
});
