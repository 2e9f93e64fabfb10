// Owns GET /metrics: our own series (telemetry/metrics) and the process metrics of prom-client, as Prometheus text in slices.
import { Readable } from 'node:stream';
import type { Registry } from 'prom-client';
import type { Metrics } from '../telemetry/metrics.ts';
import type { ApiContext, App } from './context.ts';

/** Registers the call. */
export function routeMetrics(app: App, { metrics }: ApiContext): void {
  app.get(
    '/metrics',
    { schema: { summary: 'Prometheus text format 0.0.4', produces: ['text/plain'] } },
    async (_request, reply) => {
      reply.type('text/plain; version=0.0.4; charset=utf-8');
      return Readable.from(metricsText(metrics));
    },
  );
}

/** One slice a turn of the loop: a scrape of 10,000 series must not stall requests (dependencies.md §4). */
async function* metricsText(metrics: Metrics): AsyncGenerator<string, void, void> {
  for (const slice of metrics.render()) {
    if (slice !== '') yield slice;
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
  yield await (await processRegistry()).metrics();
}

/** Made once: prom-client's collectors are of the process (GC observer, loop delay) and cannot be taken down again. */
let processMetrics: Promise<Registry> | null = null;

/** The package is loaded at the first scrape, so that no start waits for it. */
function processRegistry(): Promise<Registry> {
  processMetrics ??= import('prom-client').then(({ collectDefaultMetrics, Registry }) => {
    const register = new Registry();
    collectDefaultMetrics({ register });
    return register;
  });
  return processMetrics;
}
