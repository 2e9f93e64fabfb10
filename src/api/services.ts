// Owns GET /v1/services (names with counts, by pages) and GET /v1/services/{ns}/{name} (one view; blocking, ETag, filters).

import type { FastifyReply, FastifyRequest } from 'fastify';
import { type Static, Type } from 'typebox';
import type { ViewInstance } from '../catalog/view.ts';
import { isRecord } from '../kernel/decode.ts';
import { WeirError } from '../kernel/errors.ts';
import { routable, type Verdict } from '../model/health-status.ts';
import { parseServiceId, type ServiceId, serviceId } from '../model/service.ts';
import { DURATION_PATTERN, parseDuration } from '../settings/units.ts';
import type { ApiContext, App } from './context.ts';
import { badRequest, pathService, queryDecoder } from './decode-request.ts';
import { serviceFilter } from './pattern.ts';
import type { Published } from './ports.ts';
import { answers, ServiceParams, ServiceSchema, ServiceSummarySchema } from './schemas.ts';
import { type Rendered, staleness } from './service-answer.ts';

const DEFAULT_PAGE = 100;
const MAX_PAGE = 1_000;
/** Names that are read from the catalog at a time while a page is filled. */
const BATCH = 200;

const ListQuery = Type.Object(
  {
    namespace: Type.Optional(Type.String({ description: 'Exact namespace.' })),
    q: Type.Optional(Type.String({ description: 'Part of namespace/name, or a pattern with *.' })),
    source: Type.Optional(Type.String({ description: 'Only services that this source has.' })),
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: MAX_PAGE, description: `Default ${DEFAULT_PAGE}.` })),
    cursor: Type.Optional(Type.String({ description: '`next` of the page before.' })),
  },
  { additionalProperties: false },
);

const DEFAULT_WAIT_MS = 30_000;
const MAX_WAIT_MS = 600_000;
/** An on-demand service waits this long for its first answer (proxy-semantics §18 has the same second). */
const FIRST_USE_MS = 1_000;

const OneQuery = Type.Object(
  {
    index: Type.Optional(
      Type.Integer({ minimum: 0, description: 'Answer only when the revision is past this, or the wait is over.' }),
    ),
    wait: Type.Optional(Type.String({ pattern: DURATION_PATTERN, description: 'With index: at most 10m, default 30s.' })),
    healthy: Type.Optional(Type.Boolean({ description: 'true: verdict healthy; false: any other.' })),
    zone: Type.Optional(Type.String()),
    source: Type.Optional(Type.String({ description: 'Only instances that this source has.' })),
  },
  { additionalProperties: false, description: 'Besides: any number of meta.KEY=VALUE.' },
);

/** Registers both calls. */
export function routeServices(app: App, context: ApiContext): void {
  const decodeList = queryDecoder(ListQuery);
  const ListAnswer = Type.Object({ services: Type.Array(ServiceSummarySchema), next: Type.Optional(Type.String()) });
  app.get(
    '/v1/services',
    { schema: { summary: 'Names with counts, in order', querystring: ListQuery, response: answers(ListAnswer) } },
    async (request) => listServices(context, decodeList(request.query)),
  );
  const decodeOne = queryDecoder(OneQuery);
  app.get(
    '/v1/services/:ns/:name',
    { schema: { summary: 'One service', params: ServiceParams, querystring: OneQuery, response: answers(ServiceSchema) } },
    async (request, reply) => {
      const { meta, rest } = splitMeta(request.query);
      return oneService(context, { request, reply, query: decodeOne(rest), meta });
    },
  );
}

type ListQuery = Static<typeof ListQuery>;
type OneQuery = Static<typeof OneQuery>;

