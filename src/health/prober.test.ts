// Timing of all checks on a fake clock: one per target, phases, pace, bounds, stalls of our own, freeze, evidence.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FakeClock, settle } from '../../test/support/fake-clock.ts';
import { silentLog } from '../kernel/log.ts';
import { seededRandom } from '../kernel/random.ts';
import { DEFAULT_HEALTH_CHECK, type HealthCheckPolicy } from '../model/policy.ts';
import { Events } from '../telemetry/events.ts';
import { Metrics } from '../telemetry/metrics.ts';
import type { Ask } from './ask.ts';
import { failed, PASS, type Probe, type ProbeResult, type ProbeRun, type ProbeTarget, targetOf } from './probe.ts';
import { Prober } from './prober.ts';

/** A clock that can jump as the loop's does when it stands still: time is gone and no timer fired meanwhile. */
class StallClock extends FakeClock {
  #stalled = 0;

  override now(): number {
    return super.now() + this.#stalled;
  }

  stall(ms: number): void {
    this.#stalled += ms;
  }
}

/** Answers at once, or when the test says. */
class FakeProbe implements Probe {
  readonly started: { readonly at: number; readonly target: ProbeTarget; readonly how: ProbeRun }[] = [];
  readonly dropped: ProbeTarget[] = [];
  readonly clock: FakeClock;
  answer: (target: ProbeTarget) => ProbeResult | 'never' | 'later' = () => PASS;
  later: ((result: ProbeResult) => void)[] = [];
  open = 0;
  mostOpen = 0;

  constructor(clock: FakeClock) {
    this.clock = clock;
  }

  run(target: ProbeTarget, how: ProbeRun): Promise<ProbeResult> {
    this.started.push({ at: this.clock.now(), target, how });
    this.open++;
    this.mostOpen = Math.max(this.mostOpen, this.open);
    return this.#result(target, how).finally(() => this.open--);
  }

  #result(target: ProbeTarget, how: ProbeRun): Promise<ProbeResult> {
    const answer = this.answer(target);
    if (answer === 'later') return new Promise((resolve) => this.later.push(resolve));
    if (answer !== 'never') return Promise.resolve(answer);
    return new Promise((resolve) => how.signal.addEventListener('abort', () => resolve(failed('timeout'))));
  }

  drop(target: ProbeTarget): void {
    this.dropped.push(target);
  }

  async close(): Promise<void> {}
}

function rig() {
  const clock = new StallClock();
  const probe = new FakeProbe(clock);
  const metrics = new Metrics();
  const events = new Events(clock, silentLog, metrics);
  const prober = new Prober({
    clock,
    random: seededRandom(7),
    probes: { http: probe, tcp: probe, grpc: probe },
    events,
    metrics,
  });
  const changed: Ask[] = [];
  const ask = (service: string, host: string, over: Partial<HealthCheckPolicy> = {}, port = 80): Ask => {
    const policy = { ...DEFAULT_HEALTH_CHECK, ...over };
    const target = targetOf(policy, '', host, port);
    return prober.ask({ service, target, policy, dial: () => null, pace: policy.interval }, (one) => changed.push(one));
  };
  return { clock, probe, prober, events, metrics, ask, changed };
}

const startsPer = (started: FakeProbe['started'], from: number, to: number): number =>
  started.filter(({ at }) => at >= from && at < to).length;

