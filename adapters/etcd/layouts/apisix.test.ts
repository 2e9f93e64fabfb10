// Changes inside an APISIX upstream: only nodes and update_time, and only nodes that are ours.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { apisixLayout } from './apisix.ts';
import type { Edit, Edited } from './layout.ts';

const NOW = 1_700_000_000;
const edit = (port: number, weight: number | null, fields: Partial<Edit> = {}): Edit => ({
  id: `10.0.0.1:${port}`,
  host: '10.0.0.1',
  port,
  weight,
  ours: false,
  ...fields,
});

function apply(value: object | string, ...edits: Edit[]): Edited | string {
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  return apisixLayout.edit?.apply(Buffer.from(text), edits, NOW) ?? assert.fail('not writable');
}

/** The value after the edits, decoded; null: nothing to change. */
function after(value: object | string, ...edits: Edit[]): unknown {
  const edited = apply(value, ...edits);
  assert.ok(typeof edited !== 'string', String(edited));
  return edited.value === null ? null : JSON.parse(edited.value);
}

describe('an edited upstream', () => {
  it('keeps every other field, their order and every other node', () => {
    const text =
      '{"id":"1","__proto__":{"x":1},"retries":2,"nodes":{"10.9.9.9:1":3},"timeout":{"send":1.5},"update_time":5,"labels":{"a":"b"},"checks":{}}';
    const edited = apply(text, edit(80, 2));
    assert.ok(typeof edited !== 'string');
    assert.equal(
      edited.value,
      '{"id":"1","__proto__":{"x":1},"retries":2,"nodes":{"10.9.9.9:1":3,"10.0.0.1:80":2},"timeout":{"send":1.5},"update_time":1700000000,"labels":{"a":"b"},"checks":{}}',
    );
  });

  it('of the list form keeps the other members of a node and gets IPv6 in brackets', () => {
    const nodes = [
      { host: '10.0.0.1', port: 80, weight: 1, priority: 2, metadata: { a: 1 } },
      { host: 'x y', weight: 1 },
    ];
    assert.deepEqual(after({ nodes }, edit(80, 5, { ours: true }), edit(81, 1, { host: 'fd00::1' })), {
      nodes: [{ ...nodes[0], weight: 5 }, nodes[1], { host: '[fd00::1]', port: 81, weight: 1 }],
      update_time: NOW,
    });
    assert.deepEqual(after({ nodes: { a: 1 } }, edit(81, 1, { host: 'fd00::1' })), {
      nodes: { a: 1, '[fd00::1]:81': 1 },
      update_time: NOW,
    });
  });

  it('loses the nodes that are taken out, to the last one, and stays in its form', () => {
    const gone = edit(80, null, { ours: true });
    assert.deepEqual(after({ nodes: { '10.0.0.1': 1, '10.0.0.2': 1 } }, gone), { nodes: { '10.0.0.2': 1 }, update_time: NOW });
    assert.deepEqual(after({ nodes: [{ host: '10.0.0.1', port: 80, weight: 1 }] }, gone), { nodes: [], update_time: NOW });
  });

  it('is left as it is when nothing changes: the same weight, or a node that is gone already', () => {
    const value = { nodes: { '10.0.0.1:80': 2 }, update_time: 1 };
    assert.equal(after(value, edit(80, 2)), null);
    assert.equal(after(value, edit(81, null, { ours: true })), null);
    assert.equal(after(value), null);
  });

  it('keeps a node of another owner with another weight, and says so', () => {
    const edited = apply({ nodes: { '10.0.0.1:80': 2 } }, edit(80, 9), edit(81, 1));
    assert.ok(typeof edited !== 'string');
    assert.deepEqual([...edited.foreign], ['10.0.0.1:80']);
    assert.deepEqual(JSON.parse(edited.value ?? '').nodes, { '10.0.0.1:80': 2, '10.0.0.1:81': 1 });
  });

  it('keeps an address that one instance leaves and another takes, in either order', () => {
    const leaves = edit(80, null, { ours: true });
    for (const edits of [
      [leaves, edit(80, 3)],
      [edit(80, 3), leaves],
    ]) {
      assert.deepEqual(after({ nodes: { '10.0.0.1:80': 2 } }, ...edits), { nodes: { '10.0.0.1:80': 3 }, update_time: NOW });
    }
  });

  for (const [name, value, reason] of [
    ['takes its nodes from another registry', { service_name: 'x', discovery_type: 'nacos' }, /service_name/],
    ['is filled by apisix-seed', { nodes: [], _service_name: 'x' }, /apisix-seed/],
    ['has no nodes', { id: '1' }, /nodes/],
    ['has nodes of another type', { nodes: 'x' }, /nodes/],
    ['is no JSON', '{', /JSON/],
  ] as const) {
    it(`that ${name} is refused`, () => assert.match(String(apply(value, edit(80, 1))), reason));
  }
});
