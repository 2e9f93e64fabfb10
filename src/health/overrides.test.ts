// Operator's overrides: at once, with an end on the monotonic clock, kept over a restart, never trusted from a bad file.
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { WeirError } from '../kernel/errors.ts';
import { silentLog } from '../kernel/log.ts';
import { Overrides } from './overrides.ts';

const made: string[] = [];
after(() => Promise.all(made.map((directory) => rm(directory, { recursive: true, force: true }))));

async function file(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'weir-overrides-'));
  made.push(directory);
  return join(directory, 'overrides.json');
}

function open(path: string | null, clock = new FakeClock()): Overrides {
  return new Overrides({ clock, log: silentLog, path, uid: process.getuid?.() ?? null });
}

describe('an override', () => {
  it('counts at once, for its service and address alone, and tells its listeners', async () => {
    const overrides = open(null);
    const told: string[] = [];
    overrides.subscribe((service) => told.push(service));
    const written = overrides.isolate('a/b', '10.0.0.1', 80, 60_000);
    assert.equal(overrides.isIsolated('a/b', '10.0.0.1', 80), true);
    assert.equal(overrides.isIsolated('a/b', '10.0.0.1', 81), false);
    assert.equal(overrides.isIsolated('a/c', '10.0.0.1', 80), false);
    assert.deepEqual(await written, { service: 'a/b', host: '10.0.0.1', port: 80, isolated: true, until: 1_700_000_060_000 });
    assert.deepEqual(told, ['a/b']);
    await overrides.close();
  });

  it('ends by itself, whatever the wall clock does', async () => {
    const clock = new FakeClock();
    const overrides = open(null, clock);
    const told: string[] = [];
    await overrides.isolate('a/b', '10.0.0.1', 80, 60_000);
    await overrides.isolate('a/b', '10.0.0.2', 80, 120_000);
    overrides.subscribe((service) => told.push(service));
    clock.jumpWall(86_400_000);
    await clock.advance(59_999);
    assert.equal(overrides.isIsolated('a/b', '10.0.0.1', 80), true);
    clock.jumpWall(-2 * 86_400_000);
    await clock.advance(2);
    assert.equal(overrides.isIsolated('a/b', '10.0.0.1', 80), false);
    assert.equal(overrides.isIsolated('a/b', '10.0.0.2', 80), true);
    assert.deepEqual(told, ['a/b']);
    await clock.advance(60_000);
    assert.deepEqual([overrides.list(), overrides.has('a/b'), clock.pending], [[], false, 0]);
  });

  it('is replaced by a later one of the same address, and ended by hand once', async () => {
    const clock = new FakeClock();
    const overrides = open(null, clock);
    await overrides.isolate('a/b', '10.0.0.1', 80, 60_000);
    await overrides.isolate('a/b', '10.0.0.1', 80, 1_000);
    assert.equal(overrides.list().length, 1);
    await clock.advance(1_001);
    assert.equal(overrides.isIsolated('a/b', '10.0.0.1', 80), false);
    await overrides.isolate('a/b', '10.0.0.1', 80, 1_000);
    assert.equal(await overrides.clear('a/b', '10.0.0.1', 80), true);
    assert.equal(await overrides.clear('a/b', '10.0.0.1', 80), false);
  });

  it('lasts at most 24 hours', async () => {
    const overrides = open(null);
    for (const ms of [0, -1, Number.NaN, 86_400_001]) {
      await assert.rejects(
        overrides.isolate('a/b', '10.0.0.1', 80, ms),
        (thrown) => thrown instanceof WeirError && thrown.code === 'BAD_REQUEST',
      );
    }
    assert.deepEqual(overrides.list(), []);
  });

  it('is taken up after a restart with the time that is left, and one that ended meanwhile is not', async () => {
    const path = await file();
    const before = open(path);
    await before.isolate('a/b', '10.0.0.1', 80, 60_000);
    await before.isolate('a/b', 'fe80::1', 80, 10_000);
    await before.close();
    const clock = new FakeClock(5, 1_700_000_020_000);
    const overrides = open(path, clock);
    await overrides.load();
    assert.deepEqual(
      overrides.list().map(({ host }) => host),
      ['10.0.0.1'],
    );
    await clock.advance(39_999);
    assert.equal(overrides.isIsolated('a/b', '10.0.0.1', 80), true);
    await clock.advance(2);
    assert.equal(overrides.isIsolated('a/b', '10.0.0.1', 80), false);
    await overrides.close();
    assert.deepEqual(JSON.parse(await readFile(path, 'utf8')), { version: 1, overrides: [] });
  });

  it('never lasts more than 24 hours after a restart with a clock that went back', async () => {
    const path = await file();
    const before = open(path);
    await before.isolate('a/b', '10.0.0.1', 80, 60_000);
    await before.close();
    const clock = new FakeClock(0, 1_000_000_000_000);
    const overrides = open(path, clock);
    await overrides.load();
    await clock.advance(86_400_001);
    assert.deepEqual(overrides.list(), []);
    await overrides.close();
  });

  it('ten at once end in a file with all ten', async () => {
    const path = await file();
    const before = open(path);
    await Promise.all(Array.from({ length: 10 }, (_, i) => before.isolate('a/b', `10.0.0.${i}`, 80, 60_000)));
    await before.close();
    const overrides = open(path);
    await overrides.load();
    assert.equal(overrides.list().length, 10);
    await overrides.close();
  });

  for (const [what, content] of [
    ['broken JSON', '{"version":1,"overr'],
    ['another version', '{"version":2,"overrides":[]}'],
    ['wrong types', '{"version":1,"overrides":[{"service":"a/b","host":"10.0.0.1","port":"80","until":9e15}]}'],
    ['an address that is none', '{"version":1,"overrides":[{"service":"a/b","host":"0x7f.1","port":80,"until":9e15}]}'],
    ['a service that is none', '{"version":1,"overrides":[{"service":"b","host":"10.0.0.1","port":80,"until":9e15}]}'],
    ['nothing', ''],
  ] as const) {
    it(`file with ${what} isolates nobody and breaks nothing`, async () => {
      const path = await file();
      await writeFile(path, content);
      const overrides = open(path);
      await overrides.load();
      assert.deepEqual(overrides.list(), []);
      await overrides.isolate('a/b', '10.0.0.1', 80, 1_000);
      await overrides.close();
    });
  }

  it('file that is a symbolic link is not read', async () => {
    const [path, other] = [await file(), await file()];
    await writeFile(other, '{"version":1,"overrides":[{"service":"a/b","host":"10.0.0.1","port":80,"until":9e15}]}');
    await symlink(other, path);
    const overrides = open(path);
    await overrides.load();
    assert.deepEqual(overrides.list(), []);
  });

  it('that cannot be written counts all the same, and the caller learns of it', async () => {
    const blocked = await file();
    await writeFile(blocked, 'a file where a directory is needed');
    const overrides = open(join(blocked, 'overrides.json'));
    await assert.rejects(overrides.isolate('a/b', '10.0.0.1', 80, 1_000));
    assert.equal(overrides.isIsolated('a/b', '10.0.0.1', 80), true);
    await overrides.close();
  });
});
