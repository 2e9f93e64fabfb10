// The codec against the golden vectors, and its refusals.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { frame, HEAD_BYTES } from './frame.ts';
import { decodeAnswer, encodeNames, encodeSync } from './messages.ts';
import { dottedQuad, ipNumber } from './sid.ts';
import { bytes, NO_NAME, V1, V2, V2_SERVER, V2_SERVER_LIST, V3, V4, V5, V5_LIST, V6 } from './vectors.ts';
import { WireFault, WireReader, WireWriter } from './wire.ts';

const HERE = 16_777_343;
const SID = { modid: 192_002_625, cmdid: 487_373 };
const body = (hex: string): Buffer => bytes(hex).subarray(HEAD_BYTES);

describe('golden vectors', () => {
  it('request 100 is V1 byte for byte', () => {
    assert.equal(frame(encodeSync(7, HERE, [SID])).toString('hex'), V1);
  });

  it('request 104 is V3 byte for byte', () => {
    assert.equal(frame(encodeNames(8, HERE, ['demo.l5'])).toString('hex'), V3);
  });

  it('V2 shows two instances, one with a negative address, name, nearby, place and server', () => {
    const answer = decodeAnswer(body(V2));
    assert.deepEqual(answer, {
      seqno: 7,
      cmd: 101,
      result: 100,
      error: '',
      names: null,
      sync: {
        serv: [
          { sid: SID, ip: 33_554_559, port: 8080, weight: 100 },
          { sid: SID, ip: -1_408_194_368, port: 65_535, weight: 50 },
        ],
        sids: [{ sid: SID, name: 'demo.l5', policy: 1 }],
        ipc: [{ ip: 33_554_559, area: 0, city: 0, idc: 0 }],
        servers: [HERE],
      },
    });
    assert.deepEqual(
      answer.sync?.serv.map(({ ip }) => dottedQuad(ip)),
      ['127.0.0.2', '192.168.16.172'],
    );
  });

  it('V4 gives the SID of the name, and an unknown name gives none', () => {
    assert.deepEqual(decodeAnswer(body(V4)).names, [{ sid: SID, name: 'demo.l5', policy: 0 }]);
    assert.deepEqual(decodeAnswer(body(NO_NAME)).names, []);
  });

  it('V5 has no lists at all, V6 the SID alone, and a server list is told from none', () => {
    assert.deepEqual(decodeAnswer(body(V5)).sync, { serv: [], sids: [], ipc: [], servers: null });
    assert.deepEqual(decodeAnswer(body(V5_LIST)).sync, { serv: [], sids: [], ipc: [], servers: [HERE] });
    const known = decodeAnswer(body(V6)).sync;
    assert.deepEqual(known?.sids, [{ sid: SID, name: 'demo.l5', policy: 1 }]);
    assert.deepEqual(known?.serv, []);
  });

  it('the answers of a real server have both places, with and without the server list', () => {
    for (const [hex, servers] of [
      [V2_SERVER, null],
      [V2_SERVER_LIST, [HERE]],
    ] as const) {
      const sync = decodeAnswer(body(hex)).sync;
      assert.deepEqual(sync?.ipc.map(({ ip }) => dottedQuad(ip)).sort(), ['127.0.0.2', '192.168.16.172']);
      assert.deepEqual(sync?.servers, servers);
    }
  });

  it('a request without SIDs has no list, as its empty message is legal', () => {
    assert.equal(frame(encodeSync(1, HERE, [])).toString('hex'), '0100180000000801106428ff808008520708ff8080081001');
  });
});

describe('numbers', () => {
  it('every int32 survives writing and reading; a negative one takes 10 bytes', () => {
    fc.assert(
      fc.property(fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }), (value) => {
        const bytes = new WireWriter().int32(1, value).toBuffer();
        if (value < 0) assert.equal(bytes.length, 11);
        const reader = new WireReader(bytes);
        assert.equal(reader.tag(), 8);
        assert.equal(reader.int32(), value);
        assert.equal(reader.more, false);
      }),
    );
  });

  it('a number of 5 bytes is cut to 32 bits: 4294967295 is -1', () => {
    assert.equal(new WireReader(Buffer.from('ffffffff0f', 'hex')).int32(), -1);
  });

  it('a SID beyond 2^31 travels as a negative number and is read as the same SID', () => {
    const big = { modid: 4_294_967_295, cmdid: 4_294_967_294 };
    const asked = encodeSync(1, HERE, [big]).toString('hex');
    assert.ok(asked.includes('08ffffffffffffffffff0110feffffffffffffffff01'), asked);
  });

  it('addresses have their first octet in the lowest byte', () => {
    for (const [text, ip] of [
      ['127.0.0.1', 16_777_343],
      ['127.0.0.2', 33_554_559],
      ['192.168.16.172', -1_408_194_368],
      ['0.0.0.0', 0],
      ['255.255.255.255', -1],
    ] as const) {
      assert.equal(ipNumber(text), ip);
      assert.equal(dottedQuad(ip), text);
    }
    assert.equal(ipNumber('::ffff:127.0.0.1'), 16_777_343);
    for (const text of ['::1', '256.1.1.1', '1.2.3', 'localhost', '']) assert.equal(ipNumber(text), null);
  });
});

describe('refusals of the codec', () => {
  const head = '08071065186428ff808008';
  for (const [what, hex, words] of [
    ['a missing seqno', '10651864', /seqno is missing/],
    ['a missing cmd', '08071864', /cmd is missing/],
    ['a missing agent_ip', `${head}5a021002`, /agent_ip is missing/],
    ['an instance whose weight is missing', `${head}5a10080110021a0a0a080801100218032004`, /weight is missing/],
    ['a nested message beyond its parent', `${head}5aff01`, /longer than its message/],
    ['a number of more than 10 bytes', '08ffffffffffffffffffff01', /more than 10 bytes/],
    ['a group', `${head}0b`, /wire type 3/],
    ['field number 0', '0000', /field number/],
    ['a message that ends inside a field', '08', /ends inside/],
    ['a length of 2^63', `${head}5affffffffffffffffff01`, /longer than its message/],
  ] as const) {
    it(`${what} is a WireFault`, () => {
      assert.throws(
        () => decodeAnswer(Buffer.from(hex, 'hex')),
        (thrown: unknown) => thrown instanceof WireFault && words.test(thrown.message),
      );
    });
  }

  it('unknown fields of every wire type are passed over', () => {
    const unknown = 'c00c01c10c0000000000000000c20c0161c50c00000000';
    assert.equal(decodeAnswer(Buffer.from(`${unknown}0807${unknown}1065`, 'hex')).seqno, 7);
  });

  it('a server list may be packed', () => {
    const packed = Buffer.from('0807106518645a0f080110023a090a07ff808008ff8001', 'hex');
    assert.deepEqual(decodeAnswer(packed).sync?.servers, [HERE, 16_511]);
  });

  it('broken UTF-8 in a name becomes replacement characters', () => {
    const name = Buffer.from('0807106918647a0d08011a090a07080110021a01ff', 'hex');
    assert.equal(decodeAnswer(name).names?.[0]?.name, '\ufffd');
  });
});
