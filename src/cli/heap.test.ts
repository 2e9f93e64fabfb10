// When the shrinker asks for a collection that gives memory back, and when it lets go.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Shrinker } from './heap.ts';

const MIB = 1024 * 1024;
const CALM = 8;

function rig() {
  const asked: boolean[] = [];
  const shrinker = new Shrinker((on) => void asked.push(on));
  const look = (rss: number, times = 1, heapUsed = 100): void => {
    for (let n = 0; n < times; n++) shrinker.look({ rss: rss * MIB, heapUsed: heapUsed * MIB });
  };
  return { asked, look };
}

describe('Shrinker', () => {
  it('asks once after the start, when the process has stopped growing', () => {
    const { asked, look } = rig();
    for (let rss = 100; rss < 130; rss++) look(rss);
    assert.deepEqual(asked, []);
    look(129, CALM);
    assert.deepEqual(asked, [true]);
    look(129, 5);
    assert.deepEqual(asked, [true]);
    look(120);
    assert.deepEqual(asked, [true, false]);
    look(120, 10 * CALM);
    assert.deepEqual(asked, [true, false]);
  });

  it('what garbage between two collections explains is left alone; a burst is not', () => {
    const { asked, look } = rig();
    look(250, CALM + 1);
    look(200);
    assert.deepEqual(asked, [true, false]);
    // 30 % of 100 MiB of objects, and 16 MiB of young ones.
    look(246, 10 * CALM);
    assert.equal(asked.length, 2);
    look(247, CALM);
    assert.equal(asked.length, 2);
    look(247);
    assert.deepEqual(asked, [true, false, true]);
  });

  it('never during a burst', () => {
    const { asked, look } = rig();
    look(100, CALM + 1);
    look(90);
    for (let rss = 200; rss < 400; rss += 2) look(rss, CALM - 1);
    assert.deepEqual(asked, [true, false]);
  });

  it('a process that has nothing to give back is not asked again for what it has', () => {
    const { asked, look } = rig();
    look(300, CALM + 1);
    look(299, 119);
    assert.deepEqual(asked, [true]);
    look(299);
    assert.deepEqual(asked, [true, false]);
    look(340, 20 * CALM);
    assert.equal(asked.length, 2);
  });
});
