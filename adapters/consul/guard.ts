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
  readonly #members = new Set<AbortController>();
  #closed: SourceError | null = null;
  #stop: AbortController | null = null;

  constructor(line: Line, history: History) {
    this.#line = line;
    this.#history = history;
  }

  /** The signal aborts with `outer`, and, with a SourceError as its reason, when the servers are lost or the source is closed. */
  join(outer: AbortSignal): { readonly signal: AbortSignal; leave(): void } {
    const member = new AbortController();
    if (this.#closed !== null) member.abort(this.#closed);
    // One controller and one listener for each watch: thousands of them live long.
    const onOuter = (): void => member.abort(outer.reason);
    if (outer.aborted) onOuter();
    else outer.addEventListener('abort', onOuter, { once: true });
    this.#members.add(member);
    if (this.#members.size === 1) this.#start();
    return {
      signal: member.signal,
      leave: () => {
        outer.removeEventListener('abort', onOuter);
        if (this.#members.delete(member) && this.#members.size === 0) this.#stop?.abort();
      },
    };
  }

  /** Ends all who joined, and who will. */
  close(reason: SourceError): void {
    this.#closed = reason;
    this.#raise(reason);
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
    // Who joins again at once is not told of the same loss.
    for (const member of [...this.#members]) member.abort(error);
  }
}
