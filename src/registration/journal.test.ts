import assert from 'node:assert/strict';
import { appendFile, mkdtemp, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { silentLog } from '../kernel/log.ts';
import { Journal, type JournalEntry } from './journal.ts';

let directory = '';
let count = 0;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weir-journal-'));
});
after(() => rm(directory, { recursive: true }));

const deps = (path: string) => ({ path, uid: null, log: silentLog });
const fresh = (): string => join(directory, `journal-${++count}`);

function entry(id: string, weight = 100): JournalEntry {
  return {
    service: { namespace: 'ns', name: 'a' },
    id,
    declared: false,
    leaving: false,
    healthy: null,
    host: '10.0.0.1',
    port: 80,
    weight,
    metadata: [['__proto__', 'größe']],
    sources: null,
    ttl: 15_000,
    healthCheck: null,
    onUnhealthy: 'unhealthy',
    targets: [],
  };
}

const keyOf = (id: string): string => `ns/a\0${id}`;

async function written(path: string, entries: readonly JournalEntry[]): Promise<void> {
  const { journal } = await Journal.open(deps(path));
  for (const one of entries) await journal.write(keyOf(one.id), one);
  await journal.close();
}

describe('registration journal', () => {
  it('gives back the newest state of each registration, and nothing of those that are gone', async () => {
    const path = fresh();
    const { journal } = await Journal.open(deps(path));
    await journal.write(keyOf('a'), entry('a'));
    await journal.write(keyOf('b'), entry('b'));
    await journal.write(keyOf('a'), entry('a', 7));
    await journal.write(keyOf('b'), null);
    await journal.close();
    for (let start = 0; start < 2; start++) {
      const again = await Journal.open(deps(path));
      assert.deepEqual(again.entries, [entry('a', 7)]);
      await again.journal.close();
    }
    assert.equal((await stat(path)).mode & 0o777, 0o600);
  });

  it('is on the disk when write resolves, and unchanged state is not written', async () => {
    const path = fresh();
    const { journal } = await Journal.open(deps(path));
    await journal.write(keyOf('a'), entry('a'));
    const size = (await stat(path)).size;
    assert.ok((await readFile(path, 'utf8')).includes('"id":"a"'));
    await journal.write(keyOf('a'), entry('a'));
    assert.equal((await stat(path)).size, size);
    await journal.close();
  });

  it('cut anywhere, it never throws and loses at most the line that was cut', async () => {
    const path = fresh();
    await written(
      path,
      ['a', 'b', 'c'].map((id) => entry(id)),
    );
    const whole = await readFile(path);
    const ends = [...whole.entries()].filter(([, byte]) => byte === 0x0a).map(([at]) => at);
    for (let length = 0; length <= whole.length; length += 7) {
      const cut = fresh();
      await writeFile(cut, whole.subarray(0, length));
      const { journal, entries } = await Journal.open(deps(cut));
      const complete = ends.filter((end) => end <= length).length - 1;
      assert.equal(entries.length, Math.max(0, complete), `cut at ${length}`);
      await journal.close();
    }
  });

  it('a flipped byte loses that line alone', async () => {
    const path = fresh();
    await written(
      path,
      ['a', 'b', 'c'].map((id) => entry(id)),
    );
    const bytes = await readFile(path);
    const second = bytes.indexOf('"id":"b"');
    bytes[second + 6] = 0x7a;
    await writeFile(path, bytes);
    const { journal, entries } = await Journal.open(deps(path));
    assert.deepEqual(
      entries.map(({ id }) => id),
      ['a', 'c'],
    );
    assert.equal(journal.fault, null);
    await journal.close();
  });

  it('a line added without a checksum, or of another shape, is not believed', async () => {
    const path = fresh();
    await written(path, [entry('a')]);
    await appendFile(path, `${JSON.stringify(entry('evil'))}\n0123456789abcdef ${JSON.stringify(entry('evil2'))}\n`);
    const { journal, entries } = await Journal.open(deps(path));
    assert.deepEqual(
      entries.map(({ id }) => id),
      ['a'],
    );
    await journal.close();
  });

  it('another version, garbage and a symlink are put aside, said clearly, and never overwritten', async () => {
    const { createHash } = await import('node:crypto');
    const header = JSON.stringify({ magic: 'weir-registrations', version: 2 });
    const sum = createHash('sha256').update(header).digest('hex').slice(0, 16);
    for (const [content, words] of [
      [`${sum} ${header}\nrest\n`, /has version 2, this weir reads 1/],
      ['garbage', /no readable header/],
    ] as const) {
      const path = fresh();
      await writeFile(path, content);
      const { journal, entries } = await Journal.open(deps(path));
      assert.deepEqual(entries, []);
      assert.match(journal.fault ?? '', words);
      assert.equal(await readFile(`${path}.refused`, 'utf8'), content);
      await journal.write(keyOf('a'), entry('a'));
      await journal.close();
    }
    const target = fresh();
    await written(target, [entry('a')]);
    const link = fresh();
    await symlink(target, link);
    const { journal, entries } = await Journal.open(deps(link));
    assert.deepEqual(entries, []);
    assert.match(journal.fault ?? '', /symlink/);
    await journal.close();
    assert.ok((await readFile(target, 'utf8')).includes('"id":"a"'));
  });

  it('does not grow without bound', async () => {
    const path = fresh();
    const { journal } = await Journal.open(deps(path));
    let most = 0;
    for (let n = 0; n < 2_500; n += 50) {
      await Promise.all(Array.from({ length: 50 }, (_, m) => journal.write(keyOf('a'), entry('a', n + m))));
      most = Math.max(most, (await stat(path)).size);
    }
    await journal.close();
    const line = Buffer.byteLength(JSON.stringify(entry('a', 1_000))) + 18;
    assert.ok(most < 1_100 * line, `${most} bytes`);
    const again = await Journal.open(deps(path));
    assert.deepEqual(again.entries, [entry('a', 2_499)]);
    await again.journal.close();
  });

  it('what could not be written is written with the next change', async () => {
    const path = join(directory, `dir-${++count}`, 'journal');
    const { journal } = await Journal.open(deps(path));
    await rm(join(path, '..'), { recursive: true });
    await writeFile(join(path, '..'), 'a file in the way');
    // The open file takes appends although it has no name any more: force a replacement.
    const failing = Promise.all(Array.from({ length: 1_100 }, (_, n) => journal.write(keyOf('a'), entry('a', n))));
    await assert.rejects(failing);
    await rm(join(path, '..'));
    await journal.write(keyOf('b'), entry('b'));
    await journal.close();
    const again = await Journal.open(deps(path));
    assert.deepEqual(again.entries, [entry('a', 1_099), entry('b')]);
    await again.journal.close();
  });
});
