// The watch loop's rules, each as a claim about the adapter on a fake server of both versions.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SourceError } from '../../src/model/snapshot.ts';
import { type Bench, etcdBench, NEVER, PLAIN, Watching } from '../../test/support/etcd-bench.ts';
import type { FakeVersion } from './fake.ts';

const VERSIONS = ['3.4.23', '3.6.16'] as const;

function claim(name: string, body: (bench: Bench, version: FakeVersion) => Promise<void>, options = PLAIN): void {
  for (const version of VERSIONS) {
    it(`${name} (${version})`, { timeout: 30_000 }, async () => {
      const bench = await etcdBench(version, options);
      try {
        await body(bench, version);
      } finally {
        await bench.close();
      }
    });
  }
}

async function watched(b: Bench): Promise<Watching> {
  const watching = new Watching(b.adapter);
  await b.until(() => watching.ids !== null && b.fake.openWatches === 1, 'a first snapshot and a stream');
  return watching;
}

/** Opens again until there is a snapshot, as the supervisor does. */
async function reopened(b: Bench, want: string): Promise<Watching> {
  let watching = new Watching(b.adapter);
  await b.until(async () => {
    if (watching.ended) watching = new Watching(b.adapter);
    return watching.ids === want;
  }, `"${want}" after opening again`);
  return watching;
}

