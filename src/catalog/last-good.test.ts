// R11 and the faults C4 and C5: what is written comes back, what is damaged is found out and answered by what was before.
import assert from 'node:assert/strict';
import { chmod, mkdtemp, readdir, readFile, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { addresses, CatalogFixture, instance, source } from '../../test/support/catalog-fixture.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { silentLog } from '../kernel/log.ts';
import { seededRandom } from '../kernel/random.ts';
import { type LastGoodDisk, LastGoodFile, systemDisk } from './last-good.ts';
import { type LoadedLastGood, loadLastGood } from './last-good-load.ts';

const DAY = 86_400_000;
const directories: string[] = [];

async function temporary(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'weir-last-good-'));
  directories.push(directory);
  return directory;
}

after(() => Promise.all(directories.map((directory) => rm(directory, { recursive: true, force: true }))));

interface Run {
  readonly fixture: CatalogFixture;
  readonly file: LastGoodFile;
  readonly loaded: LoadedLastGood;
}

/** One life of a process over the directory. */
async function start(
  directory: string,
  options: { clock?: FakeClock; disk?: LastGoodDisk; ids?: string[]; maxBytes?: number } = {},
): Promise<Run> {
  const clock = options.clock ?? new FakeClock();
  const probe = new CatalogFixture({ clock });
  const loaded = await loadLastGood({
    directory,
    wallNow: clock.wallNow(),
    maxAge: DAY,
    uid: process.getuid?.() ?? null,
    metrics: probe.metrics,
    events: probe.events,
    ...(options.maxBytes === undefined ? {} : { maxBytes: options.maxBytes }),
  });
  const fixture = new CatalogFixture({
    clock,
    lastIndex: loaded.index,
    sources: (options.ids ?? ['a', 'b']).map((id) => source(id)),
  });
  fixture.catalog.restore(loaded.words);
  const { catalog, metrics } = fixture;
  const disk = options.disk === undefined ? {} : { disk: options.disk };
  const file = new LastGoodFile({ directory, catalog, clock, log: silentLog, metrics, ...disk }, loaded);
  for (const event of probe.events.recent(100)) fixture.events.emit(event.type, event.details);
  fixture.metrics
    .counter('weir_last_good_bad_records_total')
    .inc(probe.metrics.counter('weir_last_good_bad_records_total').value);
  return { fixture, file, loaded };
}

/** Time passes and the disk keeps up with it. */
async function advance(fixture: CatalogFixture, file: LastGoodFile, seconds: number): Promise<void> {
  for (let i = 0; i < seconds * 10; i++) {
    await fixture.clock.advance(100);
    await file.idle();
  }
}

function files(directory: string): Promise<string[]> {
  return readdir(directory).then((names) => names.sort());
}

