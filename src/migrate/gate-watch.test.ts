import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { spec } from '../../test/migrate/docs.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { countSide, noCounts, type SideCounts } from '../cluster/sides.ts';
import { GateWatch } from './gate-watch.ts';

const all = (): boolean => true;

function rig() {
  const clock = new FakeClock();
  const sides = new Map<string, SideCounts>();
  const copies = () => new Map([...sides].map(([id, one]) => [id, { ...one, latency: one.latency.slice() }]));
  const gate = new GateWatch({ clock, sides: copies });
  const add = (side: string, requests: number, outcome: number, ms: number): void => {
    const counts = sides.get(side) ?? noCounts();
    for (let n = 0; n < requests; n++) countSide(counts, outcome, ms);
    sides.set(side, counts);
  };
  return { clock, gate, add };
}

describe('gate of a shift', () => {
  it('says nothing before there is enough traffic on the new side', async () => {
    const { clock, gate, add } = rig();
    const order = spec({ gates: { maxErrorRate: 0.01 } });
    assert.equal(gate.look(order, all), null);
    add('new', 49, 500, 1);
    await clock.advance(1_000);
    assert.equal(gate.look(order, all), null);
    add('new', 1, 500, 1);
    await clock.advance(1_000);
    assert.match(gate.look(order, all) ?? '', /100\.0 % of 50 requests over new failed, maxErrorRate is 1\.0 %/);
  });

  it('compares latency of both sides, and only where both have enough', async () => {
    const { clock, gate, add } = rig();
    const order = spec({ gates: { maxP99Ratio: 3 } });
    gate.look(order, all);
    add('new', 100, 200, 90);
    await clock.advance(1_000);
    assert.equal(gate.look(order, all), null);
    add('old', 100, 200, 9);
    await clock.advance(1_000);
    assert.match(gate.look(order, all) ?? '', /p99 over new is 100 ms and over old 10 ms/);
  });

  it('forgets what is older than its window', async () => {
    const { clock, gate, add } = rig();
    const order = spec({ gates: { maxErrorRate: 0.5 } });
    gate.look(order, all);
    add('new', 100, -1, 1);
    for (let n = 0; n < 31; n++) {
      await clock.advance(1_000);
      gate.look(order, all);
    }
    add('new', 100, 200, 1);
    await clock.advance(1_000);
    assert.equal(gate.look(order, all), null);
    assert.deepEqual(gate.show(order)?.to.requests, 100);
    assert.deepEqual(gate.show(order)?.to.failed, 0);
  });

  it('without limits nothing is ever broken, and the figures are still shown', async () => {
    const { clock, gate, add } = rig();
    gate.look(spec(), all);
    add('new', 1_000, 503, 1);
    await clock.advance(1_000);
    assert.equal(gate.look(spec(), all), null);
    assert.equal(gate.show(spec())?.to.errorRate, 1);
    assert.equal(gate.show(spec())?.from.requests, 0);
  });
});
