// What kind nacos costs a process: memory of a watched service, and packages that are not loaded before they are needed.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { measureMemory } from '../../test/live/nacos-memory.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { type FakeVersion, startFakeNacos } from './fake.ts';
import { MERGE_MS } from './fake-store.ts';

// Polls of 1.x start at 50 a second.
for (const [version, how, count] of [
  ['3.0.3', 'gRPC', 500],
  ['1.4.6', 'HTTP', 200],
] satisfies readonly (readonly [FakeVersion, string, number])[]) {
  test(`a watched service of three instances costs a few KiB over ${how}`, { timeout: 300_000 }, async (t) => {
    const clock = new FakeClock();
    const fake = await startFakeNacos(version, clock);
    try {
      for (let n = 0; n <= count; n++) {
        const hosts = [1, 2, 3].map((host) => ({
          ip: `192.0.2.${host}`,
          port: 8_000 + n,
          weight: 1,
          healthy: true,
          enabled: true,
          ephemeral: true,
          clusterName: 'DEFAULT',
          metadata: { version: `v${n}`, colour: 'blue' },
        }));
        fake.store.publish(`public@@DEFAULT_GROUP@@figure-${n}`, 'raw', hosts);
      }
      await clock.advance(2 * MERGE_MS);
      await measureMemory(t, `fake ${version}`, fake.config, count);
    } finally {
      await fake.close();
    }
  });
}

/** What a process has loaded after the program. */
async function loadedBy(program: string): Promise<string> {
  const hooks = `
    import { registerHooks } from 'node:module';
    const loaded = [];
    registerHooks({ load(url, context, next) { loaded.push(url); return next(url, context); } });
    ${program}
    console.log(loaded.join('\\n'));`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', hooks], { timeout: 60_000 });
  return stdout;
}

const at = (path: string): string => JSON.stringify(new URL(path, import.meta.url).href);

test('importing the kind loads neither gRPC nor an HTTP client, and a source over HTTP alone never loads gRPC', {
  timeout: 120_000,
}, async () => {
  const fake = await startFakeNacos('1.4.6', new FakeClock());
  try {
    const imported = await loadedBy(`await import(${at('./index.ts')});`);
    assert.match(imported, /adapters\/nacos\/adapter\.ts/);
    assert.doesNotMatch(imported, /@grpc\/|protobufjs|node_modules\/undici/);
    const config = JSON.stringify({ ...fake.config, api: 'http' });
    const read = await loadedBy(`
      const { makeAdapter } = await import(${at('../../test/live/nacos-support.ts')});
      const { adapter } = makeAdapter(${config});
      await adapter.read({ namespace: 'default', name: 'web' }, new AbortController().signal);
      await adapter.close();`);
    assert.match(read, /node_modules\/undici/);
    assert.doesNotMatch(read, /@grpc\/|protobufjs/);
  } finally {
    await fake.close();
  }
});
