import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { refusingAdapter } from './refusing.ts';

describe('a source whose configuration cannot work', () => {
  it('answers every call with `refused` and the reason, and closes', async () => {
    const adapter = refusingAdapter('nacos', 'servers: expected host:port');
    const key = { namespace: 'default', name: 'lobby' };
    const signal = new AbortController().signal;
    const says = { causeKind: 'refused', message: /servers: expected host:port/ };
    await assert.rejects(adapter.read(key, signal), says);
    await assert.rejects(adapter.watch(key, signal)[Symbol.asyncIterator]().next(), says);
    assert.ok(adapter.services !== undefined);
    await assert.rejects(adapter.services(signal)[Symbol.asyncIterator]().next(), says);
    assert.equal(adapter.put, undefined);
    assert.equal(adapter.kind, 'nacos');
    await adapter.close();
  });
});
