// The migrations of one sidecar on its own disk: durable, compared before they are changed, and never written over when they are damaged.
import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { eventually } from '../../test/support/eventually.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { docsNow, emptyPage, ledgerPage, migrationDoc, NEVER, sidecarReport } from '../../test/support/migration-fixture.ts';
import { WeirError } from '../kernel/errors.ts';
import { type Log, silentLog } from '../kernel/log.ts';
import { openFileStore } from './file-store.ts';
import type { MigrationStore, StoredDoc } from './ports.ts';

let root = '';
let count = 0;

before(async () => {
  root = await mkdtemp(join(tmpdir(), 'weir-migrations-'));
});
after(() => rm(root, { recursive: true }));

const fresh = (): string => join(root, `${++count}`, 'migrations');

function open(directory: string, log: Log = silentLog): Promise<MigrationStore> {
  return openFileStore({ directory, uid: null, log, clock: new FakeClock() });
}

async function made(directory: string, id = 'move'): Promise<{ store: MigrationStore; revision: string }> {
  const store = await open(directory);
  const revision = await store.putDoc(migrationDoc(id), null, NEVER);
  assert.ok(revision !== null);
  return { store, revision };
}

/** A store of two migrations, `move` and `other`, closed; what `damage` does to the folder; then the store again. */
async function damaged(damage: (directory: string) => Promise<void>) {
  const directory = fresh();
  const { store } = await made(directory);
  await store.putDoc(migrationDoc('other'), null, NEVER);
  for (const id of ['move', 'other']) await store.savePages(id, [ledgerPage('a/1', [1]), ledgerPage('a/2', [2])], NEVER);
  await store.close();
  await damage(directory);
  return { directory, again: await open(directory), before: await filesIn(directory) };
}

async function filesIn(directory: string): Promise<Map<string, string>> {
  const names = (await readdir(directory)).sort();
  return new Map(await Promise.all(names.map(async (name) => [name, await readFile(join(directory, name), 'latin1')] as const)));
}

const journalFault = (thrown: unknown): boolean => thrown instanceof WeirError && thrown.code === 'MIGRATION_JOURNAL';

