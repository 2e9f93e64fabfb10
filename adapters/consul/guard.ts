// Owns the guard call (protocol notes, section 3, rule 12): streaming answers look healthy when the servers are lost, so one plain read
// every 15 s asks whether they are. Called by every watch while it lives; must never run when nobody watches.
import { asSourceError, type SourceError } from '../../src/model/snapshot.ts';
import { ConsulFailure } from './errors.ts';
import { type History, SERVERS } from './history.ts';
import { type Line, refuseStale } from './line.ts';

const EVERY_MS = 15_000;
/** A stale read waits for nobody: a dead link shows within 20 s. */
const DEADLINE_MS = 5_000;

export class Guard {
  readonly #line: Line;
  readonly #history: History;
  #members = 0;
  #alarm = new AbortController();
  #stop: AbortController | null = null;

  constructor(line: Line, history: History) {
    this.#line = line;
    this.#history = history;
  }

  /** From now on the signal aborts, with a SourceError as its reason, when the servers are lost. */
  join(): { readonly signal: AbortSignal; leave(): void } {
    if (this.#members++ === 0) this.#start();
    let joined = true;
    return {
      signal: this.#alarm.signal,
      leave: () => {
        if (!joined) return;
        joined = false;
        if (--this.#members === 0) this.#stop?.abort();
      },
    };
  }

  #start(): void {
    const stop = new AbortController();
    this.#stop = stop;
    void this.#run(stop.signal);
  }

  /** Never rejects. */
  async #run(signal: AbortSignal): Promise<void> {
    const { clock, client } = this.#line;
    while (!signal.aborted) {
      try {
        await clock.sleep(EVERY_MS, signal);
        const answer = await client.get(SERVERS, { stale: '' }, signal, 'control', DEADLINE_MS);
        refuseStale(this.#line, answer);
        // Servers that are replaced one by one must be seen in between, or they look like another cluster.
        if (this.#line.config.datacenter === null) this.#history.sawServers(answer.body);
        else await this.#history.look(signal);
      } catch (thrown) {
        if (signal.aborted) return;
        // Too many connections say nothing of the servers.
        if (thrown instanceof ConsulFailure && thrown.status === 429) this.#line.count('guard.throttled');
        else this.#raise(asSourceError(thrown));
      }
    }
  }

  #raise(error: SourceError): void {
    const alarm = this.#alarm;
    this.#alarm = new AbortController();
    alarm.abort(error);
  }
}
