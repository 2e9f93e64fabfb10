import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { runWeir } from '../../test/support/run-weir.ts';

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

  it('--print-names asks the sources: native name, our name, names elsewhere; one that fails is a line of its own', async () => {
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
    assert.equal(code, 0, err);
    assert.match(out, /^fixed +demo\/hello +demo\/hello +local: default\/greet/m);
    assert.match(err, /^gone: /m);
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
