// Owns the access token of one source: login on v3 or v1, renewal before its end, one more login where a token is refused (section 3).
// Called by api.ts and session.ts; must never log in more than once a minute for a refusal, nor put a secret into a URL or a message.
import type { SourceOptions } from '../../src/adapter/contract.ts';
import type { Clock } from '../../src/kernel/clock.ts';
import { isRecord } from '../../src/kernel/decode.ts';
import type { Random } from '../../src/kernel/random.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import type { NacosServer } from './config.ts';
import { HttpRefusal, isTokenFault, NacosRefusal } from './errors.ts';
import type { NacosHttp } from './http.ts';

const DEFAULT_TTL_S = 18_000;
/** At most one login in this time for tokens that are refused, ms. */
const AGAIN_MS = 60_000;
const PATHS = ['/v3/auth/user/login', '/v1/auth/users/login'] as const;

export interface AuthDeps {
  readonly http: NacosHttp;
  readonly clock: Clock;
  readonly random: Random;
}

export class Auth {
  readonly #auth: SourceOptions['auth'];
  readonly #deps: AuthDeps;
  #token: string | null;
  /** Monotonic ms from which a new login is due. */
  #renewAt = Number.POSITIVE_INFINITY;
  #refusedAt = Number.NEGATIVE_INFINITY;
  #login: Promise<string> | null = null;
  /** A failed login holds for a while: a flood of wrong ones locks accounts. */
  #failed: { readonly error: SourceError; readonly until: number } | null = null;

  constructor(auth: SourceOptions['auth'], deps: AuthDeps) {
    this.#auth = auth;
    this.#deps = deps;
    this.#token = auth.token ?? null;
  }

  /** The token for a call now; null where none is configured. Rejects with SourceError when the login fails. */
  async token(server: NacosServer, signal: AbortSignal): Promise<string | null> {
    const { username, password, token } = this.#auth;
    if (token !== undefined || username === undefined) return this.#token;
    const now = this.#deps.clock.now();
    if (this.#token !== null && now < this.#renewAt) return this.#token;
    if (this.#failed !== null && now < this.#failed.until) throw this.#failed.error;
    // One login for all callers that wait.
    this.#login ??= this.#logIn(server, username, password ?? '').finally(() => {
      this.#login = null;
    });
    try {
      const fresh = await this.#login;
      signal.throwIfAborted();
      return fresh;
    } catch (thrown) {
      signal.throwIfAborted();
      // The old token may still hold: a renewal that fails by the network is no reason to stop.
      if (this.#token !== null && thrown instanceof SourceError && thrown.causeKind === 'lost') return this.#token;
      throw thrown;
    }
  }

  /** Runs a call with the token, once more with a fresh one where the server says that the token is the fault. */
  async run<T>(server: NacosServer, signal: AbortSignal, call: (token: string | null) => Promise<T>): Promise<T> {
    const token = await this.token(server, signal);
    try {
      return await call(token);
    } catch (thrown) {
      if (!(thrown instanceof NacosRefusal) || thrown.causeKind !== 'denied' || !isTokenFault(thrown.text)) throw thrown;
      if (!this.#forget(token)) throw thrown;
      return call(await this.token(server, signal));
    }
  }

  /** True where a new login is to be had. */
  #forget(used: string | null): boolean {
    if (this.#auth.username === undefined || this.#auth.token !== undefined) return false;
    // Somebody has a fresher one already.
    if (this.#token !== used) return true;
    const now = this.#deps.clock.now();
    if (now - this.#refusedAt < AGAIN_MS) return false;
    this.#refusedAt = now;
    this.#token = null;
    return true;
  }

  async #logIn(server: NacosServer, username: string, password: string): Promise<string> {
    const { clock, random } = this.#deps;
    try {
      const { token, ttl } = await this.#ask(server, username, password);
      // At a random moment in the last fifteenth to tenth of its life.
      const early = (ttl / 15 + random() * (ttl / 10 - ttl / 15)) * 1_000;
      this.#renewAt = clock.now() + Math.max(1_000, ttl * 1_000 - early);
      this.#token = token;
      this.#failed = null;
      return token;
    } catch (thrown) {
      if (thrown instanceof SourceError && thrown.causeKind === 'denied') {
        this.#failed = { error: thrown, until: clock.now() + 10_000 };
      }
      throw thrown;
    }
  }

  async #ask(server: NacosServer, username: string, password: string): Promise<{ token: string; ttl: number }> {
    for (const path of PATHS) {
      try {
        const { json } = await this.#deps.http.call(
          server,
          'POST',
          path,
          { form: { username, password } },
          new AbortController().signal,
        );
        const body = isRecord(json) && isRecord(json['data']) && json['accessToken'] === undefined ? json['data'] : json;
        if (isRecord(body) && typeof body['accessToken'] === 'string' && body['accessToken'] !== '') {
          const ttl = body['tokenTtl'];
          return { token: body['accessToken'], ttl: typeof ttl === 'number' && ttl > 0 ? ttl : DEFAULT_TTL_S };
        }
        throw new SourceError(
          'denied',
          `nacos ${server.address}: the login gives no token: another plugin of authentication? set auth.token or headers`,
        );
      } catch (thrown) {
        if (!(thrown instanceof HttpRefusal)) throw thrown;
        const elsewhere = thrown.status === 404 || thrown.status === 501 || thrown.status === 405;
        if (elsewhere && path === PATHS[0]) continue;
        // 3.0.3 answers a wrong password by a bare 500 (v1 path: with another text), an unknown user by 403.
        const wrong =
          thrown.status === 500 && /No message available|Compatibility failed|unknown user|password/i.test(thrown.text);
        if (wrong || thrown.status === 403 || thrown.status === 401) {
          const text = `nacos ${server.address}: the login is refused: check auth.username and auth.password (${thrown.status})`;
          throw new SourceError('denied', text);
        }
        throw thrown;
      }
    }
    throw new SourceError('denied', `nacos ${server.address}: it knows no login: remove auth.username, or set auth.token`);
  }
}
