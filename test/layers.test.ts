// Holds the layer order of docs/architecture.md and the house rules that are text: every import is read, none may point upward.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { glob } from 'node:fs/promises';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';

/** From the highest to the lowest; a file may import its own layer and those after it. */
const ORDER = [
  'cli',
  'app',
  'api',
  'migrate',
  'registration',
  'health',
  'catalog',
  'settings',
  'adapter',
  'proxy',
  'cluster',
  'resilience',
  'balance',
  'telemetry',
  'model',
  'http1',
  'kernel',
];
/** What a file of adapters/<kind> may import besides its own folder. */
const ADAPTER_MAY = new Set(['adapter', 'telemetry', 'model', 'kernel']);

/** The code of a line: without comments and without the text of strings. */
function bare(line: string): string {
  return line
    .replace(/^\s*\*.*$/, '')
    .replace(/\/\*.*?(\*\/|$)/g, '')
    .replace(/'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`(?:[^`\\]|\\.)*`/g, "''")
    .replace(/\/\/.*$/, '');
}

async function sources(): Promise<string[]> {
  const found: string[] = [];
  for (const root of ['src', 'adapters']) for await (const path of glob(`${root}/**/*.ts`)) found.push(path);
  return found.filter((path) => !path.endsWith('.test.ts')).sort();
}

function layerOf(path: string): string {
  const parts = path.split('/');
  if (parts[0] === 'adapters') return parts.length === 2 ? 'adapters/index' : `adapters/${parts[1]}`;
  return parts.length === 2 ? (parts[1] ?? '').replace(/\.ts$/, '') : (parts[1] ?? '');
}

function importsOf(path: string): string[] {
  const text = readFileSync(path, 'utf8');
  const found = text.matchAll(
    /(?:^|\s)(?:import|export)\s[^'";]*?from\s*['"]([^'"]+)['"]|import\s*\(\s*['"]([^'"]+)['"]\s*\)|^import\s+['"]([^'"]+)['"]/gm,
  );
  return [...found].map((match) => match[1] ?? match[2] ?? match[3] ?? '');
}

function allowed(from: string, to: string): boolean {
  const fromLayer = layerOf(from);
  const toLayer = layerOf(to);
  if (fromLayer === toLayer) return true;
  if (fromLayer === 'adapters/index') return toLayer.startsWith('adapters/') || ADAPTER_MAY.has(toLayer);
  if (fromLayer.startsWith('adapters/')) return ADAPTER_MAY.has(toLayer);
  if (toLayer === 'adapters/index') return fromLayer === 'app';
  const fromRank = ORDER.indexOf(fromLayer);
  const toRank = ORDER.indexOf(toLayer);
  return fromRank >= 0 && toRank > fromRank;
}

test('no file imports a higher layer', async () => {
  const faults: string[] = [];
  for (const path of await sources()) {
    for (const target of importsOf(path)) {
      if (!target.startsWith('.')) continue;
      const to = normalize(join(dirname(path), target));
      if (!to.endsWith('.ts')) faults.push(`${path}: import ${target} has no .ts`);
      if (!allowed(path, to)) faults.push(`${path} (${layerOf(path)}) imports ${to} (${layerOf(to)})`);
    }
  }
  assert.deepEqual(faults, []);
});

test('every folder of src is a layer of the order', async () => {
  const unknown = (await sources()).filter((path) => path.startsWith('src/') && !ORDER.includes(layerOf(path)));
  assert.deepEqual(unknown, []);
});

test('clock, randomness and process are used only in kernel, app and cli', async () => {
  const faults: string[] = [];
  for (const path of await sources()) {
    if (/^src\/(kernel|cli|app)\//.test(path) || path === 'src/app.ts') continue;
    readFileSync(path, 'utf8')
      .split('\n')
      .forEach((line, i) => {
        const code = bare(line);
        if (/\b(Date\.now|setTimeout|setInterval|performance\.now|Math\.random)\(|\bprocess\./.test(code))
          faults.push(`${path}:${i + 1}: ${line.trim()}`);
      });
  }
  assert.deepEqual(faults, []);
});

test('no any, cast, non-null assertion or silenced check in src and adapters', async () => {
  const faults: string[] = [];
  for (const path of await sources()) {
    readFileSync(path, 'utf8')
      .split('\n')
      .forEach((line, i) => {
        const code = bare(line);
        if (/@ts-(?:ignore|expect-error|nocheck)/.test(line)) faults.push(`${path}:${i + 1}: ${line.trim()}`);
        if (/\/\/ cast: /.test(line)) return;
        if (
          /[:<]\s*any\b|\bas any\b|\bas (?!const\b)[A-Z{(]\w*|\bas (?:unknown|string|number|boolean)\b/.test(code) &&
          !/\bimport\b|^\s*(?:type )?\w+ as \w+,?$|\bexport \{/.test(code)
        )
          faults.push(`${path}:${i + 1}: ${line.trim()}`);
      });
  }
  assert.deepEqual(faults, []);
});

test('a package is imported only where the order of dependencies allows it', async () => {
  const only: Readonly<Record<string, RegExp>> = {
    fastify: /^src\/api\//,
    '@fastify/swagger': /^src\/api\//,
    commander: /^src\/cli\//,
    pino: /^src\/kernel\/log\.ts$|^src\/proxy\/access-log/,
    'polly-js': /^src\/adapter\/control-retry\.ts$/,
    yaml: /^src\/settings\/|^adapters\/file\//,
    etcd3: /^adapters\/etcd\/client\.ts$/,
    'prom-client': /^src\/api\//,
    undici: /^src\/health\/|^adapters\//,
    '@grpc/grpc-js': /^src\/health\/|^adapters\//,
    '@grpc/proto-loader': /^src\/health\/|^adapters\//,
  };
  const faults: string[] = [];
  for (const path of await sources()) {
    for (const target of importsOf(path)) {
      const rule = Object.hasOwn(only, target) ? only[target] : undefined;
      if (rule !== undefined && !rule.test(path)) faults.push(`${path} imports ${target}`);
    }
  }
  assert.deepEqual(faults, []);
});