describe('a file store', () => {
  it('gives back documents and ledgers after a restart', async () => {
    const directory = fresh();
    const { store, revision } = await made(directory);
    assert.equal(store.shared, false);
    const second = await store.putDoc(migrationDoc('move', { weight: 50 }), revision, NEVER);
    assert.ok(second !== null && second !== revision);
    await store.savePages('move', [ledgerPage('a/1', [1]), ledgerPage('a/2', [2])], NEVER);
    await store.savePages('move', [emptyPage('a/2')], NEVER);
    await store.close();
    const again = await open(directory);
    assert.deepEqual(await docsNow(again), [
      { kind: 'doc', doc: migrationDoc('move', { weight: 50 }), revision: second, reports: [] },
    ]);
    assert.deepEqual([...(await again.ledger('move', NEVER))], [['a/1', ledgerPage('a/1', [1])]]);
    await again.close();
  });

  it('writes a document only over the revision that was expected', async () => {
    const directory = fresh();
    const { store, revision } = await made(directory);
    assert.equal(await store.putDoc(migrationDoc('move'), null, NEVER), null, 'it exists');
    assert.equal(await store.putDoc(migrationDoc('move'), '1', NEVER), null, 'another revision');
    assert.equal(await store.putDoc(migrationDoc('new'), revision, NEVER), null, 'there is none');
    const results = await Promise.all([1, 2].map((weight) => store.putDoc(migrationDoc('move', { weight }), revision, NEVER)));
    assert.equal(results.filter((result) => result === null).length, 1, 'of two writers one wins');
    await store.close();
  });

  it('drops a migration with its files, and a new one of its id has another revision and an empty ledger', async () => {
    const directory = fresh();
    const { store, revision } = await made(directory);
    await store.savePages('move', [ledgerPage('a/1', [1])], NEVER);
    await store.report('move', sidecarReport('h'), NEVER);
    assert.equal(await store.dropDoc('move', 'another', NEVER), false);
    assert.equal(await store.dropDoc('move', revision, NEVER), true);
    assert.equal(await store.dropDoc('move', revision, NEVER), false);
    assert.deepEqual(await readdir(directory), []);
    await assert.rejects(store.ledger('move', NEVER), /there is no migration move/);
    const next = await store.putDoc(migrationDoc('move'), null, NEVER);
    assert.deepEqual([...(await store.ledger('move', NEVER))], []);
    assert.deepEqual(
      (await docsNow(store)).map((stored) => stored.kind === 'doc' && stored.reports),
      [[]],
    );
    assert.ok(next !== null);
    await store.close();
  });

  it('tells watchers everything at once and again after every change, and ends them quietly', async () => {
    const { store, revision } = await made(fresh());
    const seen: string[] = [];
    const stop = new AbortController();
    const text = (docs: readonly StoredDoc[]): string =>
      docs
        .map((one) => (one.kind === 'doc' ? `${one.doc.spec.id} ${one.doc.weight} ${one.reports.length}` : one.kind))
        .join(', ');
    const watching = (async () => {
      for await (const docs of store.watch(stop.signal)) seen.push(text(docs));
    })();
    await eventually(() => seen.at(-1) === 'move 25 0');
    const next = await store.putDoc(migrationDoc('move', { weight: 30 }), revision, NEVER);
    await eventually(() => seen.at(-1) === 'move 30 0');
    await store.report('move', sidecarReport('h'), NEVER);
    await eventually(() => seen.at(-1) === 'move 30 1');
    await store.report('nobody', sidecarReport('h'), NEVER);
    await store.dropDoc('move', next ?? '', NEVER);
    await eventually(() => seen.at(-1) === '');
    stop.abort();
    await watching;
    const until = (async () => {
      for await (const _ of store.watch(NEVER));
    })();
    await store.close();
    await until;
  });

  it('may be written at once, until it is closed', async () => {
    const { store } = await made(fresh());
    const owned = await store.own('move', ['etcd-main'], NEVER);
    assert.deepEqual([owned.lost.aborted, owned.fences.size], [false, 0]);
    await owned.release();
    assert.equal(owned.lost.aborted, false);
    await store.close();
    assert.equal(owned.lost.aborted, true);
    await assert.rejects(store.savePages('move', [ledgerPage('a/1', [1])], NEVER), /closed/);
    await assert.rejects(store.putDoc(migrationDoc('new'), null, NEVER), /closed/);
  });

  it('does nothing for a caller that has gone, nor for an id that is no name of a file', async () => {
    const { store } = await made(fresh());
    const gone = AbortSignal.abort(new Error('gone'));
    await assert.rejects(store.putDoc(migrationDoc('new'), null, gone), /gone/);
    await assert.rejects(store.savePages('move', [ledgerPage('a/1', [1])], gone), /gone/);
    for (const id of ['../x', '', 'a/b', 'a'.repeat(65)]) {
      await assert.rejects(store.putDoc(migrationDoc(id), null, NEVER), /1\.\.64 characters/);
    }
    assert.equal((await store.ledger('move', NEVER)).size, 0);
    await store.close();
  });
});

