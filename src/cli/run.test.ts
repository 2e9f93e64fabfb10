import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { describe, it } from 'node:test';
import { settle } from '../../test/support/fake-clock.ts';
import { collectingIo } from '../../test/support/run-weir.ts';
import { WeirError } from '../kernel/errors.ts';
import { type Runnable, runUntilStopped } from './run.ts';

function sidecar() {
  const calls: string[] = [];
  const drained = Promise.withResolvers<void>();
  const app: Runnable = {
    apiAddress: 'http://127.0.0.1:7900',
    proxyAddress: 'http://127.0.0.1:7980',
    drain: () => {
      calls.push('drain');
      return drained.promise;
    },
    close: async () => void calls.push('close'),
    reload: async () => void calls.push('reload'),
  };
  return { app, calls, drained };
}

function start(app: Runnable) {
  const signals = new EventEmitter();
  const { io, text } = collectingIo();
  const state = { code: null as number | null };
  const done = runUntilStopped(io, signals, async () => app).then((code) => {
    state.code = code;
    return code;
  });
  return { signals, text, state, done };
}

describe('weir run', () => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    it(`${signal} drains and then ends with 0`, async () => {
      const { app, calls, drained } = sidecar();
      const { signals, text, state, done } = start(app);
      await settle();
      assert.match(text.err, /API on http:\/\/127\.0\.0\.1:7900, proxy on/);
      signals.emit(signal);
      await settle();
      assert.equal(state.code, null, 'it waits for the drain');
      drained.resolve();
      assert.equal(await done, 0);
      assert.deepEqual(calls, ['drain']);
      assert.equal(signals.eventNames().length, 0);
    });
  }

  it('a second signal stops at once with 1, though the drain hangs', async () => {
    const { app, calls } = sidecar();
    const { signals, done } = start(app);
    await settle();
    signals.emit('SIGTERM');
    signals.emit('SIGINT');
    assert.equal(await done, 1);
    assert.deepEqual(calls, ['drain', 'close']);
  });

  it('a signal before the start is over drains once it is; a second one does not wait for it', async () => {
    const { app, calls, drained } = sidecar();
    const started = Promise.withResolvers<Runnable>();
    const signals = new EventEmitter();
    const done = runUntilStopped(collectingIo().io, signals, () => started.promise);
    assert.equal(signals.emit('SIGTERM'), true, 'it listens from the beginning');
    await settle();
    assert.deepEqual(calls, []);
    started.resolve(app);
    await settle();
    assert.deepEqual(calls, ['drain']);
    drained.resolve();
    assert.equal(await done, 0);
    const hanging = runUntilStopped(collectingIo().io, signals, () => new Promise(() => {}));
    signals.emit('SIGTERM');
    signals.emit('SIGTERM');
    assert.equal(await hanging, 1);
    assert.equal(signals.eventNames().length, 0);
  });

  it('SIGHUP reads the configuration again and goes on', async () => {
    const { app, calls, drained } = sidecar();
    const { signals, state, done } = start(app);
    await settle();
    signals.emit('SIGHUP');
    signals.emit('SIGHUP');
    await settle();
    assert.deepEqual(calls, ['reload', 'reload']);
    assert.equal(state.code, null);
    signals.emit('SIGTERM');
    drained.resolve();
    assert.equal(await done, 0);
  });

  it('a drain that fails is 1', async () => {
    const { app, drained } = sidecar();
    const { signals, text, done } = start(app);
    await settle();
    signals.emit('SIGTERM');
    drained.reject(new Error('disk gone'));
    assert.equal(await done, 1);
    assert.match(text.err, /disk gone/);
  });

  it('a start that fails for the operator’s reasons is exit 2, another one exit 1', async () => {
    const failing = (code: string) =>
      runUntilStopped(collectingIo().io, new EventEmitter(), () => Promise.reject(new WeirError(code, 'words')));
    for (const code of ['CONFIG_INVALID', 'API_INSECURE', 'LISTEN_FAILED', 'STATE_LOCKED']) {
      await assert.rejects(failing(code), { exit: 2, message: `${code}: words` });
    }
    await assert.rejects(failing('INTERNAL'), { exit: 1 });
  });
});
