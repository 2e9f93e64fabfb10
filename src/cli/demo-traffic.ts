// Owns the traffic that a demo makes through its own proxy: about 40 requests a second, open loop, and a line of counters now and then.
// Called by demo.ts and demo-story.ts.
import { Agent, request } from 'node:http';
import { DemoCounters } from './demo-counters.ts';
import type { DemoUpstream } from './demo-upstreams.ts';
import type { Runnable } from './run.ts';

const REQUEST_EVERY_MS = 25;
const COUNTERS_EVERY_MS = 2_000;

export interface TrafficOptions {
  readonly app: Pick<Runnable, 'apiAddress' | 'proxyAddress'>;
  readonly upstreams: readonly DemoUpstream[];
  /** Path of the n-th request, from 1. */
  readonly path: (n: number) => string;
  /** `namespace/name` whose ejections are told. */
  readonly service: string;
  readonly say: (line: string) => void;
}

export interface DemoTraffic {
  /** Answers since the start. */
  readonly requests: number;
  /** Of them, no answer or a status of 500 and above. */
  readonly failed: number;
  stop(): void;
}

/** Goes on until it is stopped. */
export function startTraffic({ app, upstreams, path, service, say }: TrafficOptions): DemoTraffic {
  const counters = new DemoCounters(upstreams);
  const total = { requests: 0, failed: 0 };
  const agent = new Agent({ keepAlive: true, maxSockets: 64 });
  const [host = '127.0.0.1', port = '0'] = app.proxyAddress.split(':');
  let n = 0;
  let stopped = false;
  const answered = (status: number, attempts: number, upstream: string): void => {
    // Requests that the demo itself gave up are no failures.
    if (stopped) return;
    total.requests++;
    if (status < 200 || status >= 500) total.failed++;
    counters.answered(status, attempts, upstream);
  };
  const asking = setInterval(() => {
    const call = request({ host, port, path: path(++n), agent }, (response) => {
      response.resume();
      const { headers, statusCode = 0 } = response;
      answered(statusCode, Number(headers['x-weir-attempts'] ?? 0), String(headers['x-weir-upstream'] ?? ''));
    });
    call.on('error', () => answered(0, 0, ''));
    call.end();
  }, REQUEST_EVERY_MS);
  const telling = setInterval(() => void tell(app, service, counters, say), COUNTERS_EVERY_MS);
  return {
    get requests() {
      return total.requests;
    },
    get failed() {
      return total.failed;
    },
    stop() {
      stopped = true;
      clearInterval(asking);
      clearInterval(telling);
      agent.destroy();
    },
  };
}

async function tell(
  app: Pick<Runnable, 'apiAddress'>,
  service: string,
  counters: DemoCounters,
  say: (line: string) => void,
): Promise<void> {
  try {
    const answer = await fetch(`${app.apiAddress}/v1/services/${service}`);
    say(counters.line(await answer.json(), COUNTERS_EVERY_MS));
  } catch {
    // The sidecar is stopping: there is nothing left to count.
  }
}
