// The ledger on the disk: what was saved comes back, a crash at any byte costs only what nobody was promised, damage is never read past.
import assert from 'node:assert/strict';
import { appendFile, copyFile, type FileHandle, mkdtemp, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { emptyPage, ledgerPage } from '../../test/support/migration-fixture.ts';
import { type Log, silentLog } from '../kernel/log.ts';
import { checksum, LedgerFile } from './ledger-file.ts';
import type { LedgerPage } from './migration.ts';

let directory = '';
let count = 0;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weir-ledger-'));
});
after(() => rm(directory, { recursive: true }));

const deps = (path: string, log: Log = silentLog) => ({ path, id: 'move', uid: null, log });
const fresh = (): string => join(directory, `${++count}.ledger`);

/** The pages of a file, or why they cannot be read. */
async function pagesIn(path: string, log?: Log): Promise<readonly LedgerPage[] | string> {
  const read = await LedgerFile.load(deps(path, log));
  if (!read.ok) return read.reason;
  const pages = [...read.value.pages().values()];
  await read.value.close();
  return pages;
}

async function written(path: string, ...saves: readonly (readonly LedgerPage[])[]): Promise<void> {
  const ledger = await LedgerFile.create(deps(path));
  for (const pages of saves) await ledger.save(pages);
  await ledger.close();
}

