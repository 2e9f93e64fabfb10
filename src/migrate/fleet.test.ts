// Who is behind: by what each says, and by when we heard it, whatever its clock shows.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { migrationDoc, sidecarReport } from '../../test/support/migration-fixture.ts';
import { Fleet, SILENT_MS } from './fleet.ts';

const HOUR = 3_600_000;

describe('a fleet', () => {
  const doc = migrationDoc('m1', { phase: 'shift', weight: 25 });
  const at = (wall: number, sidecar = 'b') => ({ ...sidecarReport(sidecar), at: wall });

  it('does not take a host whose clock is an hour off for silent', () => {
    for (const wall of [-HOUR, HOUR]) {
      const fleet = new Fleet();
      for (let now = 0; now < 5 * SILENT_MS; now += 10_000)
        assert.deepEqual(fleet.behind(doc, [at(1_700_000_000_000 + wall + now)], now), []);
    }
  });

  it('takes a host for silent that has sent nothing new for 30 s, though its clock is ahead, and hears it again', () => {
    const fleet = new Fleet();
    const ahead = at(1_700_000_000_000 + HOUR);
    assert.deepEqual(fleet.behind(doc, [ahead], 0), []);
    assert.deepEqual(fleet.behind(doc, [ahead], SILENT_MS), []);
    assert.deepEqual(fleet.behind(doc, [ahead], SILENT_MS + 1), ['b']);
    assert.deepEqual(fleet.behind(doc, [{ ...ahead, at: 1 }], SILENT_MS + 2), [], 'a clock set back is a new word, too');
  });

  it('names who reports another phase or weight, in order, and nobody who was declared gone', () => {
    const fleet = new Fleet();
    const reports = [
      { ...at(1, 'c'), weight: 10 },
      { ...at(1, 'a'), phase: 'mirror' as const },
      at(1, 'b'),
      { ...at(1, 'z'), weight: 0 },
    ];
    assert.deepEqual(fleet.behind({ ...doc, forgotten: ['z'] }, reports, 0), ['a', 'c']);
  });
});