async function listServices(context: ApiContext, query: ListQuery): Promise<object> {
  const { catalog } = context.ports;
  const matches = serviceFilter(query.q);
  const limit = query.limit ?? DEFAULT_PAGE;
  const services: object[] = [];
  let last = query.cursor === undefined ? null : cursorService(query.cursor);
  for (;;) {
    const names = catalog.names(last, BATCH);
    for (const name of names) {
      const found = matches(name) ? summary(context, name, query) : null;
      // The page is full and there is one more: the next page starts after the last one shown.
      if (found !== null && services.length === limit) return { services, next: cursorOf(last ?? '') };
      last = name;
      if (found !== null) services.push(found);
    }
    if (names.length < BATCH) return { services };
    // A filter that finds little looks at every service: not in one turn.
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
}

function summary({ ports }: ApiContext, id: ServiceId, query: ListQuery): object | null {
  const key = parseServiceId(id);
  if (key === null || (query.namespace !== undefined && key.namespace !== query.namespace)) return null;
  const published = ports.catalog.read(id);
  if (published === null) return null;
  const states = ports.catalog.states(id);
  const sources = states.filter(({ presence }) => presence === 'present').map(({ source }) => source);
  if (query.source !== undefined && !sources.includes(query.source)) return null;
  return {
    namespace: key.namespace,
    name: key.name,
    instances: published.view.instances.length,
    healthy: published.verdicts.filter((verdict) => verdict === 'healthy').length,
    routable: published.verdicts.filter(routable).length,
    sources,
    revision: published.index,
    ...staleness(states),
  };
}

function cursorOf(service: ServiceId): string {
  return Buffer.from(service, 'utf8').toString('base64url');
}

function cursorService(cursor: string): ServiceId {
  const service = Buffer.from(cursor, 'base64url').toString('utf8');
  if (parseServiceId(service) !== null) return service;
  throw badRequest([{ path: 'query.cursor', expected: 'the `next` of an earlier page', got: 'another text' }]);
}

interface OneCall {
  readonly request: FastifyRequest;
  readonly reply: FastifyReply;
  readonly query: OneQuery;
  readonly meta: ReadonlyMap<string, string>;
}

async function oneService(context: ApiContext, call: OneCall): Promise<string | undefined> {
  const service = serviceId(pathService(call.request.params));
  context.ports.catalog.use(service);
  const gone = disconnected(call.reply, context.closing);
  if (call.query.index !== undefined) await waitPast(context, service, call.query.index, waitOf(call.query), gone);
  else if (isArriving(context, service)) await waitOnce(context, service, 0, FIRST_USE_MS, gone);
  const published = context.ports.catalog.read(service);
  if (published === null) throw unknownService(context, service, call.reply);
  return answerWith(call, await render(context, published, call));
}

/** Aborts when the reader goes away or the API closes. */
function disconnected(reply: FastifyReply, closing: AbortSignal): AbortSignal {
  const gone = new AbortController();
  reply.raw.once('close', () => gone.abort());
  if (closing.aborted) gone.abort();
  else closing.addEventListener('abort', () => gone.abort(), { signal: gone.signal });
  return gone.signal;
}

function waitOf(query: OneQuery): number {
  const wait = query.wait === undefined ? DEFAULT_WAIT_MS : parseDuration(query.wait);
  return Math.min(wait ?? DEFAULT_WAIT_MS, MAX_WAIT_MS);
}

/** M9: returns at once when the service is past `index` (or was removed past it), or when `index` is not of this process's epoch. */
async function waitPast(context: ApiContext, service: ServiceId, index: number, ms: number, gone: AbortSignal): Promise<void> {
  const { catalog } = context.ports;
  const published = catalog.read(service);
  const known = published === null ? context.feed.removedAt(service) : published.index;
  if (ms === 0 || index > catalog.index() || (known !== null && known > index)) return;
  await waitOnce(context, service, index, ms, gone);
}

async function waitOnce(context: ApiContext, service: ServiceId, index: number, ms: number, gone: AbortSignal): Promise<void> {
  if (gone.aborted) return;
  const wait = context.feed.wait(service, index, ms);
  gone.addEventListener('abort', wait.cancel, { once: true });
  await wait.ended;
  gone.removeEventListener('abort', wait.cancel);
}

/** Asked for on demand just now: some source has been told to watch it and has not answered yet. */
function isArriving({ ports }: ApiContext, service: ServiceId): boolean {
  return ports.catalog.read(service) === null && ports.catalog.states(service).some(({ state }) => state === 'connecting');
}

/** 503 while nobody can know, else 404; both carry the index to wait from. */
function unknownService(context: ApiContext, service: ServiceId, reply: FastifyReply): WeirError {
  const { catalog } = context.ports;
  reply.header('x-weir-index', String(context.feed.removedAt(service) ?? catalog.index()));
  if (catalog.notReady() || isArriving(context, service)) {
    reply.header('retry-after', '1');
    return new WeirError('CATALOG_NOT_READY', 'some source has given no first answer yet', { details: { service } });
  }
  return new WeirError('SERVICE_NOT_FOUND', 'no source knows this service', { details: { service } });
}

async function render({ renderer }: ApiContext, published: Published, { query, meta }: OneCall): Promise<Rendered> {
  const unfiltered = query.healthy === undefined && query.zone === undefined && query.source === undefined && meta.size === 0;
  return unfiltered ? renderer.render(published) : renderer.finish(await renderer.answer(published, instanceFilter(query, meta)));
}

/** The filters of one service; all of them must hold. */
export function instanceFilter(
  query: OneQuery,
  meta: ReadonlyMap<string, string>,
): (instance: ViewInstance, verdict: Verdict) => boolean {
  return (instance, verdict) =>
    (query.healthy === undefined || query.healthy === (verdict === 'healthy')) &&
    (query.zone === undefined || instance.locality?.zone === query.zone) &&
    (query.source === undefined || instance.provenance.some(({ source }) => source === query.source)) &&
    [...meta].every(([key, value]) => instance.metadata.get(key) === value);
}

function answerWith({ request, reply }: OneCall, rendered: Rendered): string | undefined {
  reply.header('x-weir-index', String(rendered.revision)).header('etag', rendered.etag);
  if (matchesEtag(request.headers['if-none-match'], rendered.etag)) {
    reply.code(304);
    return undefined;
  }
  reply.type('application/json; charset=utf-8');
  return rendered.text;
}

/** RFC 9110 §13.1.2 with weak comparison. */
export function matchesEtag(field: string | undefined, etag: string): boolean {
  if (field === undefined) return false;
  if (field.trim() === '*') return true;
  const opaque = etag.replace(/^W\//, '');
  return field.split(',').some((one) => one.trim().replace(/^W\//, '') === opaque);
}

/** Takes `meta.KEY=VALUE` out of a query: these keys are the caller's own words and go into a Map. */
function splitMeta(query: unknown): {
  readonly meta: ReadonlyMap<string, string>;
  readonly rest: Readonly<Record<string, unknown>>;
} {
  const entries = isRecord(query) ? Object.entries(query) : [];
  const meta = new Map<string, string>();
  for (const [key, value] of entries) {
    if (!key.startsWith('meta.')) continue;
    if (typeof value !== 'string') throw badRequest([{ path: `query.${key}`, expected: 'one value', got: 'several' }]);
    meta.set(key.slice('meta.'.length), value);
  }
  return { meta, rest: Object.fromEntries(entries.filter(([key]) => !key.startsWith('meta.'))) };
}
