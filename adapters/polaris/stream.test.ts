// Questions and answers over a scripted stream: the row, the window, the renewal, the silence.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { TimerWheel } from '../../src/kernel/timer-wheel.ts';
import type { SourceError } from '../../src/model/snapshot.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { PolarisFailure } from './errors.ts';
import { codec, type DiscoverRequest, type DiscoverResponse, TYPE_INSTANCE, TYPE_ROUTING, TYPE_SERVICES } from './protocol.ts';
import { Question, type Result } from './question.ts';
import { DiscoverStreams, REQUESTS_PER_STREAM, WINDOW } from './stream.ts';

const { decodeRequest, encodeResponse } = codec('Discover');

class Wire {
  readonly written: DiscoverRequest[] = [];
  retired = false;
  cancelled = false;
  say: (message: Buffer) => void = () => {};
  end: (failure: PolarisFailure) => void = () => {};
}

function rig(timeout = 1_000) {
  const clock = new FakeClock();
  const wires: Wire[] = [];
  const lost: SourceError[] = [];
  const streams = new DiscoverStreams({
    server: 's:1',
    wheel: new TimerWheel(clock, 20),
    timeout,
    open(onMessage, onEnd) {
      const wire = new Wire();
      wire.say = onMessage;
      wire.end = onEnd;
      wires.push(wire);
      return {
        write: (bytes) => void wire.written.push(decodeRequest(Buffer.from(bytes))),
        retire: () => {
          wire.retired = true;
        },
        cancel: () => {
          wire.cancelled = true;
        },
      };
    },
    onEnd: () => {},
    onLost: (error) => void lost.push(error),
  });
  const ask = (question: Question): { result: Result | null } => {
    const seen: { result: Result | null } = { result: null };
    streams.ask(question, (result) => {
      assert.equal(seen.result, null, 'settled twice');
      seen.result = result;
    });
    return seen;
  };
  const answer = (name: string, fields: Partial<DiscoverResponse> = {}, wire = wires.at(-1)): void =>
    wire?.say(bytesOf(name, fields));
  return { clock, wires, lost, streams, ask, answer };
}

function bytesOf(name: string, fields: Partial<DiscoverResponse>): Buffer {
  const service = { name: { value: name }, namespace: { value: 'default' }, revision: { value: 'r' } };
  return encodeResponse({ code: { value: 200_000 }, type: TYPE_INSTANCE, service, ...fields });
}

function instance(name: string): Question {
  return new Question(TYPE_INSTANCE, 'default', name);
}

function failed(seen: { result: Result | null }): SourceError {
  return seen.result?.kind === 'failed' ? seen.result.error : assert.fail(`not failed: ${JSON.stringify(seen.result)}`);
}

