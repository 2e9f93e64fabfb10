// Owns GET /v1/watch: Server-Sent Events `view`, `removed`, `source`; `reset`: forget what you know, everything follows; `synced`: that was
// everything. Without Last-Event-ID, or with one that is not of this process's time, it begins with reset and the whole state.

import type { FastifyReply, FastifyRequest } from 'fastify';
import { Type } from 'typebox';
import type { Timer } from '../kernel/clock.ts';
import { WeirError } from '../kernel/errors.ts';
import { parseServiceId, type ServiceId } from '../model/service.ts';
import type { ApiContext, App } from './context.ts';
import { queryDecoder } from './decode-request.ts';
import { serviceFilter } from './pattern.ts';
import { sourceAnswer } from './sources.ts';
import { type SseEvent, sseText, WatchClient } from './watch-client.ts';

const HEARTBEAT_MS = 15_000;
const BATCH = 200;
/** Each reader costs a comparison per change; more of them should share a sidecar of their own. [own number] */
const MAX_WATCHERS = 1_000;

const WatchQuery = Type.Object(
  { q: Type.Optional(Type.String({ description: 'Part of namespace/name, or a pattern with *.' })) },
  { additionalProperties: false },
);

/** Registers the call. */
export function routeWatch(app: App, context: ApiContext): void {
  const hub = new WatchHub(context);
  const decode = queryDecoder(WatchQuery);
  app.get(
    '/v1/watch',
    {
      exposeHeadRoute: false,
      schema: {
        summary: 'Server-Sent Events: view, removed, source, reset, synced; resumes by Last-Event-ID',
        querystring: WatchQuery,
        produces: ['text/event-stream'],
      },
    },
    (request, reply) => hub.open(request, reply, serviceFilter(decode(request.query).q)),
  );
}

interface Watcher {
  readonly client: WatchClient;
  readonly matches: (service: ServiceId) => boolean;
}

/** All readers: one subscription to changes, one to sources, one heartbeat. */
class WatchHub {
  readonly #context: ApiContext;
  readonly #watchers = new Set<Watcher>();
  #heartbeat: Timer | null = null;

  constructor(context: ApiContext) {
    this.#context = context;
    context.feed.subscribe((service, stamp) => {
      for (const { client, matches } of this.#watchers) if (matches(service)) client.changed(service, stamp);
    });
    const unsubscribe = context.ports.sources.subscribe((sourceId) => {
      for (const { client } of this.#watchers) client.sourceChanged(sourceId);
    });
    context.closing.addEventListener('abort', () => {
      unsubscribe();
      this.#heartbeat?.cancel();
      for (const { client } of this.#watchers) client.close();
    });
  }

  /** Throws OVERLOADED when there are too many readers. */
  open(request: FastifyRequest, reply: FastifyReply, matches: (service: ServiceId) => boolean): void {
    if (this.#watchers.size >= MAX_WATCHERS)
      throw new WeirError('OVERLOADED', `there are ${MAX_WATCHERS} readers of /v1/watch already`);
    reply.hijack();
    const response = reply.raw;
    for (const [name, value] of Object.entries(reply.getHeaders())) if (value !== undefined) response.setHeader(name, value);
    response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8', 'x-accel-buffering': 'no' });
    const client = new WatchClient(
      response,
      { service: (id, at) => this.#event(id, at), source: (id) => this.#sourceEvent(id) },
      this.#context.clock,
    );
    const watcher = { client, matches };
    this.#watchers.add(watcher);
    response.once('close', () => {
      client.close();
      this.#watchers.delete(watcher);
    });
    if (this.#context.closing.aborted) client.close();
    this.#beat();
    this.#first(watcher, lastEventId(request.headers['last-event-id']));
  }

  /** What the reader has missed: the changes past `since`, or everything. */
  #first({ client, matches }: Watcher, since: number | null): void {
    const { feed, ports } = this.#context;
    const missed = since === null ? null : feed.since(since);
    client.write(missed === null ? sseText({ event: 'reset', data: '{}' }) : ': resumed\n\n');
    for (const { id } of ports.sources.list()) client.sourceChanged(id);
    if (missed === null) client.fill(this.#names(matches), feed.stamp);
    else for (const [service, stamp] of missed) if (matches(service)) client.changed(service, stamp);
  }

  *#names(matches: (service: ServiceId) => boolean): Generator<ServiceId, void, void> {
    let last: ServiceId | null = null;
    for (;;) {
      const names: readonly ServiceId[] = this.#context.ports.catalog.names(last, BATCH);
      yield* names.filter(matches);
      last = names.at(-1) ?? last;
      if (names.length < BATCH) return;
    }
  }

  /** The newest state of a service; a service of the first state that is gone by now is nobody's news. */
  async #event(service: ServiceId, stamp: number | null): Promise<SseEvent | null> {
    const published = this.#context.ports.catalog.read(service);
    const id = stamp === null ? {} : { id: stamp };
    if (published !== null) return { ...id, event: 'view', data: (await this.#context.renderer.render(published)).text };
    const key = parseServiceId(service);
    if (key === null || stamp === null) return null;
    const revision = this.#context.feed.removedAt(service) ?? stamp;
    return { ...id, event: 'removed', data: JSON.stringify({ namespace: key.namespace, name: key.name, revision }) };
  }

  #sourceEvent(sourceId: string): SseEvent | null {
    const source = this.#context.ports.sources.list().find(({ id }) => id === sourceId);
    return source === undefined ? null : { event: 'source', data: JSON.stringify(sourceAnswer(source)) };
  }

  /** A comment to all readers every 15 s, while there are any: half-open connections are noticed, idle proxies kept. */
  #beat(): void {
    if (this.#heartbeat !== null || this.#context.closing.aborted) return;
    this.#heartbeat = this.#context.clock.setTimer(HEARTBEAT_MS, () => {
      this.#heartbeat = null;
      for (const { client } of this.#watchers) client.write(': heartbeat\n\n');
      if (this.#watchers.size > 0) this.#beat();
    });
  }
}

function lastEventId(field: string | string[] | undefined): number | null {
  return typeof field === 'string' && /^\d{1,16}$/.test(field) ? Number(field) : null;
}
