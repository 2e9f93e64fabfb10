// The steps of a drain on a fake clock.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { DRAIN_GRACE_MS, Drain, type Drained, LAME_DUCK_MS } from './drain.ts';

class FakeListener implements Drained {
  draining = false;
  idle = 0;
  pending = 0;
  accepted = 0;
  readonly calls: string[] = [];
  readonly #clock: FakeClock;

  constructor(clock: FakeClock) {
    this.#clock = clock;
  }

  get connections(): number {
    return this.idle + this.pending;
  }

  at(what: string): number {
    const call = this.calls.find((text) => text.startsWith(`${what} `));
    return call === undefined ? -1 : Number(call.split(' ')[1]) - 1_000;
  }

  closeIdle(fresh: boolean): void {
    if (fresh) this.idle = 0;
  }

  stop(): Promise<void> {
    this.#note('stop');
    return Promise.resolve();
  }

  hardStop(): void {
    this.#note('hardStop');
  }

  destroy(): void {
    this.#note('destroy');
  }

  #note(what: string): void {
    this.calls.push(`${what} ${this.#clock.now()}`);
  }
}

async function drained(
  prepare: (listener: FakeListener) => void,
  during: (listener: FakeListener, drain: Drain, clock: FakeClock) => Promise<void>,
) {
  const clock = new FakeClock();
  const listener = new FakeListener(clock);
  prepare(listener);
  const drain = new Drain(() => [listener], clock);
  let ended = false;
  const running = drain.run().then(() => {
    ended = true;
  });
  await during(listener, drain, clock);
  assert.equal(ended, true);
  await running;
  return listener;
}

test('with idle connections the lame duck lasts 1.5 s', async () => {
  const listener = await drained(
    (one) => {
      one.idle = 3;
    },
    async (one, _drain, clock) => {
      await clock.advance(10);
      assert.equal(one.draining, true);
      await clock.advance(5_000);
    },
  );
  assert.ok(Math.abs(listener.at('stop') - LAME_DUCK_MS) <= 40, String(listener.at('stop')));
});

test('without idle connections it ends as soon as nobody has connected for 100 ms', async () => {
  const listener = await drained(
    () => {},
    async (one, _drain, clock) => {
      for (let i = 0; i < 10; i++) {
        one.accepted++;
        await clock.advance(60);
      }
      await clock.advance(3_000);
    },
  );
  assert.ok(listener.at('stop') >= 600 && listener.at('stop') <= 760, String(listener.at('stop')));
});

test('open requests are waited for, then everything is destroyed', async () => {
  const listener = await drained(
    (one) => {
      one.pending = 2;
    },
    async (one, _drain, clock) => {
      await clock.advance(10_000);
      assert.equal(one.at('destroy'), -1);
      one.pending = 0;
      await clock.advance(1_000);
    },
  );
  assert.equal(listener.at('hardStop'), -1);
  assert.ok(listener.at('destroy') >= 10_000 && listener.at('destroy') <= 10_600);
});

test('after the grace of 30 s what is left is stopped hard', async () => {
  const listener = await drained(
    (one) => {
      one.pending = 1;
    },
    async (_one, _drain, clock) => {
      await clock.advance(DRAIN_GRACE_MS + 1_000);
    },
  );
  const after = listener.at('hardStop') - listener.at('stop');
  assert.ok(Math.abs(after - DRAIN_GRACE_MS) <= 40, String(after));
  assert.ok(listener.at('destroy') > listener.at('hardStop'));
});

test('a second signal ends the wait at once, in either part', async () => {
  for (const wait of [50, 5_000]) {
    const listener = await drained(
      (one) => {
        one.idle = 1;
        one.pending = 1;
      },
      async (_one, drain, clock) => {
        await clock.advance(wait);
        drain.hard();
        await clock.advance(300);
      },
    );
    assert.ok(listener.at('hardStop') >= wait - 20 && listener.at('hardStop') <= wait + 60, String(listener.at('hardStop')));
  }
});
