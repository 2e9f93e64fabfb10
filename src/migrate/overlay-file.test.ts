// The last overlay on the disk: what a sidecar reads by while the shared store is lost.
import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type Log, silentLog } from '../kernel/log.ts';
import type { OverlayEntry } from './overlay.ts';
import { OverlayFile } from './overlay-file.ts';

let directory = '';
let count = 0;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weir-overlay-'));
});
after(() => rm(directory, { recursive: true }));

const fresh = (): string => join(directory, `${++count}.json`);
const open = (path: string, log: Log = silentLog): OverlayFile => new OverlayFile({ path, uid: null, log });

function entry(id: string, weight: number, sticky: string | null = null): OverlayEntry {
  return { id, from: 'a', to: 'b', services: ['shop/*', 'x/__proto__'], phase: 'shift', weight, sticky };
}

describe('the overlay file', () => {
  it('gives back after a restart what was saved last, and is empty at first', async () => {
    const path = fresh();
    const file = open(path);
    assert.deepEqual(await file.load(), []);
    await file.save([entry('one', 5), entry('two', 10, 'x-user')]);
    assert.deepEqual(await open(path).load(), [entry('one', 5), entry('two', 10, 'x-user')]);
    await file.save([]);
    assert.deepEqual(await open(path).load(), []);
    assert.equal((await stat(path)).mode & 0o777, 0o600);
  });

  it('writes the newest of those that wait, and an equal list not at all', async () => {
    const path = fresh();
    const file = open(path);
    await Promise.all([1, 2, 3].map((weight) => file.save([entry('one', weight)])));
    assert.deepEqual(await open(path).load(), [entry('one', 3)]);
    const { mtimeNs, ino } = await stat(path, { bigint: true });
    await file.save([entry('one', 3)]);
    const after = await stat(path, { bigint: true });
    assert.deepEqual([after.mtimeNs, after.ino], [mtimeNs, ino]);
  });

  for (const [what, text, reason] of [
    ['of another version', '{"version":2,"overlays":[]}', /journal of version 2, this weir reads 1/],
    ['cut short', '{"version":1,"over', /no JSON/],
    [
      'with a phase that nobody knows',
      JSON.stringify({ version: 1, overlays: [{ ...entry('a', 1), phase: 'x' }] }),
      /overlays\[0\]\.phase/,
    ],
  ] as const) {
    it(`${what} is put aside and told; the start goes on`, async () => {
      const path = fresh();
      await writeFile(path, text);
      const told: string[] = [];
      const file = open(path, { ...silentLog, error: (_fields, message) => void told.push(message) });
      assert.deepEqual(await file.load(), []);
      assert.match(told.join(), reason);
      assert.equal(await readFile(`${path}.refused`, 'utf8'), text);
      await file.save([entry('one', 1)]);
      assert.deepEqual(await open(path).load(), [entry('one', 1)]);
    });
  }

  it('that cannot be written rejects, and the next save writes it', async () => {
    const folder = join(directory, `${++count}`);
    const path = join(folder, 'overlay.json');
    const file = open(path);
    await writeFile(folder, 'no directory');
    await assert.rejects(file.save([entry('one', 1)]));
    await rm(folder);
    await file.save([entry('one', 1)]);
    assert.deepEqual(await open(path).load(), [entry('one', 1)]);
    assert.deepEqual(await readdir(folder), ['overlay.json']);
  });
});
