// Rules 1-4 of the watch loop as a table, and the transcripts that were seen on 3.4.23 and 3.6.16 (protocol notes, section 11).
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Mark } from './mirror.ts';
import type { Event, WatchResponse } from './protocol.ts';
import { WatchRules, type WatchStep } from './watch-rules.ts';

const MARK: Mark = { clusterId: '7', revision: 6n, raftTerm: 4n, epoch: 0 };

function response(
  revision: number,
  fields: Partial<WatchResponse> = {},
  header: { clusterId?: string; raftTerm?: string } = {},
): WatchResponse {
  return {
    header: { clusterId: '7', memberId: '1', raftTerm: '4', ...header, revision: String(revision) },
    watchId: '0',
    created: false,
    canceled: false,
    compactRevision: '0',
    cancelReason: '',
    fragment: false,
    events: [],
    ...fields,
  };
}

function put(modRevision: number, type = 0): Event {
  const kv = {
    key: Buffer.from('/a/k'),
    createRevision: '2',
    modRevision: String(modRevision),
    version: '2',
    value: Buffer.from('v'),
    lease: '0',
  };
  return { type, kv, prevKv: null };
}

/** Rules after a list at revision 6 and `created`. */
function open(): WatchRules {
  const rules = new WatchRules(MARK, 6n);
  assert.deepEqual(rules.step(response(6, { created: true })), { kind: 'created', revision: 6n });
  return rules;
}

function revisions(step: WatchStep): string[] {
  assert.equal(step.kind, 'events');
  return step.kind === 'events' ? step.events.map(({ kv }) => kv.modRevision) : [];
}

describe('what a watch response means', () => {
  it('created tells only its revision, never progress', () => {
    const rules = new WatchRules(MARK, 6n);
    assert.equal(rules.created, false);
    assert.deepEqual(rules.step(response(3_052, { created: true })), { kind: 'created', revision: 3_052n });
    assert.equal(rules.created, true);
  });

  it('events are given with their own revisions, whatever the header says (catch-up carries the current one)', () => {
    const rules = open();
    assert.deepEqual(revisions(rules.step(response(3_052, { events: [put(7), put(8, 1)] }))), ['7', '8']);
    // The header 3052 was not taken as progress: an answer of revision 9 is no step back.
    assert.deepEqual(revisions(rules.step(response(9, { events: [put(9)] }))), ['9']);
  });

  it('a delete is told from a put', () => {
    const step = open().step(response(8, { events: [put(8, 1)] }));
    assert.equal(step.kind === 'events' && step.events[0]?.kind, 'delete');
  });

  it('fragments are held until the closing one, also when a revision is cut in two', () => {
    const rules = open();
    assert.deepEqual(rules.step(response(3_052, { fragment: true, events: [put(7), put(23)] })), { kind: 'wait' });
    assert.deepEqual(rules.step(response(3_052, { fragment: true, events: [put(23), put(33)] })), { kind: 'wait' });
    assert.deepEqual(revisions(rules.step(response(3_052, { events: [put(33)] }))), ['7', '23', '23', '33', '33']);
  });

  it('an answer between two fragments is no progress, and the closing response may be empty', () => {
    const rules = open();
    rules.step(response(20, { fragment: true, events: [put(7)] }));
    assert.deepEqual(rules.step(response(20, { watchId: '-1' })), { kind: 'wait' });
    assert.deepEqual(revisions(rules.step(response(20))), ['7']);
    assert.deepEqual(rules.step(response(20, { watchId: '-1' })), { kind: 'progress', revision: 20n });
  });

  it('an answer without events is progress when it is for the stream or for our watch, and for nobody else', () => {
    const rules = open();
    assert.deepEqual(rules.step(response(9, { watchId: '-1' })), { kind: 'progress', revision: 9n });
    assert.deepEqual(rules.step(response(10)), { kind: 'progress', revision: 10n });
    assert.deepEqual(rules.step(response(11, { watchId: '5' })), { kind: 'wait' });
  });

  it('a compacted start is created and then canceled with header revision 0: list again, not a step back', () => {
    const rules = new WatchRules(MARK, 6n);
    rules.step(response(17, { created: true }));
    assert.deepEqual(rules.step(response(0, { canceled: true, compactRevision: '17' })), { kind: 'relist', reason: 'compacted' });
  });

  for (const [name, text, want] of [
    ['no token', 'rpc error: code = InvalidArgument desc = etcdserver: user name is empty', 'denied'],
    ['bad token', 'rpc error: code = Unauthenticated desc = etcdserver: invalid auth token', 'denied'],
    ['no right', 'rpc error: code = PermissionDenied desc = etcdserver: permission denied', 'denied'],
    ['start below the compaction (3.6)', 'etcdserver: mvcc: required revision has been compacted', 'relist'],
    ['empty range', 'mvcc: watcher range is empty', 'lost'],
    ['watch id in use', 'mvcc: duplicate watch ID provided on the WatchStream', 'lost'],
    ['no reason at all', '', 'lost'],
  ] as const) {
    it(`a refusal is judged by its text: ${name} is ${want}`, () => {
      const step = new WatchRules(MARK, 6n).step(
        response(6, { created: true, canceled: true, watchId: '-1', cancelReason: text }),
      );
      assert.equal(step.kind, want);
    });
  }

  for (const [name, bad, reason] of [
    ['another cluster', response(9, {}, { clusterId: '8' }), 'clusterChanged'],
    ['a revision below what was seen', response(5), 'revisionBack'],
    ['an older term', response(9, {}, { raftTerm: '3' }), 'termBack'],
  ] as const) {
    it(`${name} is suspicious, on created and later`, () => {
      assert.deepEqual(new WatchRules(MARK, 6n).step({ ...bad, created: true }), { kind: 'relist', reason });
      assert.deepEqual(open().step(bad), { kind: 'relist', reason });
    });
  }

  it('the created of a wiped store (revision 11 against next 2,959) shows it', () => {
    assert.deepEqual(new WatchRules(null, 2_958n).step(response(11, { created: true })), {
      kind: 'relist',
      reason: 'revisionBack',
    });
  });

  it('once the list has decided a lagging member is taken as it is, and then must not go back', () => {
    const rules = new WatchRules(MARK, 0n);
    assert.equal(rules.step(response(3, { created: true }, { raftTerm: '1' })).kind, 'created');
    assert.equal(rules.step(response(5, { watchId: '-1' })).kind, 'progress');
    assert.deepEqual(rules.step(response(4, { watchId: '-1' })), { kind: 'relist', reason: 'revisionBack' });
  });

  it('an answer without a header is a loss', () => {
    assert.equal(open().step({ ...response(7), header: null }).kind, 'lost');
  });
});
