// Owns the counters that the demo prints: what its own requests met, and what the API says of ejections. Pure apart from its sums.
import { Type } from 'typebox';
import { hostPort } from '../kernel/address.ts';
import { decoder } from '../kernel/decode.ts';
import type { DemoUpstream } from './demo-upstreams.ts';

const decodeService = decoder(
  Type.Object({
    instances: Type.Array(
      Type.Object({ host: Type.String(), port: Type.Integer(), verdict: Type.String(), ejected: Type.Boolean() }),
    ),
  }),
);

export class DemoCounters {
  readonly #upstreams: readonly Pick<DemoUpstream, 'name' | 'port' | 'alive'>[];
  #byAddress = new Map<string, number>();
  #requests = 0;
  #retried = 0;
  #failed = 0;

  constructor(upstreams: readonly Pick<DemoUpstream, 'name' | 'port' | 'alive'>[]) {
    this.#upstreams = upstreams;
  }

  /** One answer: status 0 is no answer at all. */
  answered(status: number, attempts: number, upstream: string): void {
    this.#requests++;
    if (attempts > 1) this.#retried++;
    if (status < 200 || status >= 500) this.#failed++;
    this.#byAddress.set(upstream, (this.#byAddress.get(upstream) ?? 0) + 1);
  }

  /** The line since the last one; `service` is the API's answer for demo/hello. */
  line(service: unknown, spanMs: number): string {
    const rate = Math.round((this.#requests * 1_000) / spanMs);
    const shares = this.#upstreams.map(
      ({ name, port, alive }) => `${name}${alive ? '' : '†'} ${this.#byAddress.get(hostPort('127.0.0.1', port)) ?? 0}`,
    );
    const out = this.#out(service);
    const text = `${rate}/s  answered by ${shares.join('  ')}  retried ${this.#retried}  failed ${this.#failed}${out}`;
    this.#byAddress = new Map();
    this.#requests = 0;
    this.#retried = 0;
    this.#failed = 0;
    return text;
  }

  #out(service: unknown): string {
    const decoded = decodeService(service);
    if (!decoded.ok) return '';
    const words = decoded.value.instances
      .filter(({ ejected, verdict }) => ejected || verdict === 'unhealthy' || verdict === 'isolated')
      .map(
        ({ port, ejected, verdict }) =>
          `${this.#upstreams.find((one) => one.port === port)?.name ?? port} ${ejected ? 'ejected' : verdict}`,
      );
    return words.length === 0 ? '' : `  [${words.join(', ')}]`;
  }
}
