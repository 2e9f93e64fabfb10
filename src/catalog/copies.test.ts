import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isForeignCopy, markersOf, readMarker, withoutForgedMarkers } from './copies.ts';

const map = (entries: Record<string, string>): Map<string, string> => new Map(Object.entries(entries));
const valid = { 'weir-origin': 'nacos-sz', 'weir-migration': 'm1', 'weir-hops': '1' };

describe('copy markers (W4)', () => {
  it('what is written is read back', () => {
    for (const marker of [
      { origin: 'a', migration: 'm' },
      { origin: 'consul-sz', migration: 'cl5.to.polaris', epoch: '17' },
    ]) {
      assert.deepEqual(readMarker(new Map(markersOf(marker))), marker);
    }
  });

  const invalid: readonly (readonly [why: string, metadata: Record<string, string>])[] = [
    ['nothing', {}],
    ['no migration', { 'weir-origin': 'a', 'weir-hops': '1' }],
    ['no hops', { 'weir-origin': 'a', 'weir-migration': 'm' }],
    ['two hops: a copy begets no copy', { ...valid, 'weir-hops': '2' }],
    ['an origin that is no id', { ...valid, 'weir-origin': '../x' }],
    ['an empty origin', { ...valid, 'weir-origin': '' }],
    ['a kept copy', { ...valid, 'weir-kept': 'a' }],
  ];
  for (const [why, metadata] of invalid) {
    it(`no marker: ${why}`, () => assert.equal(readMarker(map(metadata)), null));
  }

  it('forged weir-* keys leave, valid markers and a kept mark stay, other keys are untouched', () => {
    const clean = (entries: Record<string, string>) => Object.fromEntries(withoutForgedMarkers(map(entries)));
    assert.deepEqual(clean({ ...valid, zone: 'a', 'weir-evil': 'x' }), { ...valid, zone: 'a' });
    assert.deepEqual(clean({ ...valid, 'weir-hops': '9', zone: 'a' }), { zone: 'a' });
    assert.deepEqual(clean({ 'weir-kept': 'a', 'weir-migration': 'm' }), { 'weir-kept': 'a', 'weir-migration': 'm' });
    assert.deepEqual(clean({ 'weir-kept': '' }), {});
    const plain = map({ zone: 'a' });
    assert.equal(withoutForgedMarkers(plain), plain, 'nothing to do: the same map');
  });

  it('knows the copies of other tools', () => {
    for (const key of ['__sync__', 'internal-eureka-replicate', 'sourceClusterId', 'internal-register-from', 'external-source']) {
      assert.equal(isForeignCopy(map({ [key]: 'x' })), true);
    }
    assert.equal(isForeignCopy(map({ sync: 'x' })), false);
  });
});