describe('polaris Discover stream', () => {
  it('answers belong to questions by their place alone', () => {
    const r = rig();
    const [a, b] = [r.ask(instance('a')), r.ask(instance('b'))];
    r.answer('a', { instances: [{ id: { value: 'of a' } }] });
    assert.ok(a.result?.kind === 'answer' && a.result.answer.instances?.length === 1);
    assert.equal(b.result, null);
    r.answer('b', { code: { value: 200_001 } });
    assert.deepEqual(b.result, { kind: 'same' });
    assert.equal(r.wires.length, 1, 'one stream for all services');
  });

  it('a refusal without a service, and a type that is not served, take their place in the row', () => {
    const r = rig();
    const seen = ['a', 'b', 'c'].map((name) => r.ask(instance(name)));
    r.wires[0]?.say(encodeResponse({ code: { value: 401_001 } }));
    r.answer('b', { code: { value: 400_004 }, type: TYPE_ROUTING });
    r.answer('c');
    assert.deepEqual(
      seen.map(({ result }) => (result?.kind === 'answer' ? result.answer.code?.value : null)),
      [401_001, 400_004, 200_000],
    );
    assert.deepEqual(r.lost, []);
  });

  it('the same bytes of "no change" are taken without being decoded, until the revision is another one', () => {
    const r = rig();
    const question = instance('a');
    question.revision = 'r';
    for (let n = 0; n < 3; n++) {
      const seen = r.ask(question);
      r.answer('a', { code: { value: 200_001 } });
      assert.deepEqual(seen.result, { kind: 'same' });
    }
    const bytes = bytesOf('a', { code: { value: 200_001 } });
    assert.equal(question.isSame(bytes), true);
    assert.equal(question.isSame(Buffer.concat([bytes, Buffer.alloc(1)])), false);
    question.revision = 'r2';
    assert.equal(question.isSame(bytes), false);
  });

  it('answers out of step end the stream: another service, type or namespace, a body without a service', () => {
    for (const wrong of [
      { service: { name: { value: 'b' }, namespace: { value: 'default' } } },
      { service: { name: { value: 'a' }, namespace: { value: 'other' } } },
      { type: TYPE_SERVICES },
    ]) {
      const r = rig();
      const [a, later] = [r.ask(instance('a')), r.ask(instance('later'))];
      r.answer('a', wrong);
      assert.equal(failed(a).causeKind, 'malformed');
      assert.equal(failed(later).causeKind, 'malformed');
      assert.equal(r.lost.length, 1);
      assert.equal(r.wires[0]?.cancelled, true);
    }
    const bare = rig();
    const seen = bare.ask(instance('a'));
    bare.wires[0]?.say(encodeResponse({ code: { value: 200_000 } }));
    assert.equal(failed(seen).causeKind, 'malformed');
  });

  it('an answer that nobody asked for ends the stream', () => {
    const r = rig();
    r.ask(instance('a'));
    r.answer('a');
    r.answer('a');
    assert.match(r.lost[0]?.message ?? '', /nobody asked for/);
  });

  it('bytes that are no message cost their own question only', () => {
    const r = rig();
    const [a, b] = [r.ask(instance('a')), r.ask(instance('b'))];
    r.wires[0]?.say(Buffer.from('ffffffffff', 'hex'));
    r.answer('b');
    assert.equal(failed(a).causeKind, 'malformed');
    assert.equal(b.result?.kind, 'answer');
    assert.deepEqual(r.lost, []);
  });

  it('an end with status OK is a loss as any other', () => {
    const r = rig();
    const [a, b] = [r.ask(instance('a')), r.ask(instance('b'))];
    r.wires[0]?.end(new PolarisFailure(14, 'the stream ended by itself', 's:1'));
    assert.equal(failed(a).causeKind, 'lost');
    assert.equal(failed(b).causeKind, 'lost');
    assert.equal(failed(r.ask(instance('c'))).causeKind, 'lost');
    assert.equal(r.lost.length, 1);
  });

  it('silence while an answer is due ends the stream; silence without a question does not', async () => {
    const r = rig(1_000);
    r.ask(instance('a'));
    r.answer('a');
    await r.clock.advance(10_000);
    assert.deepEqual(r.lost, []);
    const slow = r.ask(instance('b'));
    await r.clock.advance(900);
    assert.equal(slow.result, null);
    await r.clock.advance(200);
    assert.match(failed(slow).message, /no answer within 1000 ms/);
    assert.equal(r.clock.pending, 0);
  });

  it('no more than a window of questions is on the way', () => {
    const r = rig();
    for (let n = 0; n < WINDOW * 3; n++) r.ask(instance(`s${n}`));
    assert.equal(r.wires[0]?.written.length, WINDOW);
    r.answer('s0');
    assert.equal(r.wires[0]?.written.length, WINDOW + 1);
    for (let n = 1; n < WINDOW * 3; n++) r.answer(`s${n}`);
    assert.equal(r.wires[0]?.written.length, WINDOW * 3);
  });

  it('a stream is left after its last answer once it carried ten thousand requests: the server holds them all until then', () => {
    const r = rig();
    const question = instance('a');
    for (let n = 0; n < REQUESTS_PER_STREAM - 2; n++) {
      r.ask(question);
      r.answer('a', { code: { value: 200_001 } });
    }
    const open = [r.ask(question), r.ask(question), r.ask(question)];
    assert.equal(r.wires.length, 1);
    r.answer('a');
    assert.equal(r.wires.length, 1);
    r.answer('a');
    assert.equal(r.wires.length, 2);
    assert.equal(r.wires[0]?.retired, true);
    r.answer('a');
    assert.ok(open.every(({ result }) => result?.kind === 'answer'));
    assert.deepEqual(r.lost, []);
  });

  it('closing settles what is open and takes no more, without a loss', () => {
    const r = rig();
    const seen = r.ask(instance('a'));
    r.streams.close(failedWith('closed'));
    assert.match(failed(seen).message, /closed/);
    assert.match(failed(r.ask(instance('b'))).message, /closed/);
    assert.deepEqual(r.lost, []);
    assert.equal(r.clock.pending === 0 || r.clock.pending === 1, true);
  });

  it('draining waits for the last answer', () => {
    const r = rig();
    const seen = r.ask(instance('a'));
    r.streams.drain();
    assert.equal(r.wires[0]?.cancelled, false);
    r.answer('a');
    assert.equal(seen.result?.kind, 'answer');
    assert.equal(r.wires[0]?.cancelled, true);
    assert.deepEqual(r.lost, []);
  });
});

function failedWith(text: string): SourceError {
  const r = rig();
  const seen = r.ask(instance('x'));
  r.wires[0]?.end(new PolarisFailure(14, text, 's:1'));
  return failed(seen);
}
