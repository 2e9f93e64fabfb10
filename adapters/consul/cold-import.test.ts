// What a source of kind consul must not load before it is asked for something: an HTTP library costs memory and time of the start.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';

test('the entry of the kind, and a source that was made, load no HTTP library', () => {
  const program = `
    import { registerHooks } from 'node:module';
    const loaded = [];
    registerHooks({ load(url, context, next) { loaded.push(url); return next(url, context); } });
    const { factory } = await import(${JSON.stringify(new URL('./index.ts', import.meta.url).href)});
    const clock = { now: () => 0, wallNow: () => 0, setTimer: () => ({ cancel() {} }), sleep: () => new Promise(() => {}) };
    const deps = { sourceId: 's', clock, random: () => 0, dial: () => null, log: {}, count() {} };
    const options = { auth: {}, tls: {}, timeout: 1000, normalWeight: null };
    for (const address of ['http://127.0.0.1:8500', 'https://127.0.0.1:8501']) {
      const made = factory.create({ address }, { ...options, tls: address.startsWith('https') ? {} : null }, deps);
      await made.close();
    }
    console.log(JSON.stringify([...loaded, ...process.moduleLoadList]));`;
  const out = execFileSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' });
  const loaded: string[] = JSON.parse(out);
  assert.ok(
    loaded.some((name) => name.includes('/adapters/consul/adapter.ts')),
    'the hook saw nothing',
  );
  for (const heavy of [
    '/node_modules/undici/',
    'NativeModule http2',
    'NativeModule internal/http2/core',
    '/typebox/build/value/',
  ]) {
    assert.ok(!loaded.some((name) => name.includes(heavy)), `${heavy} is loaded`);
  }
});
