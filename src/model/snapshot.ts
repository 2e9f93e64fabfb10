// Owns the three facts that are never merged: unknown service (absent), no instances (present, empty), registry lost (SourceError).
import type { Instance, NativeId } from './instance.ts';
import type { ServiceKey } from './service.ts';

/** A record of a good list that was refused; the list survives (R4). */
export interface RejectedRecord {
  readonly nativeId: NativeId;
  /** For people: what was wrong, without control characters. */
  readonly reason: string;
}

interface SnapshotBase {
  /** Changes when the registry's revisions started anew (wiped, restored, other cluster); opaque. */
  readonly epoch: string;
  /** The registry's own revision; opaque. */
  readonly sourceRevision: string;
}

/** All instances of one service from one source at one moment. */
export type Snapshot = SnapshotBase &
  (
    | {
        readonly kind: 'present';
        readonly instances: readonly Instance[];
        readonly rejected: readonly RejectedRecord[];
        /** Ids that were deregistered on purpose; only where the protocol tells that from expiry. */
        readonly deregistered?: readonly NativeId[];
      }
    | { readonly kind: 'absent' }
  );

/** The registry was heard from and nothing changed. */
export interface Unchanged {
  readonly kind: 'unchanged';
}

/** The whole list of names in scope, in the source's own words. */
export interface ServiceList {
  readonly keys: readonly ServiceKey[];
  /** Names whose part of the enumeration failed: nothing may be concluded about them. */
  readonly failed: readonly ServiceKey[];
  /** False: names may be missing (some page failed without telling which). */
  readonly complete: boolean;
}

/** lost: unreachable, cut, timed out, throttled · denied: 401/403, certificate, ACL · malformed: broken envelope · limit: over one of our caps · refused: the registry says no to a write · fenced: another owner writes. */
export type SourceErrorCause = 'lost' | 'denied' | 'malformed' | 'limit' | 'refused' | 'fenced';

/** Every failure of an adapter. `message` tells a person what to change and holds no secret. */
export class SourceError extends Error {
  readonly causeKind: SourceErrorCause;
  /** Wait at least this long before the next try (Retry-After), ms. */
  readonly retryAfterMs: number | undefined;

  constructor(causeKind: SourceErrorCause, message: string, options: { cause?: unknown; retryAfterMs?: number } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'SourceError';
    this.causeKind = causeKind;
    this.retryAfterMs = options.retryAfterMs;
  }
}

/** Anything thrown by an adapter as a SourceError; what is none counts as lost (a bug of ours must not remove anything either). */
export function asSourceError(thrown: unknown): SourceError {
  if (thrown instanceof SourceError) return thrown;
  return new SourceError('lost', thrown instanceof Error ? thrown.message : String(thrown), { cause: thrown });
}
