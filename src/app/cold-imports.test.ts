// What a start must not load: each of these packages costs 15 to 60 ms before the first request is served.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

/** Imports the modules in a process of its own; what was loaded of packages and of Node. */
function loadedBy(modules: readonly string[]): readonly string[] {
  const urls = modules.map((path) => new URL(path, import.meta.url).href);
  const program = `
    import { registerHooks } from 'node:module';
    const loaded = [];
    registerHooks({ load(url, context, next) { loaded.push(url); return next(url, context); } });
    for (const url of ${JSON.stringify(urls)}) await import(url);
    console.log(JSON.stringify([...loaded, ...process.moduleLoadList]));`;
  const out = execFileSync(process.execPath, ['--input-type=module', '-e', program], {
    cwd: fileURLToPath(new URL('../..', import.meta.url)),
    encoding: 'utf8',
  });
  return JSON.parse(out);
}

const has = (loaded: readonly string[], what: string): boolean => loaded.some((name) => name.includes(what));

test('what a start loads before the proxy listens holds no gRPC, no HTTP client, no API server and no compilers of schemas', () => {
  const loaded = loadedBy(['../app.ts', '../../adapters/etcd/index.ts']);
  assert.ok(has(loaded, '/src/proxy/data-plane.ts'), 'the hook saw nothing');
  const heavy = ['/@grpc/', '/protobufjs/', '/node_modules/undici/', '/fastify/', '/src/api/server.ts', '/prom-client/', '/ajv/'];
  for (const one of [...heavy, '/typebox/build/value/', 'internal/deps/undici/undici'])
    assert.ok(!has(loaded, one), `${one} is loaded`);
});

test('the API loads no compilers of schemas, no metrics package and no HTTP client before somebody asks', () => {
  const loaded = loadedBy(['../api/server.ts']);
  assert.ok(has(loaded, '/fastify/'), 'the hook saw nothing');
  for (const one of ['/prom-client/', '/ajv/', '/@fastify/fast-json-stringify-compiler/', 'internal/deps/undici/undici'])
    assert.ok(!has(loaded, one), `${one} is loaded`);
});