describe('the watch loop of etcd', () => {
  claim('two cuts right after created, before history arrived, lose no event', async (b) => {
    b.put('svc', 'a', 1);
    const first = await watched(b);
    b.fake.cut();
    await b.until(() => first.ended, 'the loss');
    b.put('svc', 'b', 2);
    b.remove('svc', 'a');
    b.fake.watches.cutAfterCreated = 2;
    b.fake.watches.catchUpMs = 100;
    await reopened(b, 'b');
    assert.equal(b.fake.watches.cutAfterCreated, 0);
  });

  claim('a compaction behind a cut is answered by a list, so that deletes in the gap are seen', async (b) => {
    b.put('svc', 'a', 1);
    b.put('svc', 'b', 2);
    const first = await watched(b);
    await b.fake.down();
    await b.until(() => first.ended, 'the loss');
    b.remove('svc', 'a');
    for (let n = 0; n < 10; n++) b.put('other', 'x', 3);
    b.fake.store.compact(b.fake.store.revision);
    await b.fake.up();
    await reopened(b, 'b');
    assert.equal(b.counts.get('watch.compacted'), 1);
  });

  claim('an idle stream is asked for progress and lives; the core hears unchanged at least every 30 s', async (b) => {
    b.put('svc', 'a', 1);
    const watching = await watched(b);
    const before = watching.items.length;
    for (let n = 0; n < 60; n++) {
      await b.advance(500);
      await b.until(() => true, 'a turn');
    }
    await b.until(() => watching.items.length >= before + 1, 'a sign of life');
    assert.equal(watching.error, null);
    assert.ok(watching.items.slice(before).every(({ kind }) => kind === 'unchanged'));
    assert.equal(b.fake.log.filter(({ call }) => call === 'Watch').length, 1, 'one stream all the time');
  });

  claim('a stream that answers no progress request is given up after the second one, not before', async (b) => {
    b.put('svc', 'a', 1);
    const watching = await watched(b);
    b.fake.watches.ignoreProgress = true;
    await b.advance(14_000);
    assert.equal(watching.ended, false);
    await b.until(() => watching.ended, 'the loss', 500);
    assert.equal(watching.error?.causeKind, 'lost');
    assert.match(watching.error?.message ?? '', /progress/);
  });

  claim('a progress answer that runs ahead of late history does not make us skip it', async (b) => {
    b.fake.watches.catchUpMs = 14_500;
    const watching = await watched(b);
    await b.until(() => b.fake.openWatches === 1, 'the stream');
    b.put('svc', 'late', 1);
    const since = b.clock.now();
    await b.until(() => watching.ids === 'late', 'the history', 500);
    assert.ok(b.clock.now() - since < 30_000, 'it came from the stream, not from the periodic list');
    assert.equal(b.counts.get('watch.missedEvents') ?? 0, 0);
  });

  claim('a restored older store is heard although its revisions are lower, as a new epoch', async (b) => {
    b.put('svc', 'a', 1);
    const image = b.fake.store.image();
    for (let n = 0; n < 30; n++) b.put('svc', 'b', 2, n + 1);
    const first = await watched(b);
    const epoch = first.last?.epoch;
    b.fake.restore(image);
    const again = await reopened(b, 'a');
    assert.notEqual(again.last?.epoch, epoch);
    b.put('svc', 'c', 3);
    await b.until(() => again.ids === 'a c', 'an event of the new epoch');
  });

  claim(
    'a wiped store that has passed our revision is found by the list after the reconnect, even with equal revisions',
    async (b) => {
      b.put('svc', 'a', 1);
      b.put('svc', 'gone', 2);
      const first = await watched(b);
      const epoch = first.last?.epoch;
      await b.fake.down();
      await b.until(() => first.ended, 'the loss');
      b.fake.store.wipe();
      b.put('svc', 'a', 9);
      b.put('other', 'x', 3);
      b.put('other', 'y', 4);
      b.put('other', 'z', 5);
      await b.fake.up();
      let again = new Watching(b.adapter);
      await b.until(() => {
        if (again.ended) again = new Watching(b.adapter);
        const { last } = again;
        return last?.kind === 'present' && last.instances.length === 1 && last.instances[0]?.port === 9;
      }, 'the new store');
      assert.notEqual(again.last?.epoch, epoch);
    },
  );

  claim('another cluster behind the same address is a new epoch', async (b) => {
    b.put('svc', 'a', 1);
    const first = await watched(b);
    b.fake.store.clusterId = '4711';
    b.fake.wipe();
    b.put('svc', 'b', 1);
    for (let n = 0; n < 20; n++) b.put('other', 'x', n + 1);
    const again = await reopened(b, 'b');
    assert.match(again.last?.epoch ?? '', /^4711/);
    assert.notEqual(again.last?.epoch, first.last?.epoch);
  });

  claim('a difference that only the periodic list finds is counted as a fault of the stream', async (b) => {
    b.put('svc', 'a', 1);
    const watching = await watched(b);
    b.put('svc', 'z', 9);
    await b.until(() => watching.ids === 'a z', 'a live event');
    b.fake.halfOpen = true;
    b.put('svc', 'b', 2);
    b.remove('svc', 'z');
    b.fake.halfOpen = false;
    b.put('svc', 'd', 4);
    await b.until(() => watching.ids === 'a d z', 'the event after the swallowed ones');
    await b.until(() => watching.ids === 'a b d', 'the list', 1_000);
    assert.equal(b.counts.get('watch.missedEvents'), 2);
  });

  claim('duplicate events change nothing', async (b) => {
    b.fake.watches.duplicateEvents = true;
    const watching = await watched(b);
    b.put('svc', 'a', 1);
    b.put('svc', 'b', 2);
    b.remove('svc', 'a');
    await b.until(() => watching.ids === 'b', 'the end of it');
    const shown = watching.items.filter(({ kind }) => kind !== 'unchanged').length;
    assert.ok(shown <= 4, `${shown} snapshots for 3 changes`);
  });

  claim('fragments are one change: a service is never seen in part', async (b) => {
    for (let n = 1; n <= 40; n++) b.put('svc', `i${n}`, n);
    const first = await watched(b);
    await b.fake.down();
    await b.until(() => first.ended, 'the loss');
    b.fake.watches.fragmentBytes = 200;
    for (let n = 1; n <= 40; n++) b.put('svc', `i${n}`, n, 7);
    b.fake.watches.catchUpMs = 1;
    await b.fake.up();
    const again = await reopened(b, first.ids ?? '');
    await b.until(() => again.last?.kind === 'present' && again.last.instances.every(({ weight }) => weight === 7), 'all of it');
    for (const item of again.items) {
      if (item.kind !== 'present') continue;
      assert.equal(new Set(item.instances.map(({ weight }) => weight)).size, 1, 'old and new mixed');
    }
  });

  claim('a watch that the server cancels is lost, with the reason', async (b) => {
    const watching = await watched(b);
    b.fake.cancelWatches('mvcc: something odd');
    await b.until(() => watching.ended, 'the loss');
    assert.match(watching.error?.message ?? '', /something odd/);
    assert.equal(watching.error?.causeKind, 'lost');
  });

  claim('a watch without created is lost after 5 s', async (b) => {
    b.fake.watches.silentWatches = true;
    const watching = new Watching(b.adapter);
    await b.until(() => watching.ids === '', 'the list');
    await b.until(() => b.fake.log.some(({ call }) => call === 'Watch'), 'the stream');
    await b.until(() => watching.ended, 'the loss', 500);
    assert.match(watching.error?.message ?? '', /no answer to the watch/);
  });

  claim('a member without a leader loses the watch', async (b) => {
    const watching = await watched(b);
    b.fake.loseLeader();
    await b.until(() => watching.ended, 'the loss');
    assert.match(watching.error?.message ?? '', /no leader/);
  });

  claim('refused pings and an oversized answer are told apart by their text', async (b) => {
    const watching = await watched(b);
    b.fake.failStreams(8, 'Bandwidth exhausted or memory limit exceeded');
    await b.until(() => watching.ended, 'the loss');
    assert.equal(watching.error?.causeKind, 'lost');
    assert.match(watching.error?.message ?? '', /keepalive-min-time/);
  });

  claim('a server that accepts and never answers is lost at the deadline of the call', async (b) => {
    b.fake.halfOpen = true;
    const watching = new Watching(b.adapter);
    await b.until(() => watching.ended, 'the loss', 200);
    assert.equal(watching.error?.causeKind, 'lost');
    assert.match(watching.error?.message ?? '', /no answer/);
  });

  claim('many watches and lists share one stream', async (b) => {
    for (let n = 0; n < 50; n++) b.put(`s${n}`, 'a', n + 1);
    const all = Array.from({ length: 50 }, (_, n) => new Watching(b.adapter, { namespace: 'default', name: `s${n}` }));
    await b.until(() => all.every(({ ids }) => ids === 'a') && b.fake.openWatches === 1, 'all of them');
    assert.equal(b.fake.log.filter(({ call }) => call === 'Watch').length, 1);
    assert.equal(b.fake.log.filter(({ call }) => call === 'Range').length, 1);
    for (const one of all) one.stop();
    await b.until(() => all.every(({ ended }) => ended) && b.fake.openWatches === 0, 'the end of the stream');
    assert.equal(b.clock.pending, 0);
  });

  claim('a consumer that leaves in the moment of the first list leaves no stream behind', async (b) => {
    // A lock that is free looks once at the list of candidates and goes.
    const lock = await b.adapter.stateStore?.().lock('lead', 6_000, NEVER);
    await b.advance(500);
    await b.until(() => b.fake.log.every(({ call }) => call !== 'Watch') || b.fake.openWatches === 0, 'no stream');
    await b.advance(500);
    assert.equal(b.fake.log.filter(({ call }) => call === 'Watch').length, 0);
    await lock?.release();
  });

  claim('a list of more than one page is whole and of one revision', async (b) => {
    for (let n = 0; n < 2_500; n++) b.put('svc', `i${String(n).padStart(4, '0')}`, n + 1);
    const watching = await watched(b);
    assert.equal(watching.last?.kind === 'present' ? watching.last.instances.length : 0, 2_500);
    assert.equal(b.fake.log.filter(({ call }) => call === 'Range').length, 3);
  });
});

