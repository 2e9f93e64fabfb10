// Our codec against the one of the packages on generated messages, and against bytes that are none.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { packagedCodec } from './fake-services.ts';
import { decode, encode, shapesOf } from './protobuf.ts';
import { codec, type DiscoverResponse, type NativeInstance } from './protocol.ts';

const text = fc.record({ value: fc.string({ unit: 'grapheme' }) }, { requiredKeys: [] });
const uint = fc.record({ value: fc.integer({ min: 0, max: 0xffff_ffff }) }, { requiredKeys: [] });
const flag = fc.record({ value: fc.boolean() }, { requiredKeys: [] });
const entry = fc.record({ key: fc.string(), value: fc.oneof(fc.string(), fc.constant('__proto__')) }, { requiredKeys: [] });

const instance: fc.Arbitrary<NativeInstance> = fc.record(
  {
    id: text,
    service: text,
    host: text,
    port: uint,
    weight: uint,
    healthCheck: fc.record(
      { type: fc.integer({ min: -5, max: 5 }), heartbeat: fc.record({ ttl: uint }, { requiredKeys: [] }) },
      { requiredKeys: [] },
    ),
    healthy: flag,
    isolate: flag,
    location: fc.record({ region: text, zone: text, campus: text }, { requiredKeys: [] }),
    metadata: fc.array(entry, { minLength: 1, maxLength: 4 }),
    vpcId: text,
  },
  { requiredKeys: [] },
);

const answer: fc.Arbitrary<DiscoverResponse> = fc.record(
  {
    code: uint,
    info: text,
    type: fc.integer({ min: -2_147_483_648, max: 2_147_483_647 }),
    service: fc.record({ name: text, revision: text, id: text }, { requiredKeys: [] }),
    instances: fc.array(instance, { minLength: 1, maxLength: 4 }),
    aliasFor: fc.record({ name: text }, { requiredKeys: [] }),
  },
  { requiredKeys: [] },
);

const ours = codec('Discover');
const theirs = packagedCodec('Discover');

describe('protobuf', () => {
  it('what we write the packages read, and the reverse, field by field', () => {
    fc.assert(
      fc.property(answer, (message) => {
        const plain: unknown = JSON.parse(JSON.stringify(theirs.decodeResponse(ours.encodeResponse(message))));
        assert.deepEqual(plain, JSON.parse(JSON.stringify(message)));
        assert.deepEqual(JSON.parse(JSON.stringify(ours.decodeResponse(theirs.encodeResponse(message)))), plain);
      }),
    );
  });

  it('the paths of the calls are those of the packages', () => {
    for (const name of ['RegisterInstance', 'DeregisterInstance', 'Heartbeat', 'Discover', 'BatchHeartbeat'] as const) {
      assert.equal(codec(name).path, packagedCodec(name).path);
    }
  });

  it('cut messages throw or read as what came before the cut; no byte makes the reader hang or crash', () => {
    fc.assert(
      fc.property(answer, fc.nat(), fc.nat(), fc.integer({ min: 0, max: 255 }), (message, cut, at, byte) => {
        const bytes = ours.encodeResponse(message);
        for (const spoilt of [bytes.subarray(0, cut % (bytes.length + 1)), Buffer.from(bytes)]) {
          if (spoilt.length === bytes.length && spoilt.length > 0) spoilt[at % spoilt.length] = byte;
          try {
            ours.decodeResponse(spoilt);
          } catch (thrown) {
            assert.ok(thrown instanceof Error && thrown.message.startsWith('protobuf: '), String(thrown));
          }
        }
      }),
    );
  });

  it('fields that are unknown or of another wire type are skipped, groups and overlong numbers are refused', () => {
    const shape = shapesOf({ One: 'string a 1, uint32 b 2' }).get('One') ?? assert.fail();
    // Field 9 as varint, fixed 64, bytes, fixed 32; field 1 as a varint; then a = "x", b = 300.
    const hex = '4805' + '490000000000000000' + '4a0161' + '4d00000000' + '0805' + '0a0178' + '10ac02';
    assert.deepEqual(decode(shape, Buffer.from(hex, 'hex')), { a: 'x', b: 300 });
    for (const bad of ['4b', '0a05', '10ffffffffffffffffffffff01', '4900', '10', 'ff']) {
      assert.throws(() => decode(shape, Buffer.from(bad, 'hex')), /^Error: protobuf: /, bad);
    }
    assert.deepEqual(encode(shape, { a: undefined, c: 1 }), Buffer.alloc(0));
  });

  it('a table with a type that it does not hold is refused', () => {
    assert.throws(() => shapesOf({ One: 'Two a 1' }), /no type Two/);
  });
});
