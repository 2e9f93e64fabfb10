import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { spec } from '../../test/migrate/docs.ts';
import { decodeSpec, specJson } from './spec.ts';

const base = { id: 'm1', from: 'old', to: 'new', services: ['game/*'] };

function faults(changes: Record<string, unknown>): string[] {
  const decoded = decodeSpec({ ...base, ...changes });
  return decoded.ok ? [] : decoded.faults.map(({ path, expected, got }) => `${path}: expected ${expected}, got ${got}`);
}

describe('order of a migration', () => {
  it('fills in every default', () => {
    const order = spec();
    assert.deepEqual(order.limits, { callsPerSecond: 50, deletePercentPerMinute: 15, grace: 60_000 });
    assert.deepEqual(order.gates, { soak: 600_000, maxErrorRate: null, maxP99Ratio: null, onBreach: 'stop' });
    assert.deepEqual([order.direction, order.liveness, order.sticky], ['oneWay', 'beat', null]);
  });

  it('comes back the same through the form in which people write it', () => {
    const order = spec({
      direction: 'twoWay',
      sticky: { header: 'X-User' },
      mapping: { name: 'x-{name}', metadata: { rename: { a: 'b' }, drop: ['c'], set: { d: 'e' } } },
      gates: { soak: '90s', maxErrorRate: 0.02, maxP99Ratio: 2, onBreach: 'rollback' },
      limits: { callsPerSecond: 10, grace: 0 },
    });
    assert.equal(order.sticky?.header, 'x-user');
    const again = decodeSpec(JSON.parse(JSON.stringify(specJson(order))));
    assert.ok(again.ok);
    assert.deepEqual(again.spec, order);
  });

  it('says what is wrong with the path of each fault', () => {
    assert.match(faults({ to: 'old' }).join(), /to: expected another source than from/);
    assert.match(faults({ services: ['game/**'] }).join(), /services\[0\]: expected literal text and single \*/);
    assert.match(faults({ services: [] }).join(), /services/);
    assert.match(faults({ mapping: { name: '{nam}' } }).join(), /mapping\.name: expected text with no other holes/);
    assert.match(faults({ mapping: { namespace: '' } }).join(), /mapping\.namespace/);
    assert.match(
      faults({ mapping: { metadata: { set: { 'weir-origin': 'x' } } } }).join(),
      /mapping\.metadata: expected no key that starts with weir-/,
    );
    assert.match(faults({ gates: { soak: '5' } }).join(), /gates\.soak/);
    assert.match(faults({ gates: { maxErrorRate: 2 } }).join(), /gates\.maxErrorRate: expected a number from 0 to 1/);
    assert.match(faults({ limits: { callsPerSecond: 0 } }).join(), /limits\.callsPerSecond/);
    assert.match(faults({ id: 'a b' }).join(), /id: expected 1\.\.64 characters/);
    assert.match(faults({ phase: 'cutover' }).join(), /phase/);
  });

  it('refuses what is no object, and never throws', () => {
    for (const value of [null, 3, 'x', [], { services: 'a' }, { __proto__: null, id: 1 }])
      assert.equal(decodeSpec(value).ok, false);
  });
});
