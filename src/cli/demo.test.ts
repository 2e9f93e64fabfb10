// The demo as `npm start` runs it: one service in three embedded registries, seen as one, with provenance and conflicts.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { eventually } from '../../test/support/eventually.ts';
import { collectingIo } from '../../test/support/run-weir.ts';
import { demo } from './demo.ts';
import type { Signals } from './run.ts';

/** Signals that the test sends itself. */
class OwnSignals implements Signals {
  readonly #listeners = new Map<string, () => void>();

  on(signal: string, listener: () => void): void {
    this.#listeners.set(signal, listener);
  }

  removeListener(signal: string): void {
    this.#listeners.delete(signal);
  }

  send(signal: string): void {
    this.#listeners.get(signal)?.();
  }
}

describe('weir demo', () => {
  it('shows one service that lives in three registries, with provenance and conflicts', async () => {
    const { io, text } = collectingIo();
    const signals = new OwnSignals();
    const done = demo(io, signals);
    try {
      await eventually(() => assert.match(text.err, /weir: API on /), 30_000);
      const api = /API (http:\S+),/.exec(text.out)?.[1];
      assert.ok(api, text.out);
      assert.match(text.out, /three embedded registries \(east, west, legacy\)/);
      assert.ok(text.out.includes(`curl -s ${api}/v1/services/demo/hello`), 'a line to try');
      const { view, inAll } = await eventually(async () => {
        const seen = JSON.parse(await (await fetch(`${api}/v1/services/demo/hello`)).text());
        const three = seen.instances.filter(({ provenance }: { provenance: unknown[] }) => provenance.length === 3);
        assert.equal(three.length, 1);
        return { view: seen, inAll: three };
      });
      assert.deepEqual(
        inAll[0].provenance.map(({ source, weight }: { source: string; weight: number }) => [source, weight]),
        [
          ['east', 100],
          ['west', 50],
          ['legacy', 200],
        ],
      );
      const fields = view.conflicts.map(({ field }: { field: string }) => field).sort();
      assert.deepEqual(fields, ['version', 'weight']);
    } finally {
      signals.send('SIGINT');
      assert.equal(await done, 0);
    }
  });
});
