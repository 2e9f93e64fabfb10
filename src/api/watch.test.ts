import assert from 'node:assert/strict';
import { type ClientRequest, type IncomingMessage, request } from 'node:http';
import { after, before, describe, it } from 'node:test';
import { type FakeApi, fakeApi, liveSource, viewInstance } from '../../test/support/api-fakes.ts';
import { eventually } from '../../test/support/eventually.ts';

interface SseMessage {
  readonly id: string | null;
  readonly event: string;
  readonly data: { readonly name?: string; readonly revision?: number; readonly id?: string; readonly state?: string };
}

/** A reader of /v1/watch; `pause` stops reading at the socket. */
class Reader {
  readonly messages: SseMessage[] = [];
  text = '';
  ended = false;
  answer: IncomingMessage | null = null;
  readonly #request: ClientRequest;

  constructor(address: string, path: string, headers: Record<string, string> = {}) {
    const { hostname, port } = new URL(address);
    this.#request = request({ hostname, port, path, headers: { host: 'localhost', ...headers }, agent: false }, (answer) => {
      this.answer = answer;
      answer.setEncoding('utf8').on('data', (chunk: string) => this.#read(chunk));
      answer.on('close', () => {
        this.ended = true;
      });
      answer.on('error', () => {});
    });
    this.#request.on('error', () => {
      this.ended = true;
    });
    this.#request.end();
  }

  names(event = 'view'): (string | undefined)[] {
    return this.messages.filter((one) => one.event === event).map((one) => one.data.name);
  }

  close(): void {
    this.#request.destroy();
  }

  #read(chunk: string): void {
    this.text += chunk;
    for (let end = this.text.indexOf('\n\n'); end >= 0; end = this.text.indexOf('\n\n')) {
      const lines = this.text.slice(0, end).split('\n');
      this.text = this.text.slice(end + 2);
      const field = (name: string): string | null =>
        lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2) ?? null;
      const event = field('event');
      if (event !== null) this.messages.push({ id: field('id'), event, data: JSON.parse(field('data') ?? '{}') });
    }
  }
}

