import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Type } from 'typebox';
import { decoder, describe, faultText, parseJson } from './decode.ts';

const shape = decoder(
  Type.Object(
    { port: Type.Integer({ minimum: 1, maximum: 65_535 }), list: Type.Array(Type.Object({ 'odd key': Type.String() })) },
    { additionalProperties: false },
  ),
);

test('a good value passes unchanged', () => {
  const value = { port: 80, list: [{ 'odd key': 'x' }] };
  const decoded = shape(value);
  assert.ok(decoded.ok && decoded.value === value);
});

test('every fault is named by its path, what was expected and what came', () => {
  const decoded = shape({ port: 0, list: [{ 'odd key': 5 }], extra: true });
  assert.ok(!decoded.ok);
  assert.deepEqual(decoded.faults.map(faultText).sort(), [
    'extra: expected no such key, got true',
    'list[0]["odd key"]: expected string, got 5',
    'port: expected >= 1, got 0',
  ]);
});

test('the first values and those after the schema was compiled are judged alike, with the same faults', () => {
  const schema = Type.Object(
    {
      port: Type.Integer({ minimum: 1, maximum: 65_535 }),
      name: Type.Optional(Type.String({ pattern: '^[a-z]+$', maxLength: 4 })),
      one: Type.Optional(Type.Union([Type.Literal('a'), Type.Null(), Type.Tuple([Type.Number(), Type.Boolean()])])),
      all: Type.Optional(Type.Record(Type.String(), Type.Array(Type.Number(), { maxItems: 2, uniqueItems: true }))),
    },
    { additionalProperties: false },
  );
  const used = decoder(schema);
  for (let i = 0; i < 20; i++) used({ port: 1 });
  const member = fc.oneof(fc.constantFrom('a', null, [1, true], 'abcde', 'B', {}), fc.jsonValue());
  const near = fc.record(
    {
      port: fc.oneof(fc.integer({ min: -1, max: 70_000 }), member),
      name: fc.oneof(fc.constantFrom('abc', 'abcde', 'B', ''), member),
      one: member,
      all: fc.oneof(fc.dictionary(fc.string(), fc.array(fc.integer({ min: 0, max: 2 }), { maxLength: 3 })), member),
      more: member,
    },
    { requiredKeys: [] },
  );
  fc.assert(fc.property(fc.oneof(near, fc.jsonValue()), (value) => assert.deepEqual(decoder(schema)(value), used(value))));
});

test('JSON over a cap of bytes or depth, or in broken UTF-8, is a fault and no exception', () => {
  assert.ok(parseJson('{"a":1}', { maxBytes: 10 }).ok);
  assert.ok(parseJson('\ufeff{"a":1}', { maxBytes: 100 }).ok);
  assert.ok(!parseJson('{"a":1}', { maxBytes: 3 }).ok);
  assert.ok(!parseJson(`${'['.repeat(33)}${']'.repeat(33)}`, { maxBytes: 1_000 }).ok);
  assert.ok(parseJson(`${'['.repeat(32)}${']'.repeat(32)}`, { maxBytes: 1_000 }).ok);
  assert.ok(parseJson(JSON.stringify('[['.repeat(50)), { maxBytes: 1_000 }).ok);
  assert.ok(!parseJson(new Uint8Array([0x22, 0xff, 0x22]), { maxBytes: 100 }).ok);
  assert.ok(!parseJson('{', { maxBytes: 100 }).ok);
});

test('a million levels of nesting are refused in linear time', () => {
  const started = performance.now();
  assert.ok(!parseJson('['.repeat(1_000_000), { maxBytes: 2_000_000 }).ok);
  assert.ok(performance.now() - started < 500);
});

test('no input makes the decoder throw or pollutes a prototype', () => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      const text = JSON.stringify(value);
      const parsed = parseJson(text, { maxBytes: 1_000_000 });
      if (parsed.ok) shape(parsed.value);
      describe(value);
    }),
  );
  const parsed = parseJson('{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}}', { maxBytes: 1_000 });
  assert.ok(parsed.ok);
  shape(parsed.value);
  assert.equal(Reflect.get({}, 'polluted'), undefined);
});
