// Owns what every route file gets: the ports, the shared parts of the API, and the type of the fastify instance. Types only.

import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { FastifyBaseLogger, FastifyInstance } from 'fastify';
import type { Clock } from '../kernel/clock.ts';
import type { Log } from '../kernel/log.ts';
import type { Audit } from '../telemetry/audit.ts';
import type { Events } from '../telemetry/events.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { ChangeFeed } from './change-feed.ts';
import type { ApiPorts } from './ports.ts';
import type { ServiceRenderer } from './service-answer.ts';

export type App = FastifyInstance<Server, IncomingMessage, ServerResponse, FastifyBaseLogger>;

/** What the API uses besides the ports. */
export interface ApiDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly events: Events;
  readonly audit: Audit;
  /** Sockets that the API may hold, so that its readers never take the descriptors of the data plane; default: no limit of its own. */
  readonly maxConnections?: number;
}

export interface ApiContext extends ApiDeps {
  readonly ports: ApiPorts;
  readonly feed: ChangeFeed;
  readonly renderer: ServiceRenderer;
  /** Aborts when the API closes: long answers end. */
  readonly closing: AbortSignal;
}
