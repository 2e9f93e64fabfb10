import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { Instance } from '../model/instance.ts';
import {
  contactsText,
  FrameReader,
  frame,
  headerText,
  parseContacts,
  parseHeader,
  parseInstances,
  parseService,
  serviceText,
} from './last-good-format.ts';
import { parseGeneration } from './last-good-load.ts';
import type { Words } from './words.ts';

const PLAIN = { noNullPrototype: true };
const text = fc.string({ unit: 'binary', maxLength: 12 }).map((one) => one.toWellFormed());
const instances: fc.Arbitrary<Instance> = fc.record(
  {
    id: text,
    host: text,
    port: fc.integer({ min: 1, max: 65_535 }),
    transport: fc.constantFrom('tcp' as const, 'udp' as const),
    weight: fc.integer({ min: 0, max: 65_535 }),
    health: fc.constantFrom('healthy' as const, 'unhealthy' as const, 'unknown' as const),
    isolated: fc.boolean(),
    protocol: fc.constantFrom('http', 'grpc'),
    version: fc.constantFrom('1', '2.0'),
    locality: fc.record(
      { region: fc.constantFrom('r'), zone: fc.constantFrom('z'), campus: fc.constantFrom('c') },
      { requiredKeys: [], noNullPrototype: true },
    ),
    metadata: fc.array(fc.tuple(text, text), { maxLength: 4 }).map((entries) => new Map(entries)),
  },
  { requiredKeys: ['id', 'host', 'port', 'transport', 'weight', 'health', 'isolated', 'metadata'], noNullPrototype: true },
);
const words: fc.Arbitrary<Words> = fc.record(
  {
    service: text,
    sources: fc.array(
      fc.record(
        {
          source: text,
          key: fc.record({ namespace: text, name: text }, PLAIN),
          presence: fc.constantFrom('present' as const, 'absent' as const),
          epoch: text,
          sourceRevision: text,
          goodAt: fc.nat(),
          present: fc.array(instances, { maxLength: 4 }),
          held: fc.array(
            fc.record({ instance: instances, kind: fc.constantFrom('service' as const, 'sourceWide' as const) }, PLAIN),
            {
              maxLength: 2,
            },
          ),
        },
        PLAIN,
      ),
      { maxLength: 3 },
    ),
  },
  PLAIN,
);

function payloadOf(bytes: Buffer): Buffer {
  const read = new FrameReader(bytes).next();
  assert.ok(read !== null);
  return read.payload;
}

describe('last-good format', () => {
  it('any words come back as they were', () => {
    fc.assert(
      fc.property(words, (given) => {
        const parsed = parseService(payloadOf(frame('S', serviceText(given))));
        assert.ok(parsed !== null);
        const back: Words = {
          service: parsed.service,
          sources: parsed.words.map(({ body, count, ...head }) => {
            const { present, held } = parseInstances(body);
            assert.equal(count, present.length + held.length);
            return { ...head, present, held };
          }),
        };
        assert.deepEqual(back, given);
      }),
      { numRuns: 300 },
    );
  });

  it('header and contacts come back; other formats and schemas do not', () => {
    const header = { epoch: 3, writtenAt: 5, index: 2 ** 50 };
    assert.deepEqual(parseHeader(Buffer.from(headerText(header))), header);
    assert.equal(parseHeader(Buffer.from(headerText(header).replace('"schema":1', '"schema":2'))), null);
    assert.equal(parseHeader(Buffer.from('{"epoch":1}')), null);
    const contacts = [{ source: 'a', contactAt: 7, except: ['x/y'] }];
    assert.deepEqual(parseContacts(Buffer.from(contactsText(contacts, 9))), { index: 9, contacts });
    assert.equal(parseContacts(Buffer.from('[]')), null);
  });

  it('the reader finds the frames after damage anywhere between them, and counts each bad place', () => {
    const good = Array.from({ length: 5 }, (_, i) => frame('T', JSON.stringify(`s${i}`)));
    const garbage = Buffer.from('WLG\u0001 half a frame');
    const reader = new FrameReader(Buffer.concat([garbage, ...good.slice(0, 2), garbage, ...good.slice(2), garbage]));
    const found: string[] = [];
    for (let one = reader.next(); one !== null; one = reader.next()) found.push(one.payload.toString());
    assert.deepEqual(found, ['"s0"', '"s1"', '"s2"', '"s3"', '"s4"']);
    assert.equal(reader.bad, 3);
  });

  it('a generation that was cut between two records of its base is known to be short', () => {
    const frames = [
      frame('H', headerText({ epoch: 1, writtenAt: 1, index: 1 })),
      frame('T', '"a"'),
      frame('T', '"b"'),
      frame('B', ''),
    ];
    assert.equal(parseGeneration(Buffer.concat(frames), 1)?.bad, 0);
    for (const cut of [1, 2, 3])
      assert.equal(parseGeneration(Buffer.concat(frames.slice(0, cut)), 1)?.bad, 1, `cut after ${cut}`);
    assert.equal(parseGeneration(Buffer.concat(frames), 2), null, 'a file under the name of another generation');
  });

  it('instances that are none are left out of a stored word', () => {
    const bad = [
      7,
      null,
      [],
      ['id'],
      ['id', 'h', -1, 0, 1, 1, 0, 0],
      ['id', 'h', 80, 0, 70_000, 1, 0, 0],
      ['id', 'h', 80, 0, 1, 9, 0, 0],
    ];
    const { present } = parseInstances(Buffer.from(JSON.stringify(bad)));
    assert.deepEqual(
      present.map((one) => [one.port, one.health]),
      [[80, 'unknown']],
    );
    assert.deepEqual(parseInstances(Buffer.from('{')), { present: [], held: [] });
  });
});