describe('authentication of etcd', () => {
  const login = { ...PLAIN, auth: { username: 'weir', password: 'secret' } };
  const on = (b: Bench): void => {
    b.fake.auth = new Map([['weir', 'secret']]);
  };

  claim(
    'a killed token costs one login and no loss',
    async (b) => {
      on(b);
      b.put('svc', 'a', 1);
      const watching = await watched(b);
      b.fake.killTokens();
      b.put('svc', 'b', 2);
      await b.until(() => watching.ids === 'a b', 'events go on');
      assert.equal((await b.adapter.read({ namespace: 'default', name: 'svc' }, new AbortController().signal)).kind, 'present');
      assert.equal(b.fake.log.filter(({ call }) => call === 'Authenticate').length, 2);
      assert.equal(watching.error, null);
    },
    login,
  );

  claim(
    'authentication that is switched off, and on again, is followed',
    async (b) => {
      const watching = await watched(b);
      assert.equal(b.fake.log.filter(({ call }) => call === 'Authenticate').length, 1);
      on(b);
      const read = () => b.adapter.read({ namespace: 'default', name: 'svc' }, new AbortController().signal);
      assert.equal((await read()).kind, 'absent');
      b.fake.auth = null;
      assert.equal((await read()).kind, 'absent');
      assert.equal(watching.error, null);
    },
    login,
  );

  claim(
    'a wrong password is denied and named, and logged in to once per try only',
    async (b) => {
      b.fake.auth = new Map([['weir', 'other']]);
      const watching = new Watching(b.adapter);
      await b.until(() => watching.ended, 'the refusal');
      assert.equal(watching.error?.causeKind, 'denied');
      assert.match(watching.error?.message ?? '', /auth\.password/);
      assert.ok(!(watching.error?.message ?? '').includes('secret'));
      assert.equal(b.fake.log.filter(({ call }) => call === 'Authenticate').length, 1);
    },
    login,
  );

  claim('authentication that we have no user for is denied with what to set', async (b) => {
    on(b);
    const watching = new Watching(b.adapter);
    await b.until(() => watching.ended, 'the refusal');
    assert.equal(watching.error?.causeKind, 'denied');
    assert.match(watching.error?.message ?? '', /auth\.username/);
  });

  claim(
    'rights that are narrowed in mid-watch are noticed by the next periodic list, as denied, never as empty',
    async (b) => {
      on(b);
      b.put('svc', 'a', 1);
      const watching = await watched(b);
      b.fake.mayUse = () => false;
      b.put('svc', 'b', 2);
      await b.until(() => watching.ids === 'a b', 'events still arrive');
      await b.until(() => watching.ended, 'the list', 1_000);
      assert.equal(watching.error?.causeKind, 'denied');
      assert.match(watching.error?.message ?? '', /grant its role/);
      assert.equal(watching.ids, 'a b');
    },
    login,
  );

  claim(
    'rights to write are asked without writing: each service that may not be written is named with the range that is missing',
    async (b) => {
      on(b);
      b.fake.mayUse = (_user, key, right) => right === 'read' || key.startsWith('/services/mine/');
      const asked = (...names: string[]) =>
        b.adapter.mayWrite?.(
          names.map((name) => ({ namespace: 'default', name })),
          NEVER,
        ) ?? assert.fail('the adapter cannot be asked');
      const { revision } = b.fake.store;
      assert.deepEqual(await asked('mine'), []);
      const [fault, ...more] = await asked('mine', 'svc');
      assert.deepEqual(more, []);
      assert.equal(fault?.causeKind, 'denied');
      assert.match(fault.message, /default\/svc may not be written.*READWRITE on the prefix "\/services\/svc\/"/);
      assert.equal((await asked(...Array.from({ length: 100 }, (_, n) => `svc${n}`))).length, 8, 'a few stand for all');
      // A service that this source cannot hold at all is no question of rights, but speaks against it as well.
      const other = await b.adapter.mayWrite?.([{ namespace: 'other', name: 'svc' }], NEVER);
      assert.equal(other?.[0]?.causeKind, 'refused');
      assert.equal(b.fake.store.revision, revision, 'nothing was written');
      b.fake.mayUse = () => true;
      assert.deepEqual(await asked('svc'), []);
      assert.equal(b.fake.store.revision, revision);
      await b.fake.down();
      await assert.rejects(asked('svc'), (thrown) => thrown instanceof SourceError && thrown.causeKind === 'lost');
    },
    login,
  );
});
