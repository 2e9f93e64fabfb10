// Names, weights, metadata and errors of the model: table tests of the limits in catalog-rules §6 and M4.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { routable } from './health-status.ts';
import { nativeWeight, scaleWeight } from './instance.ts';
import { boundedMetadata, metadataText, sameMetadata } from './metadata.ts';
import { nameFault, parseServiceId, serviceId } from './service.ts';
import { asSourceError, SourceError } from './snapshot.ts';

test('a service prints as namespace/name and reads back, slashes in the name included', () => {
  assert.deepEqual(parseServiceId('game/lobby'), { namespace: 'game', name: 'lobby' });
  assert.deepEqual(parseServiceId('default/a/b'), { namespace: 'default', name: 'a/b' });
  assert.equal(serviceId({ namespace: 'default', name: '__proto__' }), 'default/__proto__');
  for (const bad of ['', 'x', '/x', 'x/', `n/${'x'.repeat(256)}`, 'n/a\nb', 'n/a\u0000', 'n/\ud800', 'n/a\u2028'])
    assert.equal(parseServiceId(bad), null, bad);
});

test('names may hold any script but no control character', () => {
  for (const good of ['lobby', '大厅', '😀', 'a b', 'a.b:c', '__proto__']) assert.equal(nameFault(good), null, good);
  assert.match(nameFault('\u0085') ?? '', /control/);
});

test('weights scale by the native normal, keep zero, and never round a live instance to zero', () => {
  const table: readonly (readonly [number, number, number | null])[] = [
    [1, 1, 100],
    [2.5, 1, 250],
    [0, 1, 0],
    [0.001, 1, 1],
    [10, 10, 100],
    [7, 100, 7],
    [1e9, 1, 65_535],
    [Number.NaN, 1, null],
    [-1, 1, null],
    [Number.POSITIVE_INFINITY, 1, null],
  ];
  for (const [native, normal, expected] of table) assert.equal(scaleWeight(native, normal), expected, `${native}/${normal}`);
});

test('a weight that a registry can express survives the way there and back', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 65_535 }), fc.constantFrom(1, 10, 100), (weight, normal) => {
      const native = nativeWeight(weight, normal, 0.01);
      assert.equal(native === 0, weight === 0);
      const back = scaleWeight(native, normal);
      assert.ok(back !== null && Math.abs(back - weight) <= 1, `${weight} → ${native} → ${back}`);
    }),
  );
});

test('metadata is bounded in keys, sizes and characters, and what is left out is counted', () => {
  const many = Array.from({ length: 10_000 }, (_unused, i): [string, unknown] => [`k${i}`, 'v']);
  assert.equal(boundedMetadata(many).metadata.size, 64);
  assert.equal(boundedMetadata(many).cut, 10_000 - 64);
  const { metadata, cut } = boundedMetadata([
    ['ok', 'text'],
    ['number', 5],
    ['nested', { a: [1] }],
    ['null', null],
    ['__proto__', 'plain'],
    ['big', 'x'.repeat(1_025)],
    ['x'.repeat(129), 'v'],
    ['control', 'a\u0000b'],
    ['tab', 'a\tb'],
    ['', 'v'],
  ]);
  assert.deepEqual(
    [...metadata],
    [
      ['ok', 'text'],
      ['number', '5'],
      ['nested', '{"a":[1]}'],
      ['__proto__', 'plain'],
      ['tab', 'a\tb'],
    ],
  );
  assert.equal(cut, 5);
  assert.equal(metadataText(undefined), null);
});

test('metadata is compared by content', () => {
  const a = new Map([
    ['x', '1'],
    ['y', '2'],
  ]);
  const b = new Map([
    ['y', '2'],
    ['x', '1'],
  ]);
  assert.ok(sameMetadata(a, b));
  assert.ok(!sameMetadata(a, new Map([['x', '1']])));
  assert.ok(!sameMetadata(a, new Map([...b, ['y', '3']])));
});

test('what an adapter throws is a SourceError, and an unknown throw counts as lost', () => {
  const denied = new SourceError('denied', 'no right', { retryAfterMs: 5 });
  assert.equal(asSourceError(denied), denied);
  assert.equal(denied.retryAfterMs, 5);
  assert.equal(asSourceError(new TypeError('bug')).causeKind, 'lost');
  assert.equal(asSourceError('text').message, 'text');
});

test('healthy and unknown are routable, the others are not', () => {
  assert.deepEqual((['healthy', 'unknown', 'unhealthy', 'isolated'] as const).map(routable), [true, true, false, false]);
});
