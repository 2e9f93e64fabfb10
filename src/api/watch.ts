// Owns GET /v1/watch: Server-Sent Events `view`, `removed`, `source` (and `reset`: forget what you know, everything follows).
// Without Last-Event-ID, or with one that is not of this process's time, the whole state comes first, oldest change first.

import type { FastifyReply, FastifyRequest } from 'fastify';
import { Type } from 'typebox';
import type { Timer } from '../kernel/clock.ts';
import { parseServiceId, type ServiceId } from '../model/service.ts';
import type { ApiContext, App } from './context.ts';
import { queryDecoder } from './decode-request.ts';
import { serviceFilter } from './pattern.ts';
import { sourceAnswer } from './sources.ts';
import { type SseEvent, sseText, WatchClient } from './watch-client.ts';

const HEARTBEAT_MS = 15_000;
const BATCH = 1_000;

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
        summary: 'Server-Sent Events: view, removed, source, reset; resumes by Last-Event-ID',
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
    context.feed.subscribe((service, index) => {
      for (const { client, matches } of this.#watchers) if (matches(service)) client.changed(service, index);
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

  open(request: FastifyRequest, reply: FastifyReply, matches: (service: ServiceId) => boolean): void {
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
    const removed = since === null ? null : feed.removedSince(since);
    const from = removed === null ? -1 : (since ?? -1);
    client.write(removed === null ? sseText({ event: 'reset', data: '{}' }) : ': resumed\n\n');
    for (const { id } of ports.sources.list()) client.sourceChanged(id);
    const missed = [...this.#changedSince(from), ...(removed ?? [])].filter(([service]) => matches(service));
    missed.sort((a, b) => a[1] - b[1]);
    for (const [service, index] of missed) client.changed(service, index);
  }

  *#changedSince(since: number): Generator<readonly [ServiceId, number], void, void> {
    const { catalog } = this.#context.ports;
    let last: ServiceId | null = null;
    for (;;) {
      const names: readonly ServiceId[] = catalog.names(last, BATCH);
      for (const name of names) {
        last = name;
        const published = catalog.read(name);
        if (published !== null && published.index > since) yield [name, published.index];
      }
      if (names.length < BATCH) return;
    }
  }

  async #event(service: ServiceId, index: number): Promise<SseEvent | null> {
    const published = this.#context.ports.catalog.read(service);
    if (published !== null) {
      const rendered = await this.#context.renderer.render(published);
      return { id: rendered.revision, event: 'view', data: rendered.text };
    }
    const key = parseServiceId(service);
    return { id: index, event: 'removed', data: JSON.stringify({ namespace: key?.namespace, name: key?.name, revision: index }) };
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