describe('the prober', () => {
  it('checks a new target at once and then once an interval, in its own phase, at most 10 % late', async () => {
    const { clock, probe, ask } = rig();
    ask('a/b', '10.0.0.1');
    await clock.advance(20_000);
    const times = probe.started.map(({ at }) => at);
    assert.equal(times[0], 1_000);
    assert.ok(times.length >= 10 && times.length <= 12, `${times.length} checks`);
    const phases = times.slice(1).map((at) => at % 2_000);
    assert.ok(Math.max(...phases) - Math.min(...phases) <= 201, phases.join());
  });

  it('runs one check for all services that ask for a target, with the smallest interval and each one’s thresholds', async () => {
    const { clock, probe, prober, ask } = rig();
    probe.answer = () => failed('refused');
    const strict = ask('a/b', '10.0.0.1', { unhealthyThreshold: 1, interval: 10_000 });
    const patient = ask('c/d', '10.0.0.1', { unhealthyThreshold: 5, interval: 2_000 });
    assert.equal(prober.targets, 1);
    await clock.advance(0);
    assert.deepEqual([strict.verdict, patient.verdict], ['fail', 'none']);
    await clock.advance(20_000);
    assert.equal(patient.verdict, 'fail');
    assert.ok(probe.started.length <= 12);
  });

  it('keeps apart what differs in network, path, Host or kind', () => {
    const { prober, ask } = rig();
    const http = { kind: 'http' } as const;
    ask('a/1', '10.0.0.1', http);
    ask('a/2', '10.0.0.1', { ...http, path: '/x' });
    ask('a/3', '10.0.0.1', { ...http, host: 'y' });
    ask('a/4', '10.0.0.1', { kind: 'tcp' });
    ask('a/5', '10.0.0.1', { kind: 'grpc' });
    ask('a/6', '10.0.0.1', { kind: 'tcp' });
    assert.equal(prober.targets, 5);
  });

  it('storms no one with 10,000 targets: at most 200 checks a second, even within 100 ms, and every target gets its turn', async () => {
    const { clock, probe, ask } = rig();
    for (let i = 0; i < 10_000; i++) ask(`s/${i % 500}`, `10.${(i >> 16) & 255}.${(i >> 8) & 255}.${i & 255}`);
    const seconds = 110;
    for (let i = 0; i < seconds * 1_000; i += 5) {
      clock.advanceSync(5);
      // Results are promises that are settled already: one turn lets them in.
      await Promise.resolve();
      if (i % 100 === 0) await settle(1);
    }
    const from = 1_000;
    const total = startsPer(probe.started, from, from + seconds * 1_000);
    assert.ok(total <= 200 * seconds * 1.05, `${total / seconds} checks a second`);
    assert.ok(total >= 200 * seconds * 0.9, `${total / seconds} checks a second`);
    const slices = new Array<number>(seconds * 10).fill(0);
    for (const { at } of probe.started) {
      const slice = Math.floor((at - from) / 100);
      slices[slice] = (slices[slice] ?? 0) + 1;
    }
    const mean = total / slices.length;
    assert.ok(Math.max(...slices) / mean <= 2, `max ${Math.max(...slices)}, mean ${mean}`);
    assert.equal(new Set(probe.started.map(({ target }) => target.host)).size, 10_000);
  });

  it('has at most 64 checks under way, and ends each at its own timeout', async () => {
    const { clock, probe, ask } = rig();
    probe.answer = () => 'never';
    for (let i = 0; i < 300; i++) ask('a/b', `10.0.${i >> 8}.${i & 255}`, { timeout: 1_000 });
    await clock.advance(900);
    assert.equal(probe.open, 64);
    await clock.advance(3_000);
    assert.equal(probe.mostOpen, 64);
    assert.ok(probe.started.length > 128);
  });

  it('runs one timer whatever the number of targets', async () => {
    const { clock, ask } = rig();
    for (let i = 0; i < 1_000; i++) ask('a/b', `10.0.${i >> 8}.${i & 255}`);
    assert.equal(clock.pending, 1);
    await clock.advance(3_000);
    assert.equal(clock.pending, 1);
  });

  it('puts first checks before those that are merely due', async () => {
    const { clock, probe, ask } = rig();
    for (let i = 0; i < 2_000; i++) ask('a/b', `10.0.${i >> 8}.${i & 255}`);
    await clock.advance(11_000);
    ask('new/one', '10.9.9.9');
    const before = probe.started.length;
    await clock.advance(50);
    assert.ok(probe.started.slice(before).findIndex(({ target }) => target.host === '10.9.9.9') <= 5);
  });

  it('stops, closes the connection and forgets the target when the last service ends its ask', async () => {
    const { clock, probe, prober, ask } = rig();
    const one = ask('a/b', '10.0.0.1');
    const two = ask('c/d', '10.0.0.1');
    await clock.advance(0);
    prober.end(one);
    assert.equal(prober.targets, 1);
    prober.end(two);
    assert.deepEqual([prober.targets, probe.dropped.length], [0, 1]);
    await clock.advance(10_000);
    assert.equal(probe.started.length, 1);
    assert.equal(clock.pending, 0);
  });

  it('aborts a check that nobody asks for any more, and takes no notice of its result', async () => {
    const { clock, probe, prober, ask, changed } = rig();
    probe.answer = () => 'later';
    const one = ask('a/b', '10.0.0.1');
    await clock.advance(0);
    prober.end(one);
    assert.equal(probe.started[0]?.how.signal.aborted, true);
    probe.later[0]?.(failed('late'));
    await settle();
    assert.deepEqual(changed, []);
  });

  it('checks at once when told so, and faster when the pace rises', async () => {
    const { clock, probe, prober, ask } = rig();
    const one = ask('a/b', '10.0.0.1', { interval: 60_000 });
    await clock.advance(0);
    await clock.advance(5_000);
    assert.equal(probe.started.length, 1);
    prober.change(one, { policy: one.policy, dial: one.dial, pace: 2_000 }, true);
    await clock.advance(0);
    assert.equal(probe.started.length, 2);
    prober.change(one, { policy: one.policy, dial: one.dial, pace: 60_000 }, false);
    await clock.advance(3_100);
    const slow = probe.started.length;
    prober.change(one, { policy: one.policy, dial: one.dial, pace: 1_000 }, false);
    await clock.advance(2_300);
    assert.ok(probe.started.length > slow);
  });

  it('keeps connections only for checks that come again before servers close idle ones', async () => {
    const { clock, probe, ask } = rig();
    ask('a/b', '10.0.0.1', { interval: 2_000 });
    ask('a/c', '10.0.0.2', { interval: 10_000 });
    await clock.advance(0);
    assert.deepEqual(
      probe.started.map(({ how }) => how.keep),
      [true, false],
    );
  });

  it('may connect where one of the askers may', async () => {
    const { clock, probe, prober } = rig();
    const policy = DEFAULT_HEALTH_CHECK;
    const target = targetOf(policy, '', '10.0.0.1', 80);
    prober.ask({ service: 'a/b', target, policy, dial: () => 'notInCidrs', pace: 2_000 }, () => {});
    await clock.advance(0);
    assert.equal(probe.started[0]?.how.dial('10.0.0.1', 80), 'notInCidrs');
    prober.ask({ service: 'c/d', target, policy, dial: () => null, pace: 2_000 }, () => {});
    assert.equal(probe.started[0]?.how.dial('10.0.0.1', 80), null);
  });

  it('gives the catalog the failures in a row of a service’s address, and 0 for anything else', async () => {
    const { clock, probe, prober, ask } = rig();
    probe.answer = () => failed('refused');
    ask('a/b', '10.0.0.1');
    await clock.advance(6_500);
    assert.ok(prober.evidence.failuresInARow('a/b', '', '10.0.0.1', 80) >= 3);
    assert.equal(prober.evidence.failuresInARow('x/y', '', '10.0.0.1', 80), 0);
    assert.equal(prober.evidence.failuresInARow('a/b', 'other', '10.0.0.1', 80), 0);
    probe.answer = () => PASS;
    await clock.advance(2_500);
    assert.equal(prober.evidence.failuresInARow('a/b', '', '10.0.0.1', 80), 0);
  });

  it('remembers a failing address for 10 minutes after it left, not longer', async () => {
    const { clock, probe, prober, ask } = rig();
    probe.answer = () => failed('refused');
    const one = ask('a/b', '10.0.0.1');
    await clock.advance(7_000);
    prober.end(one);
    await clock.advance(599_000);
    const back = ask('a/b', '10.0.0.1');
    assert.equal(back.verdict, 'fail');
    prober.end(back);
    await clock.advance(601_000);
    assert.equal(ask('a/b', '10.0.0.1').verdict, 'none');
  });
});

