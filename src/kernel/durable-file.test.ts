import assert from 'node:assert/strict';
import { chmod, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { lockDirectory, readOwnFile, replaceFile } from './durable-file.ts';
import { WeirError } from './errors.ts';

let directory = '';
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weir-durable-'));
});
after(() => rm(directory, { recursive: true }));

test('a replacement is whole, private, and leaves no temporary file', async () => {
  const path = join(directory, 'deep', 'file');
  await replaceFile(path, [Buffer.from('old')]);
  await replaceFile(path, [Buffer.from('new '), Buffer.from('text')]);
  assert.equal(await readFile(path, 'utf8'), 'new text');
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  assert.deepEqual(await readdir(join(directory, 'deep')), ['file']);
});

test('a replacement that fails in the middle leaves the old file and nothing else', async () => {
  const path = join(directory, 'kept');
  await replaceFile(path, [Buffer.from('old')]);
  function* broken(): Generator<Uint8Array> {
    yield Buffer.from('half');
    throw new Error('disk');
  }
  await assert.rejects(replaceFile(path, broken()), /disk/);
  assert.equal(await readFile(path, 'utf8'), 'old');
  assert.deepEqual(
    (await readdir(directory)).filter((name) => name.includes('tmp')),
    [],
  );
});

test('only a plain, small file of our own is read', async () => {
  const path = join(directory, 'plain');
  await writeFile(path, 'text');
  const uid = process.getuid?.() ?? null;
  assert.equal(String(await readOwnFile(path, 100, uid)), 'text');
  assert.equal(await readOwnFile(path, 3, uid), 'tooBig');
  assert.equal(await readOwnFile(join(directory, 'nothing'), 100, uid), 'missing');
  assert.equal(await readOwnFile(directory, 100, uid), 'notAFile');
  await symlink(path, join(directory, 'link'));
  assert.equal(await readOwnFile(join(directory, 'link'), 100, uid), 'symlink');
  if (uid === 0) assert.equal(String(await readOwnFile(path, 100, 12_345)), 'text', 'root may have written it');
  await chmod(path, 0o600);
});

test('a state directory has one owner, and a dead owner is replaced', async () => {
  const state = join(directory, 'state');
  const lock = await lockDirectory(state, { pid: 100, birth: 'a' }, ({ pid }) => pid === 100);
  await assert.rejects(
    lockDirectory(state, { pid: 200, birth: 'b' }, ({ pid }) => pid === 100),
    (thrown: unknown) => thrown instanceof WeirError && thrown.code === 'STATE_LOCKED',
  );
  const taken = await lockDirectory(state, { pid: 200, birth: 'b' }, () => false);
  await taken.release();
  await lock.release();
  assert.deepEqual(await readdir(state), []);
});

test('a lock that a crash left behind is asked about with the life that wrote it, not with its pid alone', async () => {
  const state = join(directory, 'crashed');
  await lockDirectory(state, { pid: 100, birth: 'boot-1 5' }, () => false);
  const asked: string[] = [];
  const lock = await lockDirectory(state, { pid: 200, birth: 'boot-2 9' }, ({ pid, birth }) => {
    asked.push(`${pid} ${birth}`);
    return false;
  });
  assert.deepEqual(asked, ['100 boot-1 5']);
  await lock.release();
});
