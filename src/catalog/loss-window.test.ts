import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { seededRandom } from '../kernel/random.ts';
import { LOSS_WINDOW_MS, LossWindow } from './loss-window.ts';

describe('loss window', () => {
  it('counts what was lost and applied in the last 10 s', () => {
    const window = new LossWindow();
    window.add(1_000, 3, 3);
    window.add(5_000, 2, 0);
    assert.deepEqual([window.lost(5_000), window.applied(5_000)], [5, 3]);
    assert.deepEqual([window.lost(11_100), window.applied(11_100)], [2, 0]);
    assert.equal(window.lost(15_100), 0);
  });

  it('takes back what returned inside the window, and nothing that fell out of it', () => {
    const window = new LossWindow();
    window.add(1_000, 2, 0);
    window.takeBack(4_000, 1_000);
    assert.equal(window.lost(4_000), 1);
    window.add(20_000, 1, 0);
    window.takeBack(20_100, 1_000);
    assert.equal(window.lost(20_100), 1);
    window.takeBack(20_200, 20_000);
    window.takeBack(20_200, 20_000);
    assert.equal(window.lost(20_200), 0, 'never below zero');
  });

  it('agrees with a plain list of losses to within one bucket, also after long silence and before time zero', () => {
    const random = seededRandom(3);
    const window = new LossWindow();
    const plain: { at: number; n: number }[] = [];
    let now = -50_000;
    for (let i = 0; i < 3_000; i++) {
      now += random() < 0.01 ? 40_000 : Math.floor(random() * 300);
      const n = Math.floor(random() * 4);
      window.add(now, n, 0);
      plain.push({ at: now, n });
      const sum = (width: number): number => plain.filter((one) => one.at > now - width).reduce((total, one) => total + one.n, 0);
      const got = window.lost(now);
      assert.ok(got >= sum(LOSS_WINDOW_MS - 50) && got <= sum(LOSS_WINDOW_MS + 1), `at ${now}: ${got}`);
    }
  });
});