describe('a stall of our own', () => {
  it('of 2 s makes no failure count: what ran meanwhile is checked again', async () => {
    const { clock, probe, ask, metrics } = rig();
    const asks = Array.from({ length: 20 }, (_, i) => ask(`s/${i}`, `10.0.0.${i}`, { unhealthyThreshold: 1 }));
    await clock.advance(4_000);
    assert.ok(asks.every(({ verdict }) => verdict === 'pass'));
    probe.answer = () => 'later';
    await clock.advance(1_950);
    const running = probe.later.length;
    assert.ok(running > 5);
    // The loop stands still: the clock jumps, no timer fires in between, then the sockets' timeouts come in a heap.
    clock.stall(2_000);
    for (const settleOne of probe.later.splice(0)) settleOne(failed('timeout'));
    await settle();
    assert.ok(asks.every(({ verdict }) => verdict === 'pass'));
    assert.equal(metrics.counter('weir_health_checks_total', 'discarded').value, running);
    probe.answer = () => PASS;
    await clock.advance(2_500);
    assert.ok(asks.every(({ failures }) => failures === 0));
  });

  it('does not discard a pass', async () => {
    const { clock, probe, ask } = rig();
    probe.answer = () => 'later';
    const one = ask('a/b', '10.0.0.1');
    await clock.advance(0);
    clock.stall(5_000);
    probe.later[0]?.(PASS);
    await settle();
    assert.equal(one.verdict, 'pass');
  });
});

