// Owns the API's server: its own server object, the order of checks before a handler, error answers, listening and closing.
// Called by app.ts; routes are in one file per resource. Must never share a socket or a limit with the data plane.
import type { IncomingMessage, Server, ServerOptions, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import fastify, { type FastifyReply, type FastifyRequest } from 'fastify';
import { parseJson } from '../kernel/decode.ts';
import { messageOf, WeirError } from '../kernel/errors.ts';
import { createServer, STATUS_CODES } from '../kernel/node-http.ts';
import type { ApiSettings } from '../settings/settings.ts';
import { type Access, AccessJudge } from './access.ts';
import { ChangeFeed } from './change-feed.ts';
import { routeConfig } from './config.ts';
import { Connections } from './connections.ts';
import type { ApiContext, ApiDeps, App } from './context.ts';
import { orBadRequest } from './decode-request.ts';
import { type ErrorReply, errorReply } from './error-reply.ts';
import { routeEvents } from './events.ts';
import { routeExplain } from './explain.ts';
import { fieldValues, hostAllowList, judge } from './guard.ts';
import { routeHolds } from './holds.ts';
import { assertSecure, type Listening, openListener } from './listen.ts';
import { LoginLimiter } from './login-limiter.ts';
import { routeMetrics } from './metrics.ts';
import { routeMigrations } from './migrations.ts';
import { describeApi, routeOpenapi } from './openapi.ts';
import { routeOverrides } from './overrides.ts';
import type { ApiPorts } from './ports.ts';
import { routeProbes } from './probes.ts';
import { routePrometheusTargets } from './prometheus-sd.ts';
import { routeRegistrations } from './registrations.ts';
import { ServiceRenderer } from './service-answer.ts';
import { routeServices } from './services.ts';
import { routeSources } from './sources.ts';
import { routeWatch } from './watch.ts';

const MAX_BODY_BYTES = 1_048_576;

/** dependencies.md §5; what node:http does by default is too slow for a server that must stay reachable. */
const SERVER_OPTIONS: ServerOptions = {
  insecureHTTPParser: false,
  maxHeaderSize: 16_384,
  headersTimeout: 10_000,
  requestTimeout: 60_000,
  connectionsCheckingInterval: 1_000,
  keepAliveTimeout: 60_000,
  requireHostHeader: false, // the guard says it with our own words, and for a second Host, too
  noDelay: true,
  keepAlive: true,
  keepAliveInitialDelay: 60_000,
};

/** On every answer: nothing here may be cached, sniffed or framed. */
const HEADERS = {
  'cache-control': 'no-store',
  'x-content-type-options': 'nosniff',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
} as const;

declare module 'fastify' {
  interface FastifyContextConfig {
    /** What the call needs; by default GET and HEAD read, everything else writes. */
    access?: Access;
  }
}

/** A built API. `app` answers `inject` without a socket. */
export interface Api {
  readonly app: App;
  /** Opens the listener; resolves with `http://host:port` or `unix:path`. Throws LISTEN_FAILED. */
  listen(): Promise<string>;
  /** Ends waiting readers and streams at once, other answers within `graceMs`, then every socket. */
  close(graceMs?: number): Promise<void>;
}

/** Builds the API. Throws API_INSECURE when it would listen beyond this host without a token. */
export async function createApi(settings: ApiSettings, deps: ApiDeps, ports: ApiPorts): Promise<Api> {
  assertSecure(settings.listen, settings.tokens);
  const connections = new Connections(deps.clock);
  const closing = new AbortController();
  const feed = new ChangeFeed(ports.catalog, deps.clock);
  const renderer = new ServiceRenderer(ports.catalog, ports.dataPlane, deps.clock);
  const context: ApiContext = { ...deps, ports, feed, renderer, closing: closing.signal };
  const app = createApp(connections);
  guardEveryRequest(app, settings, deps);
  answerErrors(app, deps);
  await describeApi(app);
  for (const route of ROUTES) route(app, context);
  await app.ready();
  if (deps.maxConnections !== undefined) app.server.maxConnections = deps.maxConnections;
  let listening: Listening | null = null;
  return {
    app,
    async listen() {
      listening = await openListener(app.server, settings.listen);
      return listening.address;
    },
    async close(graceMs = 1_000) {
      closing.abort(new WeirError('DRAINING', 'weir is stopping'));
      feed.close();
      await closeServer(app, connections, deps, listening === null ? null : graceMs);
      await listening?.release();
    },
  };
}

const ROUTES: readonly ((app: App, context: ApiContext) => void)[] = [
  routeProbes,
  routeSources,
  routeServices,
  routeExplain,
  routeWatch,
  routeRegistrations,
  routeHolds,
  routeOverrides,
  routeEvents,
  routeConfig,
  routePrometheusTargets,
  routeMetrics,
  routeMigrations,
  routeOpenapi,
];

/** fastify loads its own compilers (25 ms of a start) unless it is told of others; `createApp` sets what is really used. */
const NO_COMPILERS = { compilersFactory: { buildValidator: neverBuilt, buildSerializer: neverBuilt } };

function neverBuilt(): never {
  throw new RangeError('the compilers of fastify are not used');
}

function createApp(connections: Connections): App {
  const app: App = fastify({
    logger: false,
    bodyLimit: MAX_BODY_BYTES,
    routerOptions: { maxParamLength: 2_048 },
    keepAliveTimeout: 60_000,
    requestTimeout: 60_000,
    maxRequestsPerSocket: 10_000,
    schemaController: NO_COMPILERS,
    serverFactory: (handler) => createHttpServer(handler, connections),
    clientErrorHandler: (error, socket) => answerBrokenRequest(error, socket),
    frameworkErrors: (error, _request, reply) => {
      sendError(reply, errorReply(error));
    },
  });
  // Schemas describe (openapi.ts); checking is done by our own decoders, so nothing is compiled twice and no answer is filtered.
  app.setValidatorCompiler(() => () => true);
  app.setSerializerCompiler(() => (data) => JSON.stringify(data));
  app.removeAllContentTypeParsers();
  app.addContentTypeParser(
    'application/json',
    { parseAs: 'buffer', bodyLimit: MAX_BODY_BYTES },
    async (_: FastifyRequest, body: Buffer) =>
      body.length === 0 ? undefined : orBadRequest('body', parseJson(body, { maxBytes: MAX_BODY_BYTES })),
  );
  return app;
}

function createHttpServer(
  handler: (request: IncomingMessage, response: ServerResponse) => void,
  connections: Connections,
): Server {
  const server = createServer(SERVER_OPTIONS, (request, response) => {
    const accepted = connections.enter(request.socket);
    response.once('close', () => connections.leave(request.socket));
    if (accepted) handler(request, response);
    else
      writeRefusal(
        response,
        errorReply(new WeirError('TOO_MANY_REQUESTS', 'too many requests are in flight on this connection')),
      );
  });
  server.on('connection', (socket: Socket) => connections.add(socket));
  return server;
}

/** Order: form of the request and where it comes from, then who sent it, then (by the router) what it asks. */
function guardEveryRequest(app: App, settings: ApiSettings, deps: ApiDeps): void {
  const allowed = hostAllowList([...settings.allowedHosts, bracketed(settings.listen.host)]);
  const access = new AccessJudge(settings.tokens, new LoginLimiter(deps.clock));
  app.addHook('onRequest', async (request, reply) => {
    reply.headers(HEADERS);
    const { method = '', url = '', rawHeaders, socket } = request.raw;
    const refused = judge({ method, target: url, rawHeaders, localAddress: socket.localAddress }, allowed);
    if (refused !== null) return refuse(reply, refused);
    const denied = access.judge(accessOf(request), fieldValues(rawHeaders, 'authorization'), socket.remoteAddress);
    if (denied === null) return;
    if (denied.retryAfterMs !== undefined) reply.header('retry-after', String(Math.ceil(denied.retryAfterMs / 1_000)));
    if (denied.error.code === 'UNAUTHORIZED') reply.header('www-authenticate', 'Bearer');
    return refuse(reply, denied.error);
  });
}

/** An IPv6 address as a Host field has it. */
function bracketed(host: string): string {
  return host.includes(':') && !host.startsWith('[') ? `[${host}]` : host;
}

function accessOf(request: FastifyRequest): Access {
  return request.routeOptions.config.access ?? (request.method === 'GET' || request.method === 'HEAD' ? 'read' : 'write');
}

/** A refused request may have a body on its way: the connection ends with the answer. */
function refuse(reply: FastifyReply, error: WeirError): FastifyReply {
  return sendError(reply.header('connection', 'close'), errorReply(error));
}

function sendError(reply: FastifyReply, error: ErrorReply): FastifyReply {
  return reply.code(error.status).headers(HEADERS).type('application/json; charset=utf-8').send(error.body);
}

function answerErrors(app: App, deps: ApiDeps): void {
  app.setErrorHandler((thrown, request, reply) => {
    const error = errorReply(thrown);
    if (error.bug) {
      const stack = thrown instanceof Error ? thrown.stack : undefined;
      deps.log.error({ method: request.method, path: request.url, error: messageOf(thrown), stack }, 'an API call failed');
    }
    if (error.status === 413) reply.header('connection', 'close');
    return sendError(reply, error);
  });
  app.setNotFoundHandler((request, reply) =>
    sendError(
      reply,
      errorReply(new WeirError('NOT_FOUND', `there is no call ${request.method} of this path; /openapi.json lists them`)),
    ),
  );
}

/** What is no HTTP at all never becomes a request; node:http hands over the bare socket. */
function answerBrokenRequest(error: Error & { code?: string }, socket: Socket): void {
  if (!socket.writable || error.code === 'ECONNRESET') {
    socket.destroy();
    return;
  }
  const status = error.code === 'HPE_HEADER_OVERFLOW' ? 431 : error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 408 : 400;
  const reply = errorReply(Object.assign(new Error('broken request'), { statusCode: status }));
  const text = JSON.stringify(reply.body);
  const head = `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\ncontent-type: application/json; charset=utf-8\r\n`;
  socket.end(`${head}cache-control: no-store\r\nconnection: close\r\ncontent-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`);
}

function writeRefusal(response: ServerResponse, error: ErrorReply): void {
  response.writeHead(error.status, {
    ...HEADERS,
    connection: 'close',
    'content-type': 'application/json; charset=utf-8',
    'retry-after': '1',
  });
  response.end(JSON.stringify(error.body));
}

async function closeServer(app: App, connections: Connections, deps: ApiDeps, graceMs: number | null): Promise<void> {
  if (graceMs !== null) {
    const closed = new Promise<void>((resolve) => app.server.close(() => resolve()));
    app.server.closeIdleConnections();
    const timer = deps.clock.setTimer(graceMs, () => connections.destroyAll());
    await closed;
    timer.cancel();
  }
  connections.destroyAll();
  await app.close();
}
