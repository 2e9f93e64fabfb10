// Where compiled code may be kept: what lies there is executed.
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { isOursAlone, useCompileCache } from './compile-cache.ts';

const root = mkdtempSync(join(tmpdir(), 'weir-compiled-'));
after(() => rmSync(root, { recursive: true }));
const uid = process.getuid?.() ?? 0;

test('a directory that is missing is made for us alone', () => {
  const path = join(root, 'a', 'b');
  assert.equal(isOursAlone(path, uid), true);
  assert.equal(statSync(path).mode & 0o777, 0o700);
});

test('a directory of another user, one that others may write, a link and a file are refused', () => {
  const open = join(root, 'open');
  assert.equal(isOursAlone(open, uid), true);
  assert.equal(isOursAlone(open, uid + 1), false);
  chmodSync(open, 0o777);
  assert.equal(isOursAlone(open, uid), false);
  symlinkSync(join(root, 'a'), join(root, 'link'));
  assert.equal(isOursAlone(join(root, 'link'), uid), false);
  writeFileSync(join(root, 'file'), '');
  assert.equal(isOursAlone(join(root, 'file'), uid), false);
});

test("Node's own variables win", () => {
  for (const name of ['NODE_COMPILE_CACHE', 'NODE_DISABLE_COMPILE_CACHE']) {
    useCompileCache(
      new Map([
        [name, '1'],
        ['XDG_CACHE_HOME', join(root, 'unused')],
      ]),
    )();
  }
  assert.throws(() => statSync(join(root, 'unused')));
});
