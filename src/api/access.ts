// Owns who may call what: read and write tokens, compared in constant time, failed logins limited (reliability.md §5).
// Called by server.ts before a body is read; must never log or answer a token.
import { createHash, timingSafeEqual } from 'node:crypto';
import { WeirError } from '../kernel/errors.ts';
import type { LoginLimiter } from './login-limiter.ts';

/** What a call needs: nothing (probes), to read, to write. */
export type Access = 'free' | 'read' | 'write';

/** Configured tokens. A write token may read too. With only one of the two, reads need that one; writes always need `write`. */
export interface Tokens {
  readonly read: string | null;
  readonly write: string | null;
}

/** Null: allowed. `retryAfterMs` stands beside TOO_MANY_REQUESTS. */
export interface Denied {
  readonly error: WeirError;
  readonly retryAfterMs?: number;
}

/** Judges the Authorization field of each request. */
export class AccessJudge {
  readonly #read: Buffer | null;
  readonly #write: Buffer | null;
  readonly #limiter: LoginLimiter;

  constructor(tokens: Tokens, limiter: LoginLimiter) {
    this.#read = digestOf(tokens.read);
    this.#write = digestOf(tokens.write);
    this.#limiter = limiter;
  }

  /** True when calls need a token at all. */
  get required(): boolean {
    return this.#read !== null || this.#write !== null;
  }

  /** Why this call is refused, or null. `fields`: every Authorization field of the request. */
  judge(need: Access, fields: readonly string[], peer: string | undefined): Denied | null {
    if (need === 'free' || !this.required) return null;
    const wait = this.#limiter.waitMs(peer);
    if (wait > 0)
      return { error: new WeirError('TOO_MANY_REQUESTS', 'too many failed logins from this address'), retryAfterMs: wait };
    if (fields.length === 0) return { error: new WeirError('UNAUTHORIZED', 'a token is needed: Authorization: Bearer …') };
    const token = fields.length === 1 ? bearer(fields[0] ?? '') : null;
    const digest = digestOf(token ?? '') ?? Buffer.alloc(0);
    // Both are always compared, so that time tells nothing about which one came close.
    const reads = equal(this.#read, digest);
    const writes = equal(this.#write, digest);
    if (!reads && !writes) {
      this.#limiter.failed(peer);
      return { error: new WeirError('UNAUTHORIZED', 'this token is not accepted') };
    }
    if (need === 'read' || writes) return null;
    const words = this.#write === null ? 'no write token is configured (api.tokens.write)' : 'this token may only read';
    return { error: new WeirError('FORBIDDEN', words) };
  }
}

function bearer(field: string): string | null {
  const match = /^bearer +([\x21-\x7e]{1,4096}) *$/i.exec(field);
  return match?.[1] ?? null;
}

/** Digests have one length, so comparing them tells nothing about the length of a token. */
function digestOf(token: string | null): Buffer | null {
  return token === null || token === '' ? null : createHash('sha256').update(token).digest();
}

function equal(own: Buffer | null, digest: Buffer): boolean {
  return own !== null && own.length === digest.length && timingSafeEqual(own, digest);
}
