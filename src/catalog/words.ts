// Owns the shape in which the catalog hands what it knows to the last-good file and takes it back. Types only.
import type { Instance } from '../model/instance.ts';
import type { ServiceId, ServiceKey } from '../model/service.ts';
import type { HoldKind } from './shrink-guard.ts';

/** One source's word on one service. */
export interface SourceWords {
  readonly source: string;
  /** Native. */
  readonly key: ServiceKey;
  readonly presence: 'present' | 'absent';
  readonly epoch: string;
  readonly sourceRevision: string;
  /** Wall ms of the last good answer. */
  readonly goodAt: number;
  readonly present: readonly Instance[];
  readonly held: readonly { readonly instance: Instance; readonly kind: HoldKind }[];
}

/** All that is known of one service. */
export interface Words {
  readonly service: ServiceId;
  readonly sources: readonly SourceWords[];
}

/** One source's word from disk; instances are decoded when somebody needs them. */
export interface RestoredWord {
  readonly source: string;
  readonly key: ServiceKey;
  readonly presence: 'present' | 'absent';
  readonly epoch: string;
  readonly sourceRevision: string;
  readonly goodAt: number;
  /** Older than lastGoodMaxAge. */
  readonly suspect: boolean;
  readonly count: number;
  decode(): Pick<SourceWords, 'present' | 'held'>;
}

/** When a source was last heard from while it was live (wall ms), and its services whose word was not current then. */
export interface Contact {
  readonly source: string;
  readonly contactAt: number;
  readonly except: readonly ServiceId[];
}
