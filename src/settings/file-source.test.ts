// Watching the config file on a real file system: atomic and in-place writes, storms, files of references, a file that goes away.
import assert from 'node:assert/strict';
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { eventually } from '../../test/support/eventually.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { type Clock, systemClock } from '../kernel/clock.ts';
import { silentLog } from '../kernel/log.ts';
import { FileSource, readConfigFile } from './file-source.ts';

const made: string[] = [];
after(() => Promise.all(made.map((directory) => rm(directory, { recursive: true, force: true }))));

async function rig(others: string[] = [], clock: Clock = systemClock) {
  const directory = await mkdtemp(join(tmpdir(), 'weir-file-source-'));
  made.push(directory);
  const path = join(directory, 'weir.yaml');
  await writeFile(path, 'start');
  const seen: string[] = [];
  const source = new FileSource({
    path,
    clock,
    log: silentLog,
    others: () => others.map((name) => join(directory, name)),
    onChange: async (bytes) => void seen.push(Buffer.from(bytes).toString()),
  });
  await source.start();
  const replace = async (text: string): Promise<void> => {
    await writeFile(`${path}.new`, text);
    await rename(`${path}.new`, path);
  };
  return { directory, path, seen, source, replace };
}

describe('the config file', () => {
  it('is delivered after an atomic replacement and after a write in place, and not without a change', async () => {
    await using stack = new AsyncDisposableStack();
    const { path, seen, source, replace } = await rig();
    stack.use(source);
    await replace('one');
    await eventually(() => assert.deepEqual(seen, ['one']));
    await writeFile(path, 'two');
    await eventually(() => assert.deepEqual(seen, ['one', 'two']));
  });

  it('written 100 times a second, in both ways, is read at most 6 times a second and ends at the last text', async () => {
    await using stack = new AsyncDisposableStack();
    const { path, seen, source, replace } = await rig();
    stack.use(source);
    const started = performance.now();
    let last = '';
    for (let i = 0; performance.now() - started < 2_000; i++) {
      last = `text ${i}`;
      await (i % 2 === 0 ? replace(last) : writeFile(path, last));
      await systemClock.sleep(8);
    }
    await eventually(() => assert.equal(seen.at(-1), last));
    const seconds = (performance.now() - started) / 1_000;
    assert.ok(seen.length <= 6 * seconds + 2, `${seen.length} reads in ${seconds} s`);
    assert.ok(
      seen.every((text) => /^text \d+$/.test(text)),
      'no half-written text',
    );
  });

  it('is delivered again when a file of a reference changes', async () => {
    await using stack = new AsyncDisposableStack();
    const { directory, seen, source } = await rig(['token']);
    stack.use(source);
    await writeFile(join(directory, 'token'), 'secret');
    await eventually(() => assert.deepEqual(seen, ['start']));
  });

  it('that is empty, as between the two halves of a write in place, changes nothing, and is delivered when it is whole', async () => {
    await using stack = new AsyncDisposableStack();
    const { path, seen, source } = await rig();
    stack.use(source);
    await writeFile(path, '');
    await source.reread();
    assert.deepEqual(seen, []);
    await writeFile(path, 'whole');
    await eventually(() => assert.deepEqual(seen, ['whole']));
  });

  it('that goes away changes nothing, and is delivered when it is back', async () => {
    await using stack = new AsyncDisposableStack();
    const { path, seen, source, replace } = await rig();
    stack.use(source);
    await rm(path);
    await source.reread();
    assert.deepEqual(seen, []);
    await replace('back');
    await eventually(() => assert.deepEqual(seen, ['back']));
  });

  it('is delivered on demand, changed or not', async () => {
    await using stack = new AsyncDisposableStack();
    const { seen, source } = await rig();
    stack.use(source);
    await source.reread();
    assert.deepEqual(seen, ['start']);
  });

  it('is not delivered after the close', async () => {
    const clock = new FakeClock();
    const { seen, source, replace } = await rig([], clock);
    assert.equal(clock.pending, 1, 'the look every few seconds');
    await replace('late');
    await eventually(() => assert.equal(clock.pending, 2));
    await source.close();
    assert.equal(clock.pending, 0);
    assert.deepEqual(seen, []);
  });

  it('of 50 MB is read only so far that the parser can refuse it', async () => {
    const { path, source } = await rig();
    await source.close();
    await writeFile(path, Buffer.alloc(50 * 1_048_576, 0x20));
    assert.equal((await readConfigFile(path)).byteLength, 1_048_577);
  });
});
