// Owns the way to one cluster: which member, over gRPC or (1.x) HTTP, the one session that all watches and registrations share.
// Called by everything in this folder that talks to Nacos; must never reconnect by itself: the next one who asks makes it, no sooner
// than the back-off allows (R7), except that it follows a server's ConnectResetRequest.
import type { AdapterDeps, SourceOptions } from '../../src/adapter/contract.ts';
import { raceAbort } from '../../src/kernel/cancel.ts';
import { randomBelow } from '../../src/kernel/random.ts';
import { asSourceError, SourceError } from '../../src/model/snapshot.ts';
import { NacosApi } from './api.ts';
import { Auth } from './auth.ts';
import type { NacosConfig, NacosServer } from './config.ts';
import { NacosHttp, tlsMaterial } from './http.ts';
import { Session, type SessionEvents } from './session.ts';

/** R7: a session that lived this long was healthy. */
const HEALTHY_MS = 30_000;
/** Section 5, rule 8: lists are short for so long after a server came back. */
export const DOUBT_MS = 60_000;
/** A caller waits itself for a next try that is as near as this. */
const SHORT_WAIT_MS = 1_000;
/** How often the API of an HTTP-only cluster is looked at anew, ms. */
const REPROBE_MS = 300_000;

/** Who shares the session. */
export interface LineUser {
  /** A session is there (first, after a loss, or moved). Resolves when everything of this user stands on it. */
  attached(session: Session): Promise<void>;
  /** The session is gone; called once for each that was attached and not replaced. */
  lost(error: SourceError): void;
  onService?(session: Session, serviceInfo: unknown): void;
  onFuzzy?(session: Session, type: string, body: Readonly<Record<string, unknown>>): void;
}

/** What the server says it is. */
export interface ServerInfo {
  readonly version: string | null;
  /** 1, 2, 3; a server that does not say is taken for 2 (Polaris' face). */
  readonly generation: number;
}

export class Line {
  readonly api: NacosApi;
  readonly config: NacosConfig;
  readonly deps: AdapterDeps;
  readonly #options: SourceOptions;
  readonly #http: NacosHttp;
  readonly #auth: Auth;
  readonly #users: readonly LineUser[];
  readonly #events: SessionEvents;
  readonly #closed = new AbortController();
  readonly #servers: readonly NacosServer[];
  #index = 0;
  #number = 0;
  #session: Session | null = null;
  #openedAt = 0;
  #connecting: Promise<Session | null> | null = null;
  #moving = false;
  #httpUntil = Number.NEGATIVE_INFINITY;
  #attempt = 0;
  #retryAt = Number.NEGATIVE_INFINITY;
  #lastError: SourceError | null = null;
  #info: { readonly server: NacosServer; readonly epoch: number; readonly info: ServerInfo } | null = null;
  #doubtUntil = Number.NEGATIVE_INFINITY;
  #lostOnce = false;
  #httpLosses = 0;