describe('last-good file', () => {
  it('what sources said comes back stale, with its true age, fields, conflicts and holds', async () => {
    const directory = await temporary();
    const first = await start(directory);
    const metadata = new Map([
      ['zone', 'a'],
      ['__proto__', 'x'],
    ]);
    const full = instance('10.0.0.1:80', {
      weight: 7,
      health: 'unhealthy',
      isolated: true,
      protocol: 'grpc',
      version: '2',
      locality: { region: 'r', campus: 'c' },
      metadata,
    });
    first.fixture.say('a', 'game/lobby', [full, '10.0.0.2:81', '[2001:db8::1]:80']);
    first.fixture.say('b', 'game/lobby', [instance('10.0.0.1:80', { weight: 9 })]);
    for (let i = 0; i < 9; i++) first.fixture.say('a', `game/s${i}`, addresses(9, 50 + i));
    first.fixture.say('a', 'game/held', addresses(2, 9));
    first.fixture.say('a', 'game/held', []);
    first.fixture.say('a', 'game/gone', []);
    const before = first.fixture.catalog.get('game/lobby');
    await first.file.close();

    const clock = new FakeClock(5, first.fixture.clock.wallNow() + 60_000);
    const second = await start(directory, { clock });
    const after = second.fixture.catalog.get('game/lobby');
    assert.ok(before !== undefined && after !== undefined);
    assert.deepEqual(
      after.instances.map(({ registryHealth: _, ...rest }) => rest),
      before.instances.map(({ registryHealth: _, ...rest }) => rest),
    );
    assert.deepEqual(new Set(after.instances.map((one) => one.registryHealth)), new Set(['unknown']), 'stale words do not vouch');
    assert.deepEqual(
      second.fixture.catalog.serviceStates('game/lobby').map(({ source: id, state, ageMs, cause }) => [id, state, ageMs, cause]),
      [
        ['a', 'stale', 60_000, 'restored'],
        ['b', 'stale', 60_000, 'restored'],
      ],
    );
    assert.equal(second.fixture.heldIn('game/held'), 2);
    assert.equal(second.fixture.catalog.holds('game/held').length, 1);
    assert.equal(second.fixture.catalog.get('game/gone')?.instances.length, 0, 'known but empty');
    assert.ok(second.fixture.catalog.index > first.fixture.catalog.index);
    assert.equal(after.revision, second.fixture.catalog.index);
    assert.equal(second.fixture.catalog.sourceSummary('a')?.instances, 3 + 81 + 2);
  });

  it('a record older than lastGoodMaxAge is suspect until its source speaks; one that the source confirmed lately is not', async () => {
    const directory = await temporary();
    const first = await start(directory);
    first.fixture.say('a', 'game/old', addresses(2));
    first.fixture.say('b', 'game/fresh', addresses(2, 1));
    await first.file.flush();
    await first.fixture.clock.advance(2 * DAY);
    first.fixture.catalog.unchanged('b', { namespace: 'game', name: 'fresh' });
    first.fixture.lose('a');
    await first.file.close();
    const clock = new FakeClock(5, first.fixture.clock.wallNow());
    const { fixture } = await start(directory, { clock });
    const suspects = (service: string): (boolean | undefined)[] =>
      fixture.catalog.get(service)?.instances.map((one) => one.suspect) ?? [];
    assert.deepEqual(
      [suspects('game/old'), suspects('game/fresh')],
      [
        [true, true],
        [false, false],
      ],
    );
    fixture.say('a', 'game/old', addresses(2));
    assert.deepEqual(suspects('game/old'), [false, false]);
  });

  it('the first answer after a restart is judged against what the disk knew: an empty one removes nothing', async () => {
    const directory = await temporary();
    const first = await start(directory);
    for (let i = 0; i < 5; i++) first.fixture.say('a', `game/s${i}`, addresses(4, i));
    await first.file.close();
    const { fixture } = await start(directory);
    for (let i = 0; i < 5; i++) fixture.absent('a', `game/s${i}`);
    for (let i = 0; i < 5; i++) assert.equal(fixture.heldIn(`game/s${i}`), 4);
  });

  it('a change of a restored service that nobody has read yet takes a new index and is told; an equal answer is not', async () => {
    const directory = await temporary();
    const first = await start(directory);
    first.fixture.say('a', 'game/s', addresses(4));
    first.fixture.say('a', 'game/t', addresses(4, 1));
    await first.file.close();
    const { fixture } = await start(directory);
    const { index } = fixture.catalog;
    fixture.say('a', 'game/s', addresses(5));
    fixture.say('a', 'game/t', addresses(4, 1));
    await fixture.clock.advance(1_000);
    assert.deepEqual(
      fixture.views.map((one) => [one.service, one.view?.instances.length, one.view?.revision]),
      [['game/s', 5, index + 1]],
    );
    assert.equal(fixture.catalog.get('game/t')?.revision, index);
  });

  it('changes are written at most once a second, each time only what changed', async () => {
    const directory = await temporary();
    const appended: number[] = [];
    async function* counted(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
      for await (const chunk of chunks) {
        appended.push(Buffer.from(chunk).toString('latin1').split('WLG\u0001').length - 1);
        yield chunk;
      }
    }
    const disk: LastGoodDisk = {
      ...systemDisk,
      append: (path, size, chunks) => {
        return systemDisk.append(path, size, counted(chunks));
      },
    };
    const { fixture, file } = await start(directory, { disk });
    for (let i = 0; i < 20; i++) fixture.say('a', `game/s${i}`, addresses(3, i));
    await file.flush();
    for (let round = 0; round < 50; round++) {
      fixture.say('a', 'game/s0', [instance('10.0.0.1:80', { weight: round }), ...addresses(2, 0, 2)]);
      await fixture.clock.advance(100);
      await file.idle();
    }
    await fixture.clock.advance(1_000);
    await file.idle();
    assert.ok(appended.length >= 4 && appended.length <= 7, `${appended.length} writes in 5 s`);
    assert.deepEqual(new Set(appended), new Set([2]), 'one service and the contacts each');
    const { fixture: next } = await start(directory);
    assert.equal(next.catalog.get('game/s0')?.instances[0]?.weight, 49);
  });

  it('a file that is mostly dead is replaced; two generations stay; a removed service stays removed', async () => {
    const directory = await temporary();
    const { fixture, file } = await start(directory);
    const big = new Map(Array.from({ length: 20 }, (_, i) => [`k${i}`, 'v'.repeat(500)] as const));
    fixture.say('a', 'game/dead', addresses(1, 7));
    for (let round = 0; round < 80; round++) {
      fixture.say('a', 'game/s', [instance('10.0.0.1:80', { metadata: new Map([...big, ['round', String(round)]]) })]);
      await file.flush();
    }
    fixture.absent('a', 'game/dead');
    fixture.catalog.releaseHolds();
    await file.close();
    const names = await files(directory);
    assert.equal(names.length, 2, names.join());
    assert.ok(!names.includes('last-good.1'), 'older generations are gone');
    const { fixture: next } = await start(directory);
    assert.equal(next.catalog.get('game/s')?.instances[0]?.metadata.get('round'), '79');
    assert.equal(next.catalog.get('game/dead'), undefined);
  });

  it('a full disk backs off, leaves the old file as it was, is counted, and is used again within 5 s', async () => {
    const directory = await temporary();
    let full = false;
    let tries = 0;
    const refuse = async (): Promise<void> => {
      tries++;
      throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
    };
    const disk: LastGoodDisk = {
      ...systemDisk,
      append: async (path, size, chunks) => {
        if (!full) return systemDisk.append(path, size, chunks);
        // As a real disk does: part of the bytes, then the error.
        for await (const chunk of chunks) await writeFile(path, chunk.subarray(0, 7), { flag: 'a' });
        return refuse();
      },
      replace: (path, chunks) => (full ? refuse() : systemDisk.replace(path, chunks)),
    };
    const { fixture, file } = await start(directory, { disk });
    fixture.say('a', 'game/s', addresses(1));
    await file.flush();
    full = true;
    fixture.say('a', 'game/s', addresses(2));
    await advance(fixture, file, 60);
    assert.ok(tries >= 10 && tries <= 25, `${tries} tries in a minute`);
    assert.equal(fixture.metrics.counter('weir_last_good_write_errors_total').value, tries);
    assert.equal(fixture.size('game/s'), 2, 'serving goes on');
    const meanwhile = await start(directory);
    assert.deepEqual(meanwhile.fixture.view('game/s'), addresses(1), 'a crash now finds the old words');
    full = false;
    await advance(fixture, file, 5);
    assert.equal(file.waiting, 0);
    assert.deepEqual((await start(directory)).fixture.view('game/s'), addresses(2));
  });

  it('files of another owner kind, symlinks, huge, empty and unknown files are refused and told', async () => {
    const make = async (): Promise<string> => {
      const directory = await temporary();
      const run = await start(directory);
      run.fixture.say('a', 'game/s', addresses(2));
      await run.file.close();
      return directory;
    };
    const spoil: Record<string, (path: string) => Promise<unknown>> = {
      empty: (path) => writeFile(path, ''),
      text: (path) => writeFile(path, 'hello\n'.repeat(100)),
      schema: async (path) => {
        const { frame } = await import('./last-good-format.ts');
        const header = JSON.stringify({ format: 'weir-last-good', schema: 2, epoch: 1, writtenAt: 1, index: 1 });
        await writeFile(path, Buffer.concat([frame('H', header), frame('B', '')]));
      },
      symlink: async (path) => {
        await rm(path);
        await symlink('/etc/hostname', path);
      },
      directory: async (path) => {
        await rm(path);
        await (await import('node:fs/promises')).mkdir(path);
      },
    };
    for (const [what, doIt] of Object.entries(spoil)) {
      const directory = await make();
      await doIt(join(directory, 'last-good.1'));
      const run = await start(directory);
      assert.deepEqual([run.loaded.services, run.loaded.append], [0, null], what);
      assert.ok(run.fixture.eventTypes().includes('last_good_fallback'), what);
      run.fixture.say('a', 'game/s', addresses(3));
      await run.file.close();
      assert.deepEqual((await start(directory)).fixture.view('game/s'), addresses(3), `${what}: writing goes on`);
    }
    const directory = await make();
    assert.equal((await start(directory, { maxBytes: 10 })).loaded.services, 0, 'over the cap');
  });

  it('holds nothing of sources that are no longer configured, and no file is readable by others', async () => {
    const directory = await temporary();
    const run = await start(directory);
    run.fixture.say('a', 'game/s', addresses(2));
    await run.file.close();
    const mode = (await (await import('node:fs/promises')).stat(join(directory, 'last-good.1'))).mode & 0o777;
    assert.equal(mode, 0o600);
    assert.equal((await start(directory, { ids: ['b'] })).fixture.catalog.size, 0);
    await chmod(directory, 0o700);
  });

  it('an index that the file knows is never given out again, even when the wall clock went back by a year', async () => {
    const directory = await temporary();
    const run = await start(directory);
    run.fixture.say('a', 'game/s', addresses(2));
    run.fixture.catalog.get('game/s');
    await run.file.close();
    const clock = new FakeClock(5, run.fixture.clock.wallNow() - 365 * DAY);
    const next = await start(directory, { clock });
    assert.ok(next.fixture.catalog.index > run.fixture.catalog.index);
    assert.equal(next.fixture.catalog.serviceStates('game/s')[0]?.ageMs, 0, 'no word is of the future');
  });
});