describe('a damaged journal', () => {
  const cases: readonly (readonly [what: string, reason: RegExp, damage: (directory: string) => Promise<void>])[] = [
    ['a document that is no JSON', /move\.json:1: no migration document/, (d) => writeFile(join(d, 'move.json'), '{"magic":')],
    [
      'a document that a hand has edited',
      /move\.json:1: the document is not as weir wrote it/,
      async (d) => {
        const text = await readFile(join(d, 'move.json'), 'utf8');
        await writeFile(join(d, 'move.json'), text.replace('"weight":25', '"weight":90'));
      },
    ],
    [
      'a document of another version',
      /move\.json:1: journal of version 2, this weir reads 1/,
      async (d) => {
        const text = await readFile(join(d, 'move.json'), 'utf8');
        await writeFile(join(d, 'move.json'), text.replace('"version":1', '"version":2'));
      },
    ],
    [
      'a document of another migration',
      /move\.json:1: the document of the migration other/,
      async (d) => writeFile(join(d, 'move.json'), await readFile(join(d, 'other.json'))),
    ],
    [
      'a symbolic link',
      /move\.json: the file is a symbolic link/,
      async (d) => {
        await rm(join(d, 'move.json'));
        await symlink(join(d, 'other.json'), join(d, 'move.json'));
      },
    ],
    ['a ledger that is missing', /move\.ledger: the file is missing/, (d) => rm(join(d, 'move.ledger'))],
    ['a ledger without its header', /move\.ledger:1: no header/, (d) => truncate(join(d, 'move.ledger'), 20)],
    [
      'a ledger with a line cut out of its middle',
      /move\.ledger:2: the line is damaged/,
      async (d) => {
        const lines = (await readFile(join(d, 'move.ledger'), 'utf8')).split('\n');
        await writeFile(join(d, 'move.ledger'), [lines[0], ...lines.slice(2)].join('\n'));
      },
    ],
  ];
  for (const [what, reason, damage] of cases) {
    it(`${what} makes its migration broken: nothing is written for it, everything else goes on`, async () => {
      const { directory, again, before } = await damaged(damage);
      const docs = await docsNow(again);
      assert.deepEqual(
        docs.map((one) => [one.kind, one.kind === 'broken' ? one.id : one.doc.spec.id]),
        [
          ['broken', 'move'],
          ['doc', 'other'],
        ],
      );
      const [broken] = docs;
      assert.ok(broken?.kind === 'broken');
      assert.match(broken.reason, reason);
      await assert.rejects(again.ledger('move', NEVER), journalFault);
      await assert.rejects(again.savePages('move', [ledgerPage('a/3', [3])], NEVER), journalFault);
      await assert.rejects(again.putDoc(migrationDoc('move'), null, NEVER), journalFault);
      await assert.rejects(again.dropDoc('move', '1', NEVER), journalFault);
      await again.report('move', sidecarReport('h'), NEVER);
      assert.deepEqual(await filesIn(directory), before, 'it is left untouched');
      assert.equal((await again.ledger('other', NEVER)).size, 2);
      await again.savePages('other', [ledgerPage('a/3', [3])], NEVER);
      await again.close();
    });
  }

  it('with a torn last line loses that line alone', async () => {
    const { again } = await damaged(async (d) => {
      const text = await readFile(join(d, 'move.ledger'), 'utf8');
      await writeFile(join(d, 'move.ledger'), `${text}0123456789abcdef 3 {"ver`);
    });
    assert.deepEqual([...(await again.ledger('move', NEVER)).keys()], ['a/1', 'a/2']);
    await again.savePages('move', [ledgerPage('a/3', [3])], NEVER);
    await again.close();
  });

  it('that only left a ledger is told of, and its ledger is put aside, not written over, when its id is used again', async () => {
    const told: string[] = [];
    const { directory, again } = await damaged((d) => rm(join(d, 'move.json')));
    await again.close();
    const log: Log = { ...silentLog, warn: (_fields, message) => void told.push(message) };
    const store = await open(directory, log);
    assert.deepEqual(told, ['a ledger without its migration is left as it is']);
    const kept = await readFile(join(directory, 'move.ledger'), 'utf8');
    await store.putDoc(migrationDoc('move'), null, NEVER);
    const aside = (await readdir(directory)).find((name) => name.startsWith('move.ledger.left-'));
    assert.equal(await readFile(join(directory, aside ?? ''), 'utf8'), kept);
    assert.equal((await store.ledger('move', NEVER)).size, 0);
    await store.close();
  });
});