  constructor(config: NacosConfig, options: SourceOptions, deps: AdapterDeps, users: readonly LineUser[]) {
    this.config = config;
    this.deps = deps;
    this.#options = options;
    this.#users = users;
    this.#http = new NacosHttp(config, options, deps.clock);
    this.#auth = new Auth(options.auth, { http: this.#http, clock: deps.clock, random: deps.random });
    this.api = new NacosApi(config, this.#http, this.#auth);
    this.#servers = shuffled(config.servers, deps.random);
    this.#events = {
      onService: (session, info) => {
        if (session === this.#session) for (const user of users) user.onService?.(session, info);
      },
      onFuzzy: (session, type, body) => {
        if (session === this.#session) for (const user of users) user.onFuzzy?.(session, type, body);
      },
      onReset: (session, target) => void this.#move(session, target),
      onEnd: (session, error) => this.#ended(session, error),
    };
    if (config.api === 'http') this.#httpUntil = Number.POSITIVE_INFINITY;
  }

  /** The member that is asked now. */
  get server(): NacosServer {
    const server = this.#session?.server ?? this.#servers[this.#index] ?? this.#servers[0];
    if (server === undefined) throw new SourceError('refused', 'nacos: servers is empty');
    return server;
  }

  /** Another member than the current one, where there is one. */
  get otherServer(): NacosServer {
    const now = this.server;
    const at = this.#servers.indexOf(now);
    return this.#servers[(at + 1) % this.#servers.length] ?? now;
  }

  get session(): Session | null {
    return this.#session;
  }

  /** True while the cluster is spoken to over HTTP alone. */
  get httpOnly(): boolean {
    return this.deps.clock.now() < this.#httpUntil;
  }

  /** Over HTTP a loss is all that tells of a server that began anew. */
  get httpEpoch(): string {
    return `http-${this.#httpLosses}`;
  }

  /** Lists may be short now: the cluster was lost and is back for less than a minute. */
  get doubtful(): boolean {
    return this.deps.clock.now() < this.#doubtUntil;
  }

  /** The shared session, opened when there is none; null where the cluster speaks HTTP only. Rejects with SourceError or the reason. */
  async enter(signal: AbortSignal): Promise<Session | null> {
    for (;;) {
      signal.throwIfAborted();
      this.#closed.signal.throwIfAborted();
      if (this.#session !== null) return this.#session;
      if (this.httpOnly) return null;
      if (this.#connecting === null) {
        const wait = this.#retryAt - this.deps.clock.now();
        if (wait > SHORT_WAIT_MS) throw this.#again(wait);
        if (wait > 0) {
          await this.deps.clock.sleep(wait, signal);
          continue;
        }
        this.#connecting = this.#connect().finally(() => {
          this.#connecting = null;
        });
        // Those who wait may all have gone.
        this.#connecting.catch(() => {});
      }
      return await raceAbort(this.#connecting, signal);
    }
  }

  /** Version of the current server; asked once per session. Rejects with SourceError. */
  async info(signal: AbortSignal): Promise<ServerInfo> {
    const { server } = this;
    if (this.#info !== null && this.#info.server === server && this.#info.epoch === this.#number) return this.#info.info;
    const epoch = this.#number;
    const version = await this.api.version(server, signal);
    const info = { version, generation: version === null ? 2 : Math.min(3, Number.parseInt(version, 10)) };
    this.#info = { server, epoch, info };
    return info;
  }

  /** An HTTP call failed or succeeded: a lost one moves on to the next member, and puts lists in doubt when the cluster is back. */
  httpWent(well: boolean): void {
    if (well) {
      if (this.#lostOnce && this.httpOnly) this.#doubt();
      this.#lostOnce = false;
      return;
    }
    if (!this.httpOnly) return;
    if (!this.#lostOnce) this.#httpLosses++;
    this.#lostOnce = true;
    this.#info = null;
    this.#index = (this.#index + 1) % this.#servers.length;
    // It may have been upgraded: look again what it speaks.
    if (this.config.api === 'auto') this.#httpUntil = Number.NEGATIVE_INFINITY;
  }

  async close(): Promise<void> {
    if (this.#closed.signal.aborted) return;
    const error = new SourceError('lost', 'nacos: the source is closed');
    this.#closed.abort(error);
    const session = this.#session;
    this.#session = null;
    session?.close();
    for (const user of this.#users) user.lost(error);
    await this.#http.close();
  }

  async #connect(): Promise<Session | null> {
    const { server } = this;
    const { clock, log, sourceId } = this.deps;
    try {
      const session = await this.#open(server, this.#closed.signal);
      this.#adopt(session);
      return session;
    } catch (thrown) {
      this.#closed.signal.throwIfAborted();
      let error = asSourceError(thrown);
      if (this.config.api === 'auto' && error.causeKind !== 'denied') {
        const judged = await this.#judge(server, error);
        if (judged === 'http') {
          this.#httpUntil = clock.now() + REPROBE_MS;
          log.info({ source: sourceId, server: server.address }, 'nacos 1.x: spoken to over HTTP');
          return null;
        }
        error = judged;
      }
      this.#attempt++;
      this.#retryAt = clock.now() + Math.max(leastDelay(this.#attempt), error.retryAfterMs ?? 0);
      this.#lastError = error;
      this.#index = (this.#index + 1) % this.#servers.length;
      throw error;
    }
  }

  /** gRPC did not work: what is it that stands there? */
  async #judge(server: NacosServer, grpc: SourceError): Promise<'http' | SourceError> {
    let version: string | null;
    try {
      version = await this.api.version(server, this.#closed.signal);
    } catch (thrown) {
      this.#closed.signal.throwIfAborted();
      const http = asSourceError(thrown);
      return http.causeKind === 'lost' ? grpc : http;
    }
    if (version === null) {
      if (grpc.causeKind === 'malformed') return grpc;
      const text = `nacos ${server.address}: what answers there is no Nacos: check servers (the HTTP port, 8848 by default) and contextPath (gRPC: ${grpc.message})`;
      return new SourceError('malformed', text, { cause: grpc });
    }
    if (/^1\./.test(version)) return 'http';
    const text = `nacos ${server.address}: Nacos ${version} answers over HTTP but its gRPC port ${server.grpc} does not: open it, or set grpcPort (${grpc.message})`;
    return new SourceError(grpc.causeKind, text, { cause: grpc });
  }

  async #open(server: NacosServer, signal: AbortSignal): Promise<Session> {
    const tls = server.tls ? await tlsMaterial(this.#options.tls ?? {}) : null;
    const { config, deps } = this;
    const { clock, count } = deps;
    const how = { config, auth: this.#auth, clock, timeout: this.#options.timeout, count };
    return Session.open(server, ++this.#number, tls, how, this.#events, signal);
  }

  #adopt(session: Session): void {
    if (!session.alive) throw new SourceError('lost', `nacos ${session.server.grpc}: the connection broke at once`);
    const { clock } = this.deps;
    this.#session = session;
    this.#index = Math.max(0, this.#servers.indexOf(session.server));
    this.#openedAt = clock.now();
    if (this.#lostOnce) this.#doubt();
    for (const user of this.#users) void user.attached(session).catch(() => {});
  }

  #doubt(): void {
    this.#doubtUntil = this.deps.clock.now() + DOUBT_MS;
  }

  #ended(session: Session, error: SourceError): void {
    if (session !== this.#session) return;
    const { clock } = this.deps;
    this.#session = null;
    this.#lostOnce = true;
    this.#attempt = clock.now() - this.#openedAt >= HEALTHY_MS ? 1 : this.#attempt + 1;
    this.#retryAt = clock.now() + Math.max(leastDelay(this.#attempt), error.retryAfterMs ?? 0);
    this.#lastError = error;
    this.#index = (this.#servers.indexOf(session.server) + 1) % this.#servers.length;
    for (const user of this.#users) user.lost(error);
  }

  /** ConnectResetRequest: stand elsewhere first, then leave. Without success we stay: the old connection goes on working. */
  async #move(old: Session, target: { readonly host: string; readonly port: string } | null): Promise<void> {
    if (this.#moving || old !== this.#session) return;
    this.#moving = true;
    const { count, log, sourceId } = this.deps;
    try {
      count('connection.reset');
      const named = target === null ? undefined : this.#servers.find((server) => isAt(server, target));
      const session = await this.#open(named ?? this.otherServer, this.#closed.signal);
      if (old !== this.#session) {
        session.close();
        return;
      }
      this.#session = session;
      this.#index = Math.max(0, this.#servers.indexOf(session.server));
      await Promise.allSettled(this.#users.map((user) => user.attached(session)));
      old.close();
    } catch (thrown) {
      if (!this.#closed.signal.aborted)
        log.warn({ source: sourceId, error: asSourceError(thrown).message }, 'nacos: the server asked us to move, which failed');
    } finally {
      this.#moving = false;
    }
  }

  /** The error of the last try, for those who ask before the next one is due. */
  #again(wait: number): SourceError {
    const last = this.#lastError;
    return new SourceError(last?.causeKind ?? 'lost', last?.message ?? 'nacos: not connected', {
      cause: last,
      retryAfterMs: wait,
    });
  }
}

/** `serverPort` is the main port as text (by source); some name the gRPC port. */
function isAt(server: NacosServer, target: { readonly host: string; readonly port: string }): boolean {
  return server.host === target.host && (server.address.endsWith(`:${target.port}`) || server.grpc.endsWith(`:${target.port}`));
}

function shuffled<T>(items: readonly T[], random: () => number): readonly T[] {
  const mixed = [...items];
  for (let i = mixed.length - 1; i > 0; i--) {
    const j = randomBelow(random, i + 1);
    const [a, b] = [mixed[i], mixed[j]];
    if (a !== undefined && b !== undefined) [mixed[i], mixed[j]] = [b, a];
  }
  return mixed;
}

/** R7's lower bound: the spread is the supervisor's, who asks; a second one here would only make the fleet later. */
function leastDelay(attempt: number): number {
  return Math.min(15_000, 500 * 2 ** Math.min(10, attempt - 1));
}
