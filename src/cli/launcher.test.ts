import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

function launch(launcher: string, args: readonly string[], prelude?: string): Promise<Ended> {
  // A preloaded file lets the launcher believe that it runs on another Node.
  const flags = prelude === undefined ? [] : ['--require', prelude];
  return new Promise((resolve) => {
    execFile(process.execPath, [...flags, launcher, ...args], (error, out, err) => {
      const code = error !== null && typeof error.code === 'number' ? error.code : 0;
      resolve({ code, out, err });
    });
  });
}

describe('the launcher', () => {
  let directory = '';
  let oldNode = '';
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'weir-bin-'));
    oldNode = join(directory, 'old.cjs');
    await writeFile(oldNode, "Object.defineProperty(process.versions, 'node', { value: '18.20.0' });\n");
  });
  after(() => rm(directory, { recursive: true }));

  /** A package as npm would lay it out, with a built main that says what it got. */
  async function packageAt(name: string, pinned: boolean): Promise<string> {
    const root = join(directory, name, 'node_modules', 'weir');
    await mkdir(join(root, 'dist/src/cli'), { recursive: true });
    await cp(join(ROOT, 'bin'), join(root, 'bin'), { recursive: true });
    await writeFile(join(root, 'package.json'), '{"type":"module"}');
    await writeFile(
      join(root, 'dist/src/cli/main.js'),
      "console.log('built', process.versions.node, process.argv.slice(2).join(' ')); process.exitCode = 3;\n",
    );
    if (pinned) {
      const place = join(directory, name, 'node_modules', `node-${process.platform}-${process.arch}`, 'bin');
      await mkdir(place, { recursive: true });
      await symlink(process.execPath, join(place, 'node'));
    }
    return join(root, 'bin/weir.cjs');
  }

  it('runs the sources of a checkout on Node 24', async () => {
    const { code, out } = await launch(join(ROOT, 'bin/weir.cjs'), ['--version']);
    const { version } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'));
    assert.deepEqual([code, out], [0, `${version}\n`]);
  });

  it('runs the built code of a package and passes arguments and exit code on', async () => {
    const launcher = await packageAt('new', false);
    assert.deepEqual(await launch(launcher, ['services', '--json']), {
      code: 3,
      out: `built ${process.versions.node} services --json\n`,
      err: '',
    });
  });

  it('starts the Node that npm installed beside it when the system’s is too old', async () => {
    const launcher = await packageAt('pinned', true);
    const { code, out } = await launch(launcher, ['a', 'b c'], oldNode);
    assert.deepEqual([code, out], [3, `built ${process.versions.node} a b c\n`]);
  });

  it('says in one line which Node is needed when there is no other, and exits 2', async () => {
    const launcher = await packageAt('bare', false);
    const { code, out, err } = await launch(launcher, ['run'], oldNode);
    assert.deepEqual([code, out], [2, '']);
    assert.match(err, /^weir: Node 22\.19 or newer is needed, this is 18\.20\.0, and no pinned one is installed beside weir\n$/);
  });

  it('works through the link that npm makes, and says when nothing was built', async () => {
    const launcher = await packageAt('linked', false);
    const link = join(directory, 'linked', 'weir');
    await symlink(launcher, link);
    assert.equal((await launch(link, [])).code, 3);
    await rm(join(directory, 'linked/node_modules/weir/dist'), { recursive: true });
    const { code, err } = await launch(link, []);
    assert.equal(code, 2);
    assert.match(err, /npm run build/);
  });
});