describe('a ledger file', () => {
  it('gives back the newest page of each service, none of those that were deleted, and goes on after each start', async () => {
    const path = fresh();
    await written(path, [ledgerPage('a/1', [1]), ledgerPage('a/2', [2])], [ledgerPage('a/1', [3])], [emptyPage('a/2')]);
    assert.deepEqual(await pagesIn(path), [ledgerPage('a/1', [3])]);
    const again = await LedgerFile.load(deps(path));
    assert.ok(again.ok);
    await again.value.save([ledgerPage('a/3', [4])]);
    await again.value.save([ledgerPage('a/1', [5])]);
    await again.value.close();
    assert.equal(canonical(await pagesIn(path)), canonical([ledgerPage('a/3', [4]), ledgerPage('a/1', [5])]));
    assert.equal((await stat(path)).mode & 0o777, 0o600);
  });

  it('is on the disk when save resolves, and saves of one turn share one append', async () => {
    const path = fresh();
    const ledger = await LedgerFile.create(deps(path));
    await Promise.all([1, 2, 3, 4].map((n) => ledger.save([ledgerPage(`a/${n}`, [n])])));
    assert.equal((await readFile(path, 'utf8')).split('\n').length, 1 + 4 + 1);
    await ledger.save([]);
    // The newest of one service in a batch is the one line.
    await Promise.all([ledger.save([ledgerPage('a/1', [7])]), ledger.save([ledgerPage('a/1', [8])])]);
    assert.equal((await readFile(path, 'utf8')).split('\n').length, 1 + 4 + 1 + 1);
    await ledger.close();
    await assert.rejects(ledger.save([ledgerPage('a/1', [9])]), /closed/);
    assert.equal((await pagesIn(path)).length, 4);
  });

  it('cut at every byte of an append, holds the pages from before or after it, and never others', async () => {
    const path = fresh();
    const copy = fresh();
    await written(path, [ledgerPage('a/1', [1, 2]), ledgerPage('größe/2', [3])]);
    const start = (await stat(path)).size;
    const states = [await pagesIn(path)];
    const ledger = await LedgerFile.load(deps(path));
    assert.ok(ledger.ok);
    // One append of three lines: the first write after a start replaces the file, so that the append is the second one.
    await ledger.value.save([ledgerPage('a/1', [1, 2])]);
    const from = (await stat(path)).size;
    assert.ok(from >= start);
    const appended = [ledgerPage('größe/2', [4]), emptyPage('a/1'), ledgerPage('a/3', [5])];
    await ledger.value.save(appended);
    await ledger.value.close();
    const whole = await readFile(path);
    for (const end of lineEnds(whole).filter((end) => end > from)) {
      await writeFile(copy, whole.subarray(0, end));
      states.push(await pagesIn(copy));
    }
    assert.equal(states.length, 4);
    const allowed = new Set(states.map((pages) => canonical(pages)));
    for (let size = whole.length; size >= from; size--) {
      await copyFile(path, copy);
      await truncate(copy, size);
      const found = await pagesIn(copy);
      assert.ok(typeof found !== 'string', `cut to ${size}: ${found}`);
      assert.ok(allowed.has(canonical(found)), `cut to ${size}`);
    }
  });

  it('cut inside its header, or empty, is damaged; a last line without its newline is left out and told', async () => {
    const path = fresh();
    const copy = fresh();
    await written(path, [ledgerPage('a/1', [1])]);
    const whole = await readFile(path);
    const [header = 0] = lineEnds(whole);
    for (let size = 0; size < header; size++) {
      await writeFile(copy, whole.subarray(0, size));
      assert.equal(await pagesIn(copy), `${copy}:1: no header`);
    }
    const told: string[] = [];
    const log: Log = { ...silentLog, warn: (fields, message) => void told.push(`${message} ${JSON.stringify(fields)}`) };
    await writeFile(copy, whole.subarray(0, whole.length - 1));
    assert.deepEqual(await pagesIn(copy, log), []);
    assert.equal(told.length, 1);
    assert.match(told[0] ?? '', /being appended.*"line":2/);
    assert.deepEqual(await pagesIn(copy), [], 'reading changes nothing');
  });

  it('appended to after a torn line, holds the new page and not the torn one', async () => {
    const path = fresh();
    await written(path, [ledgerPage('a/1', [1])]);
    await appendFile(path, '0123456789abcdef 2 {"version":1,"serv');
    const read = await LedgerFile.load(deps(path));
    assert.ok(read.ok);
    await read.value.save([ledgerPage('a/2', [2])]);
    await read.value.close();
    assert.deepEqual(await pagesIn(path), [ledgerPage('a/1', [1]), ledgerPage('a/2', [2])]);
  });

  it('with any byte of a whole line changed is damaged, with the line named, and is left as it is', async () => {
    const path = fresh();
    const copy = fresh();
    await written(path, [ledgerPage('a/1', [1])], [ledgerPage('a/2', [2])]);
    const whole = await readFile(path);
    // The last newline apart: without it the last line is a torn one.
    for (let at = 0; at < whole.length - 1; at++) {
      const bad = Buffer.from(whole);
      bad[at] = (bad[at] ?? 0) ^ 0x01;
      await writeFile(copy, bad);
      const found = await pagesIn(copy);
      assert.ok(typeof found === 'string' && found.startsWith(`${copy}:`), `byte ${at}: ${JSON.stringify(found)}`);
      assert.deepEqual(await readFile(copy), bad);
    }
  });

  it('with a line missing, doubled or moved is damaged', async () => {
    const path = fresh();
    await written(path, [ledgerPage('a/1', [1])], [ledgerPage('a/2', [2])], [ledgerPage('a/1', [3])]);
    const [header = '', one = '', two = '', three = ''] = (await readFile(path, 'utf8')).split('\n');
    const all = [header, one, two, three];
    const cases = [
      [header, two, three],
      [header, one, three],
      [header, one, one, two, three],
      [header, two, one, three],
      [one, two, three],
      [header, header, one, two, three],
      [header, one, '', two, three],
    ];
    for (const lines of cases) {
      await writeFile(path, `${lines.join('\n')}\n`);
      assert.match(
        String(await pagesIn(path)),
        /:\d: (no header|the line is damaged)/,
        `${lines.map((line) => all.indexOf(line))}`,
      );
    }
  });

  it('of another version or another migration is told so', async () => {
    const path = fresh();
    await written(path);
    assert.equal(
      String(await LedgerFile.load({ ...deps(path), id: 'other' }).then((read) => (read.ok ? '' : read.reason))),
      `${path}:1: the ledger of the migration move`,
    );
    const next = fresh();
    await writeFile(next, sealedHeader({ magic: 'weir-migration-ledger', version: 2, id: 'move' }));
    assert.equal(await pagesIn(next), `${next}:1: journal of version 2, this weir reads 1`);
    assert.match(String(await pagesIn(join(directory, 'none'))), /the file is missing/);
  });

  it('is written anew when it has grown, and stays below a bound', async () => {
    const path = fresh();
    const ledger = await LedgerFile.create(deps(path));
    const ports = Array.from({ length: 200 }, (_, n) => n + 1);
    let greatest = 0;
    for (let n = 0; n < 60; n++) {
      await ledger.save([ledgerPage('a/1', ports, { at: n })]);
      greatest = Math.max(greatest, (await stat(path)).size);
    }
    await ledger.close();
    const line = JSON.stringify(ledgerPage('a/1', ports)).length;
    assert.ok(60 * line > 2 * 1024 * 1024, 'the test writes more than the bound');
    assert.ok(greatest < 2 * line + 1024 * 1024 + 4_096, `${greatest} bytes`);
    assert.deepEqual(await pagesIn(path), [ledgerPage('a/1', ports, { at: 59 })]);
  });

  it('on a disk that was full half way through an append rejects that save, and the next one leaves no half line behind', async () => {
    const path = fresh();
    let room = Number.POSITIVE_INFINITY;
    const append = async (file: FileHandle, bytes: Uint8Array): Promise<void> => {
      await file.write(bytes.subarray(0, Math.min(bytes.length, room)));
      if (bytes.length > room) throw new Error('ENOSPC');
    };
    const ledger = await LedgerFile.create({ ...deps(path), append });
    await ledger.save([ledgerPage('a/1', [1])]);
    for (const bytes of [0, 10, 200]) {
      room = bytes;
      await assert.rejects(ledger.save([ledgerPage('a/2', [2])]), /ENOSPC/);
      assert.deepEqual(await pagesIn(path), [...ledger.pages().values()], 'what is durable is what is shown');
      room = Number.POSITIVE_INFINITY;
      await ledger.save([ledgerPage('a/3', [bytes + 1])]);
      assert.deepEqual(await pagesIn(path), [ledgerPage('a/1', [1]), ledgerPage('a/3', [bytes + 1])]);
    }
    await ledger.close();
  });

  it('that could not be written rejects the save, and the next one makes it whole again', async () => {
    const path = fresh();
    const ledger = await LedgerFile.create(deps(path));
    await ledger.save([ledgerPage('a/1', [1])]);
    await assert.rejects(ledger.save([ledgerPage('a/2', [2], { at: Number.NaN })]), RangeError);
    // The directory is gone: the append still goes to the open file, a replacement cannot be made.
    const huge = Array.from({ length: 4_000 }, (_, n) => n + 1);
    await rm(directory, { recursive: true });
    await writeFile(directory, 'no directory');
    await assert.rejects(ledger.save([ledgerPage('a/3', huge)]));
    assert.deepEqual([...ledger.pages().keys()], ['a/1'], 'what is not durable is not shown');
    await rm(directory);
    await ledger.save([ledgerPage('a/4', [4])]);
    await ledger.close();
    assert.deepEqual(await pagesIn(path), [ledgerPage('a/1', [1]), ledgerPage('a/4', [4])]);
  });
});

function lineEnds(bytes: Buffer): number[] {
  const ends: number[] = [];
  for (let at = bytes.indexOf(10); at >= 0; at = bytes.indexOf(10, at + 1)) ends.push(at + 1);
  return ends;
}

function canonical(pages: readonly LedgerPage[] | string): string {
  return typeof pages === 'string' ? pages : JSON.stringify(pages.toSorted((a, b) => (a.service < b.service ? -1 : 1)));
}

function sealedHeader(header: object): string {
  const body = `0 ${JSON.stringify(header)}`;
  return `${checksum(body)} ${body}\n`;
}