describe('GET /v1/watch', () => {
  let fake: FakeApi;
  let address = '';
  before(async () => {
    fake = await fakeApi();
    fake.catalog.put('game/b', [viewInstance('10.0.0.1', 80)]);
    fake.catalog.put('game/a', [viewInstance('10.0.0.1', 80)]);
    fake.catalog.put('shop/cart', []);
    address = await fake.api.listen();
  });
  after(() => fake.api.close());

  it('starts with reset, every source and every view, says when that was all, then tells what changes', async () => {
    const reader = new Reader(address, '/v1/watch');
    await eventually(() => reader.messages.some((one) => one.event === 'synced'));
    assert.deepEqual(
      reader.messages.map((one) => [one.event, one.id === null]),
      [
        ['reset', true],
        ['source', true],
        ['view', true],
        ['view', true],
        ['view', true],
        ['synced', false],
      ],
    );
    assert.deepEqual(reader.names(), ['a', 'b', 'cart']);
    assert.equal(reader.answer?.headers['content-type'], 'text/event-stream; charset=utf-8');
    assert.equal(reader.answer?.headers['cache-control'], 'no-store');
    const index = fake.catalog.put('game/b', []);
    const removed = fake.catalog.remove('shop/cart');
    await eventually(() => reader.names('removed').length === 1);
    assert.deepEqual(
      reader.messages.slice(6).map((one) => [one.event, one.id, one.data.name]),
      [
        ['view', String(index), 'b'],
        ['removed', String(removed), 'cart'],
      ],
    );
    fake.sources[0] = liveSource({ state: 'stale', cause: 'lost' });
    fake.changeSource('local');
    await eventually(() => reader.messages.some((one) => one.event === 'source' && one.data.state === 'stale'));
    fake.sources[0] = liveSource();
    reader.close();
  });

  it('tells only what matches', async () => {
    const reader = new Reader(address, '/v1/watch?q=game/*');
    await eventually(() => reader.names().length === 2);
    fake.catalog.put('shop/other', []);
    fake.catalog.put('game/c', []);
    await eventually(() => reader.names().includes('c'));
    assert.ok(!reader.names().includes('other'));
    reader.close();
  });

  it('resumes by Last-Event-ID with exactly the changes and removals since', async () => {
    const first = new Reader(address, '/v1/watch?q=game/*');
    await eventually(() => first.messages.at(-1)?.event === 'synced');
    const last = first.messages.filter((one) => one.id !== null).at(-1)?.id ?? '';
    first.close();
    fake.catalog.put('game/a', []);
    fake.catalog.put('game/d', []);
    fake.catalog.remove('game/c');
    fake.catalog.put('shop/other', []);
    const second = new Reader(address, '/v1/watch?q=game/*', { 'last-event-id': last });
    await eventually(() => second.names('removed').length === 1);
    assert.deepEqual(
      second.messages.filter((one) => one.event !== 'source').map((one) => [one.event, one.data.name]),
      [
        ['view', 'a'],
        ['view', 'd'],
        ['removed', 'c'],
      ],
    );
    second.close();
  });

  it('loses nothing when a change is told later than one that has a higher index', async () => {
    const reader = new Reader(address, '/v1/watch?q=late/*');
    await eventually(() => reader.messages.at(-1)?.event === 'synced');
    const tellLate = fake.catalog.putLate('late/a', [viewInstance('10.0.0.1', 1)]);
    fake.catalog.put('late/b', []);
    await eventually(() => reader.names().includes('b'));
    const last = reader.messages.at(-1)?.id ?? '';
    reader.close();
    tellLate();
    const second = new Reader(address, '/v1/watch?q=late/*', { 'last-event-id': last });
    await eventually(() => second.names().length === 1);
    assert.deepEqual(second.names(), ['a']);
    second.close();
  });

  it('starts anew when it was cut before it had everything', async () => {
    const metadata = new Map(Array.from({ length: 60 }, (_, i) => [`key${i}`, 'x'.repeat(1_000)]));
    for (let i = 0; i < 100; i++) fake.catalog.put(`cut/s${i}`, [viewInstance('10.0.0.1', 80, { metadata })]);
    const reader = new Reader(address, '/v1/watch?q=cut/*');
    await eventually(() => reader.names().length > 0);
    assert.equal(reader.messages.find((one) => one.event === 'view')?.id, null, 'nothing to resume from yet');
    reader.close();
    for (let i = 0; i < 100; i++) fake.catalog.remove(`cut/s${i}`);
  });

  it('starts anew when the id is of another epoch or no id at all', async () => {
    for (const id of ['1', '99999999999', 'x']) {
      const reader = new Reader(address, '/v1/watch?q=game/*', { 'last-event-id': id });
      await eventually(() => reader.messages.length > 0);
      assert.equal(reader.messages[0]?.event, 'reset', id);
      reader.close();
    }
  });

  it('refuses a bad pattern like every call', async () => {
    const answer = await fake.api.app.inject({ url: '/v1/watch?q=*[a]', headers: { host: 'localhost' } });
    assert.equal(answer.statusCode, 400);
  });

  it('sends a heartbeat every 15 s while somebody reads, and no timer stays when nobody does', async () => {
    const reader = new Reader(address, '/v1/watch?q=nothing');
    await eventually(() => reader.messages.length >= 2);
    await fake.clock.advance(15_001);
    let beats = 0;
    reader.answer?.on('data', (chunk: string) => {
      beats += chunk.includes(': heartbeat') ? 1 : 0;
    });
    await fake.clock.advance(15_001);
    await eventually(() => beats === 1);
    reader.close();
  });
});

describe('a slow reader of /v1/watch', () => {
  it('skips to the newest state, holds only names meanwhile, and is dropped after 30 s without a drain', async () => {
    const fake = await fakeApi();
    const metadata = new Map(Array.from({ length: 60 }, (_, i) => [`key${i}`, 'x'.repeat(1_000)]));
    for (let i = 0; i < 200; i++) fake.catalog.put(`big/s${i}`, [viewInstance('10.0.0.1', 80, { metadata })]);
    const address = await fake.api.listen();
    const reader = new Reader(address, '/v1/watch');
    await eventually(() => reader.answer !== null);
    reader.answer?.pause();
    // The kernel's buffers take some; the rest waits as names.
    await eventually(() => fake.clock.pending >= 3, 10_000);
    for (let round = 0; round < 50; round++) fake.catalog.put('big/s199', [viewInstance('10.0.0.9', round + 1, { metadata })]);
    reader.answer?.resume();
    await eventually(() => new Set(reader.names()).size === 200, 10_000);
    await eventually(() => JSON.stringify(reader.messages.at(-1)?.data).includes('"port":50'), 10_000);
    assert.ok(reader.names().filter((name) => name === 's199').length <= 3, 'the changes in between were skipped');
    const ids = reader.messages.filter((one) => one.id !== null).map((one) => Number(one.id));
    assert.deepEqual(
      ids,
      [...ids].sort((a, b) => a - b),
      'ids only rise: resuming after any of them loses nothing',
    );

    reader.answer?.pause();
    for (let i = 0; i < 200; i++) fake.catalog.put(`big/s${i}`, [viewInstance('10.0.0.2', 80, { metadata })]);
    await eventually(() => fake.clock.pending >= 3, 10_000);
    await fake.clock.advance(30_001);
    reader.answer?.resume();
    await eventually(() => reader.ended, 10_000);
    await fake.api.close();
  });
});
