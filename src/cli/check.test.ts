import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { startFakeConsul } from '../../adapters/consul/fake.ts';
import { startFakePolaris } from '../../adapters/polaris/fake.ts';
import { runWeir } from '../../test/support/run-weir.ts';
import { systemClock } from '../kernel/clock.ts';

describe('weir check', () => {
  let directory = '';
  const file = async (text: string): Promise<string> => {
    const path = join(directory, 'weir.yaml');
    await writeFile(path, text);
    return path;
  };
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'weir-check-'));
  });
  after(() => rm(directory, { recursive: true }));

  it('says that a good file has no faults', async () => {
    const path = await file('sources:\n  - {id: local, kind: memory}\n');
    const { code, out } = await runWeir(['check', '-c', path]);
    assert.deepEqual([code, out], [0, `${path}: no faults\n`]);
  });

  it('prints every fault as file:line:col path: expected … got … and exits 2', async () => {
    const path = await file('api: {lisen: 127.0.0.1:1}\nsources:\n  - {id: "a b", kind: memory}\n  - {id: c, kind: nothing}\n');
    const { code, err } = await runWeir(['check', '-c', path]);
    assert.equal(code, 2);
    const lines = err.trim().split('\n');
    assert.equal(lines.length, 3);
    for (const line of lines) assert.match(line, /weir\.yaml:\d+:\d+ \S+: expected .+, got .+/);
  });

  it('--print shows the effective configuration and no secret', async () => {
    // biome-ignore lint/suspicious/noTemplateCurlyInString: a reference of weir.yaml, not a template
    const path = await file('api: {tokens: {write: "${TOKEN}"}}\n');
    const { code, out } = await runWeir(['check', '-c', path, '--print'], { TOKEN: 'canary-secret' });
    assert.equal(code, 0);
    assert.match(out, /listen: 127\.0\.0\.1:7900/);
    assert.match(out, /\[hidden\]/);
    assert.doesNotMatch(out, /canary/);
  });

  it('--print-names asks the sources: native name, our name, names elsewhere and for writes; one that fails is a line and exit 1', async () => {
    await writeFile(join(directory, 'services.yaml'), 'services:\n  demo/hello: {instances: [{host: 127.0.0.1, port: 9001}]}\n');
    const path = await file(
      [
        'sources:',
        '  - {id: fixed, kind: file, path: services.yaml}',
        '  - {id: local, kind: memory}',
        '  - {id: gone, kind: etcd, endpoints: ["http://127.0.0.1:1"], timeout: 1s}',
        'services:',
        '  - {match: demo/hello, names: {local: "greet"}}',
      ].join('\n'),
    );
    const { code, out, err } = await runWeir(['check', '-c', path, '--print-names']);
    assert.equal(code, 1, err);
    assert.match(out, /^fixed +demo\/hello +demo\/hello +local: default\/greet$/m);
    assert.match(out, /^REGISTERING +IN local +IN gone\ndemo\/hello +default\/greet +\(unmapped\)$/m);
    assert.match(err, /^gone: .*127\.0\.0\.1:1/m);
    assert.match(err, /^the names of gone are not known$/m);
  });

  const services = (names: readonly string[]): Promise<void> =>
    writeFile(
      join(directory, 'services.yaml'),
      `services:\n${names.map((name) => `  ${JSON.stringify(name)}: {instances: [{host: 127.0.0.1, port: 9001}]}\n`).join('')}`,
    );
  const FIXED = '  - {id: fixed, kind: file, path: services.yaml}';

  it('--print-names is exit 2 for a name that a template took from its default, with the place of the template', async () => {
    await services(['demo/shop-cart', 'shop/web']);
    const path = await file(
      ['sources:', FIXED, 'services:', '  - {match: "a/*"}', '  - {match: "shop/*", names: {fixed: "demo/shop-{name}"}}'].join(
        '\n',
      ),
    );
    const { code, out, err } = await runWeir(['check', '-c', path, '--print-names']);
    assert.equal(code, 2);
    assert.match(out, /^fixed +demo\/shop-cart +shop\/cart$/m);
    assert.match(out, /^fixed +shop\/web +\(unmapped\)$/m);
    assert.match(err, /weir\.yaml:5:\d+ services\[1\]\.names\.fixed: expected .*, got "shop\/web" of fixed, which has none/);
  });

  it('--print-names is exit 2 for two native names that arrive at one of ours', async () => {
    await services(['a/web', 'b/web']);
    const path = await file('sources:\n  - {id: fixed, kind: file, path: services.yaml, as: {namespace: shop}}\n');
    const { code, err } = await runWeir(['check', '-c', path, '--print-names']);
    assert.equal(code, 2);
    assert.match(err, /weir\.yaml:2:\d+ sources\[0\]\.id: .*got shop\/web for "a\/web" and for "b\/web"/);
  });

  it('--print-names leaves out what `select` leaves out', async () => {
    await services(['demo/shop-cart', 'shop/web']);
    const path = await file(
      [
        'sources:',
        '  - {id: fixed, kind: file, path: services.yaml, select: ["demo/*"]}',
        'services:',
        '  - {match: "shop/*", names: {fixed: "demo/shop-{name}"}}',
      ].join('\n'),
    );
    const { code, out, err } = await runWeir(['check', '-c', path, '--print-names']);
    assert.equal(code, 0, err);
    assert.doesNotMatch(out, /shop\/web/);
  });

  it('--print-names is exit 2 for a declared registration without a name in a target, and for a template that leads nowhere', async () => {
    const consul = await startFakeConsul(systemClock);
    const polaris = await startFakePolaris(systemClock);
    try {
      const path = await file(
        [
          'sources:',
          `  - {id: consul, kind: consul, address: "${consul.address}", register: true}`,
          `  - {id: polaris, kind: polaris, servers: ["${polaris.grpc}"], namespace: "*", register: true}`,
          'services:',
          '  - {match: "shop/*", names: {consul: "eu/{name}", polaris: "{name}"}}',
          '  - {match: "game/lobby", names: {polaris: "Game/{name}"}}',
          'registrations:',
          '  - {service: default/web, id: a, host: 10.0.0.1, port: 80}',
          '  - {service: game/lobby, id: a, host: 10.0.0.1, port: 80}',
        ].join('\n'),
      );
      const { code, out, err } = await runWeir(['check', '-c', path, '--print-names']);
      assert.equal(code, 2);
      const lines = err.trim().split('\n');
      assert.equal(lines.length, 3, err);
      assert.match(
        lines[0] ?? '',
        /:5:\d+ services\[0\]\.names\.consul: expected a name in "default", the only namespace of this source/,
      );
      assert.match(
        lines[1] ?? '',
        /:5:\d+ services\[0\]\.names\.polaris: expected namespace\/name: this source reads all namespaces/,
      );
      assert.match(lines[2] ?? '', /:9:\d+ registrations\[1\]\.service: .*game\/lobby, which has none in consul/);
      assert.match(out, /^default\/web +default\/web +default\/web$/m);
      assert.match(out, /^game\/lobby +\(unmapped\) +Game\/lobby$/m);
    } finally {
      await Promise.all([consul.close(), polaris.close()]);
    }
  });
});

describe('weir schema', () => {
  it('writes the schema, and --check tells an equal file from another', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'weir-schema-'));
    const path = join(directory, 'schema.json');
    assert.equal((await runWeir(['schema', '--out', path])).code, 0);
    assert.equal(JSON.parse(await readFile(path, 'utf8')).title, 'weir.yaml');
    assert.equal((await runWeir(['schema', '--check', path])).code, 0);
    await writeFile(path, '{}');
    const other = await runWeir(['schema', '--check', path]);
    assert.equal(other.code, 1);
    assert.match(other.err, /npm run generate/);
    assert.equal((await runWeir(['schema', '--check', join(directory, 'none')])).code, 1);
    assert.match((await runWeir(['schema'])).out, /^\{\n {2}"\$schema"/);
    await rm(directory, { recursive: true });
  });
});
