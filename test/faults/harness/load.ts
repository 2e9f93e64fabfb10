// Open-loop load: requests leave at a constant rate whatever the answers do (a closed loop hides stalls), each with an id of its own,
// and each has exactly one outcome. Called by the fault tests.
import { setTimeout as sleep } from 'node:timers/promises';
import { randomBelow, seededRandom } from '../../../src/kernel/random.ts';
import { type Ask, Client, type Outcome } from './client.ts';

export interface LoadOptions {
  readonly port: number;
  readonly service: string;
  /** Requests a second. */
  readonly rate: number;
  readonly seed: number;
  /** Share of POSTs, 0..1; default 0.2. */
  readonly posts?: number;
  /** Target of a request; default `/`. */
  readonly path?: (n: number) => string;
  /** Bytes of a POST's or PUT's body; default 1,024. */
  readonly bodyBytes?: number;
  /** Idempotent methods in turn; default GET. */
  readonly methods?: readonly string[];
}

/** A load under way; `stop` ends it and waits for the last answers. */
export class Load {
  readonly outcomes: Outcome[] = [];
  readonly client: Client;
  readonly #options: LoadOptions;
  readonly #pending = new Set<Promise<void>>();
  readonly #running: Promise<void>;
  #stopped = false;
  #issued = 0;

  constructor(options: LoadOptions) {
    this.#options = options;
    this.client = new Client(options.port, options.service);
    this.#running = this.#run();
  }

  get issued(): number {
    return this.#issued;
  }

  /** Answers that are still to come. */
  get pending(): number {
    return this.#pending.size;
  }

  /** No further requests; resolves with every outcome once the last answer is there. */
  async stop(): Promise<readonly Outcome[]> {
    this.#stopped = true;
    await this.#running;
    await Promise.all(this.#pending);
    this.client.close();
    return this.outcomes;
  }

  async #run(): Promise<void> {
    const { rate, seed } = this.#options;
    const random = seededRandom(seed);
    const start = performance.now();
    while (!this.#stopped) {
      const due = Math.floor(((performance.now() - start) / 1_000) * rate);
      for (; this.#issued < due; this.#issued++) {
        const dueAt = start + (this.#issued / rate) * 1_000;
        this.#send(this.#next(random), dueAt);
      }
      await sleep(1);
    }
  }

  #next(random: () => number): Ask {
    const { seed, posts = 0.2, path = () => '/', bodyBytes = 1_024, methods = ['GET'] } = this.#options;
    const n = this.#issued;
    const method = random() < posts ? 'POST' : (methods[randomBelow(random, methods.length)] ?? 'GET');
    const body = method === 'POST' || method === 'PUT' ? 'b'.repeat(bodyBytes) : '';
    return { id: `l${seed}-${n}`, method, path: path(n), body };
  }

  #send(ask: Ask, dueAt: number): void {
    const one = this.client.ask(ask, dueAt).then((outcome) => {
      this.outcomes.push(outcome);
      this.#pending.delete(one);
    });
    this.#pending.add(one);
  }
}
