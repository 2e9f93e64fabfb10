import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Phase } from './migration.ts';
import { Overlay, type OverlayEntry, overlayOf } from './overlay.ts';

function entry(changes: Partial<OverlayEntry> = {}): OverlayEntry {
  return { id: 'm1', from: 'old', to: 'new', services: ['game/*'], phase: 'mirror', weight: 0, sticky: null, ...changes };
}

describe('overlay of a migration', () => {
  it('prefers from, then draws by weight, then prefers to, then reads to only', () => {
    assert.deepEqual(overlayOf(entry())?.merge, { kind: 'prefer', order: ['old', 'new'] });
    assert.deepEqual(overlayOf(entry({ phase: 'shift', weight: 30 }))?.merge, {
      kind: 'weighted',
      shares: [
        { source: 'old', share: 70 },
        { source: 'new', share: 30 },
      ],
    });
    assert.deepEqual(overlayOf(entry({ phase: 'cutover', weight: 100 }))?.merge, { kind: 'prefer', order: ['new', 'old'] });
    assert.deepEqual(overlayOf(entry({ phase: 'finished' }))?.merge, { kind: 'prefer', order: ['new'] });
    for (const phase of ['plan', 'aborting', 'aborted'] as const) assert.equal(overlayOf(entry({ phase })), null);
  });

  it('keeps holds from being confirmed by time while it migrates, and no longer', () => {
    const byTime = (phase: Phase) => overlayOf(entry({ phase }))?.holdsByTime;
    assert.deepEqual(
      ['mirror', 'shift', 'cutover', 'finished'].map((phase) => byTime(phase as Phase)),
      [false, false, false, true],
    );
  });

  it('from cutover on, from alone isolates nobody; the sticky header belongs to the shift', () => {
    assert.equal(overlayOf(entry({ phase: 'cutover' }))?.isolationIgnores, 'old');
    assert.equal(overlayOf(entry({ phase: 'shift' }))?.isolationIgnores, undefined);
    assert.equal(overlayOf(entry({ phase: 'shift', sticky: 'x-user' }))?.sticky, 'x-user');
    assert.equal(overlayOf(entry({ phase: 'cutover', sticky: 'x-user' }))?.sticky, undefined);
  });

  it('finds the service by pattern, and a running migration before an ended one', () => {
    const overlay = new Overlay();
    assert.equal(overlay.of('game/a'), null);
    assert.equal(overlay.set([entry({ id: 'a', phase: 'finished' }), entry({ id: 'b' })]), true);
    assert.equal(overlay.of('game/a')?.migration, 'b');
    assert.equal(overlay.of('web/a'), null);
    assert.equal(overlay.set([entry({ id: 'a', phase: 'finished' }), entry({ id: 'b' })]), false);
    overlay.set([entry({ id: 'a', phase: 'finished' })]);
    assert.equal(overlay.of('game/a')?.migration, 'a');
  });
});