describe('last-good file, damaged', () => {
  const services = Array.from({ length: 40 }, (_, i) => `game/s${i}`);

  /** Two generations: the older knows every service with 3 instances, the newer with 4, five of them appended later. */
  async function twoGenerations(): Promise<string> {
    const directory = await temporary();
    const run = await start(directory);
    for (const [i, name] of services.entries()) run.fixture.say('a', name, addresses(3, i));
    await run.file.close();
    // A whole generation that cannot be continued makes the next life write a new one.
    const again = await start(directory);
    const forced = new LastGoodFile(
      { directory, catalog: again.fixture.catalog, clock: again.fixture.clock, log: silentLog, metrics: again.fixture.metrics },
      { newest: again.loaded.newest, append: null },
    );
    for (const [i, name] of services.entries()) if (i >= 5) again.fixture.say('a', name, addresses(4, i));
    await forced.flush();
    for (const [i, name] of services.entries()) if (i < 5) again.fixture.say('a', name, addresses(4, i));
    await forced.close();
    return directory;
  }

  it('500 mutations of the newest generation: all are found out, what was before is used, nothing crashes', async () => {
    const directory = await twoGenerations();
    assert.deepEqual(await files(directory), ['last-good.1', 'last-good.2']);
    const path = join(directory, 'last-good.2');
    const good = await readFile(path);
    const random = seededRandom(7);
    let cutAtEnd = 0;
    for (let round = 0; round < 500; round++) {
      const at = Math.floor(random() * good.length);
      const damaged = Buffer.from(good);
      if (round % 4 === 0) {
        await writeFile(path, damaged.subarray(0, at));
      } else if (round % 4 === 1) {
        const end = Math.min(good.length, at + 1 + Math.floor(random() * 64));
        for (let i = at; i < end; i++) damaged[i] = Math.floor(random() * 256);
        if (damaged.equals(good)) damaged[at] = (damaged[at] ?? 0) ^ 1;
        await writeFile(path, damaged);
      } else {
        damaged[at] = (damaged[at] ?? 0) ^ (1 << Math.floor(random() * 8));
        await writeFile(path, damaged);
      }
      const { fixture, loaded } = await start(directory);
      const detected = fixture.metrics.counter('weir_last_good_bad_records_total').value > 0;
      // A cut exactly between two appended frames is the file of a moment before: nothing is wrong with it.
      if (!detected && round % 4 === 0) cutAtEnd++;
      else assert.ok(detected, `round ${round} at ${at} was not found out`);
      assert.equal(loaded.services, 40, `round ${round}`);
      for (const [i, name] of services.entries()) {
        const size = fixture.size(name);
        assert.ok(size === 3 || size === 4, `round ${round}: ${name} has ${size}`);
        const all = addresses(size, i);
        assert.deepEqual(new Set(fixture.view(name)), new Set(all), `round ${round}: ${name}`);
      }
      if (detected) assert.equal(loaded.append, null, 'a damaged generation is not continued');
    }
    assert.ok(cutAtEnd <= 5, `${cutAtEnd}`);
  });

  it('a service that the newer generation says is gone does not come back from the older one', async () => {
    const directory = await twoGenerations();
    const run = await start(directory);
    run.fixture.absent('a', 'game/s7');
    run.fixture.catalog.releaseHolds();
    await run.file.close();
    const path = join(directory, 'last-good.2');
    const bytes = await readFile(path);
    const middle = bytes.indexOf('"game/s20"');
    bytes[middle + 2] = 0;
    await writeFile(path, bytes);
    const { fixture, loaded } = await start(directory);
    assert.equal(loaded.append, null, 'the damage was found');
    assert.deepEqual([fixture.catalog.get('game/s7'), fixture.size('game/s20'), fixture.size('game/s21')], [undefined, 3, 4]);
  });

  it('both generations damaged at random: no crash, no wrong address, and what is readable of either is used', async () => {
    const directory = await twoGenerations();
    const paths = ['last-good.1', 'last-good.2'].map((name) => join(directory, name));
    const good = await Promise.all(paths.map((path) => readFile(path)));
    const random = seededRandom(11);
    for (let round = 0; round < 60; round++) {
      for (const [n, path] of paths.entries()) {
        const damaged = Buffer.from(good[n] ?? Buffer.alloc(0));
        for (let k = 0; k < 20; k++) damaged[Math.floor(random() * damaged.length)] = Math.floor(random() * 256);
        await writeFile(path, damaged);
        if (round % 10 === 0) await truncate(path, Math.floor(random() * damaged.length));
      }
      const { fixture } = await start(directory);
      assert.ok(fixture.metrics.counter('weir_last_good_bad_records_total').value > 0);
      for (const [i, name] of services.entries()) {
        const allowed = new Set(addresses(4, i));
        for (const address of fixture.view(name)) assert.ok(allowed.has(address), `round ${round}: ${name} ${address}`);
      }
    }
  });

  it('bytes made of nothing but frame starts do not make loading slow', async () => {
    const directory = await temporary();
    const run = await start(directory);
    run.fixture.say('a', 'game/s', addresses(1));
    await run.file.close();
    const path = join(directory, 'last-good.1');
    const good = await readFile(path);
    await writeFile(path, Buffer.concat([good, Buffer.from('WLG\u0001\u00ff\u00ff\u0000\u0000'.repeat(500_000), 'latin1')]));
    const begin = performance.now();
    const { fixture } = await start(directory);
    assert.ok(performance.now() - begin < 2_000);
    assert.deepEqual(fixture.view('game/s'), addresses(1));
  });
});
