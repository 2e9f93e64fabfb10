import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { NO_METADATA } from '../model/instance.ts';
import type { Snapshot } from '../model/snapshot.ts';
import { mergeUnread } from './snapshot-slot.ts';

function present(ids: string[], deregistered?: string[]): Snapshot {
  const instances = ids.map((id) => ({
    id,
    host: '192.0.2.1',
    port: 80,
    transport: 'tcp' as const,
    weight: 100,
    health: 'healthy' as const,
    isolated: false,
    metadata: NO_METADATA,
  }));
  return {
    kind: 'present',
    epoch: 'e',
    sourceRevision: ids.join(),
    instances,
    rejected: [],
    ...(deregistered && { deregistered }),
  };
}

const absent: Snapshot = { kind: 'absent', epoch: 'e', sourceRevision: '9' };

describe('the slot of a watch', () => {
  it('unchanged never replaces an unread snapshot', () => {
    const waiting = present(['a']);
    assert.equal(mergeUnread(waiting, { kind: 'unchanged' }), waiting);
    assert.equal(mergeUnread({ kind: 'unchanged' }, waiting), waiting);
  });

  it('the newest snapshot wins and carries over who was deregistered unread', () => {
    assert.deepEqual(mergeUnread(present(['b'], ['a']), present([], ['b'])), present([], ['a', 'b']));
    assert.deepEqual(mergeUnread(present(['b'], ['a']), present(['b', 'c'])), present(['b', 'c'], ['a']));
  });

  it('who is back was registered anew: the old word is over', () => {
    const incoming = present(['a']);
    assert.equal(mergeUnread(present([], ['a']), incoming), incoming);
  });

  it('absent replaces present', () => {
    assert.equal(mergeUnread(present(['a'], ['b']), absent), absent);
  });
});
