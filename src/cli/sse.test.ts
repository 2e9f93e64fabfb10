import assert from 'node:assert/strict';
import { it } from 'node:test';
import fc from 'fast-check';
import { type SseMessage, SseParser } from './sse.ts';
import { textLine } from './watch.ts';

const STREAM =
  ': resumed\n\nid: 5\nevent: view\ndata: {"a":1}\n\nevent: source\ndata:x\ndata: y\n\n: heartbeat\n\nid: 6\nevent: removed\ndata: {}\n\n';
const EVENTS: readonly SseMessage[] = [
  { id: '5', event: 'view', data: '{"a":1}' },
  { id: null, event: 'source', data: 'x\ny' },
  { id: '6', event: 'removed', data: '{}' },
];

it('the same events come out however the stream is cut into chunks', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: STREAM.length }), { maxLength: 20 }), (cuts) => {
      const places = [0, ...cuts.sort((a, b) => a - b), STREAM.length];
      const parser = new SseParser();
      const found = places.slice(1).flatMap((end, i) => parser.push(STREAM.slice(places[i], end)));
      assert.deepEqual(found, EVENTS);
    }),
  );
});

it('an endless event is refused, not collected', () => {
  const parser = new SseParser();
  const chunk = 'x'.repeat(16_777_216);
  assert.throws(() => {
    for (let i = 0; i < 5; i++) parser.push(chunk);
  }, RangeError);
});

it('a change prints as one harmless line, and what is none prints nothing', () => {
  const view = {
    namespace: 'game',
    name: 'lobby\u001b[2J',
    revision: 7,
    stale: true,
    instances: [
      { verdict: 'healthy', held: false },
      { verdict: 'unknown', held: true },
    ],
  };
  assert.equal(
    textLine({ id: '7', event: 'view', data: JSON.stringify(view) }),
    'view     game/lobby\\u{1b}[2J 1/2 healthy, 1 held, stale, revision 7\n',
  );
  assert.equal(
    textLine({ id: null, event: 'source', data: '{"id":"a","state":"stale","cause":"lost"}' }),
    'source   a is stale (lost)\n',
  );
  for (const data of ['', '{', '[]', '{}']) assert.equal(textLine({ id: null, event: 'view', data }), '');
});
