import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { messageOf, WeirError } from './errors.ts';
import { createLog, silentLog } from './log.ts';

test('lines are JSON, below the level nothing is written, and secrets are hidden', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'weir-log-'));
  const path = join(directory, 'log');
  const { log, flush } = createLog({ level: 'info', dest: path, sync: true });
  log.debug({}, 'unseen');
  log.child({ module: 'x' }).warn({ password: 'hunter2', auth: { token: 'hunter2' }, name: 'a\nb' }, 'seen');
  flush();
  const text = await readFile(path, 'utf8');
  assert.ok(!text.includes('hunter2'));
  assert.ok(!text.includes('unseen'));
  const line: unknown = JSON.parse(text);
  assert.equal(Reflect.get(Object(line), 'name'), 'a\nb');
  assert.equal(text.trim().split('\n').length, 1);
  silentLog.child({}).error({}, 'nowhere');
  await rm(directory, { recursive: true });
});

test('errors carry a stable code, and anything thrown has a message', () => {
  const error = new WeirError('CODE', 'words', { details: { a: 1 }, cause: new Error('inner') });
  assert.equal(error.code, 'CODE');
  assert.deepEqual(error.details, { a: 1 });
  assert.equal(messageOf(error), 'words');
  assert.equal(messageOf('text'), 'text');
});