describe('most targets failing at once', () => {
  it('freezes verdicts and evidence, raises one event, and pardons when it is over', async () => {
    const { clock, probe, prober, ask, events, metrics, changed } = rig();
    const asks = Array.from({ length: 30 }, (_, i) => ask(`s/${i % 3}`, `10.0.0.${i}`));
    await clock.advance(6_000);
    changed.length = 0;
    probe.answer = () => failed('ENETUNREACH');
    await clock.advance(30_000);
    assert.equal(prober.frozen, true);
    assert.ok(asks.every(({ verdict }) => verdict === 'pass'));
    assert.ok(asks.every((one) => prober.evidence.failuresInARow(one.service, '', one.target.host, 80) < 3));
    assert.deepEqual(changed, []);
    assert.equal(metrics.gauge('weir_self_suspect').value, 1);
    probe.answer = () => PASS;
    await clock.advance(3_000);
    assert.equal(prober.frozen, false);
    assert.ok(asks.every(({ failures }) => failures === 0));
    const told = events.recent(10).filter(({ type }) => type === 'self_suspect');
    assert.deepEqual(
      told.map(({ details }) => details['frozen']),
      [true, false],
    );
    assert.equal(metrics.gauge('weir_self_suspect').value, 0);
  });

  it('of one service alone is that service’s matter', async () => {
    const { clock, probe, prober, ask } = rig();
    const asks = Array.from({ length: 30 }, (_, i) => ask('s/one', `10.0.0.${i}`));
    await clock.advance(6_000);
    probe.answer = () => failed('refused');
    await clock.advance(8_000);
    assert.equal(prober.frozen, false);
    assert.ok(asks.every(({ verdict }) => verdict === 'fail'));
  });

  it('leaves half of the targets failing for a real outage', async () => {
    const { clock, probe, prober, ask } = rig();
    const asks = Array.from({ length: 30 }, (_, i) => ask(`s/${i % 3}`, `10.0.0.${i}`));
    await clock.advance(6_000);
    probe.answer = ({ host }) => (Number(host.split('.')[3]) < 15 ? failed('refused') : PASS);
    await clock.advance(8_000);
    assert.equal(prober.frozen, false);
    assert.equal(asks.filter(({ verdict }) => verdict === 'fail').length, 15);
  });
});
