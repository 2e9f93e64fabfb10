// Owns the second names of a migration from a registry whose names are ids (L5): the id stays resolvable in the target, where old callers
// ask for it (migration.md "Kinds"). Called by worker.ts. Must never take a name away that was there before us.
import type { Adapter } from '../adapter/contract.ts';
import type { Clock } from '../kernel/clock.ts';
import { messageOf } from '../kernel/errors.ts';
import { type ServiceId, type ServiceKey, serviceId } from '../model/service.ts';
import type { AuditLine } from '../telemetry/audit.ts';
import type { Ledger } from './ledger.ts';
import type { MigrationDoc } from './migration.ts';
import type { MigrationCatalog, MigrationSources } from './ports.ts';
import type { Scope } from './scope.ts';

/** Kinds whose names are ids that callers hold on to. */
const ID_KINDS: ReadonlySet<string> = new Set(['l5']);
/** Aliases made before the document is written. */
const AT_ONCE = 20;
/** A refused alias is asked for again after this, ms. */
const AGAIN_MS = 30_000;

export interface AliasesDeps {
  readonly clock: Clock;
  readonly audit: (line: AuditLine) => void;
  readonly catalog: MigrationCatalog;
  readonly sources: MigrationSources;
  readonly scope: Scope;
  readonly doc: () => MigrationDoc;
  readonly frozen: () => boolean;
  readonly change: (edit: (doc: MigrationDoc) => MigrationDoc) => Promise<MigrationDoc>;
}

export class Aliases {
  readonly #deps: AliasesDeps;
  /** Services whose alias stands, made by us or not. */
  readonly #standing = new Set<ServiceId>();
  readonly #putOff = new Map<ServiceId, number>();
  #working = false;
  #error: string | null = null;

  constructor(deps: AliasesDeps) {
    this.#deps = deps;
  }

  /** What is missing, in words; null: nothing. */
  get waiting(): string | null {
    return this.#error;
  }

  /** Makes the aliases that are missing for services whose copies stand. Never rejects. */
  async work(ledger: Ledger, signal: AbortSignal): Promise<void> {
    const { from, to } = this.#deps.doc().spec;
    const target = this.#deps.sources.adapter(to);
    if (this.#working || target?.alias === undefined || !this.#namesAreIds(from) || this.#deps.frozen()) return;
    this.#working = true;
    try {
      const due = this.#due(ledger, to);
      const known = new Set(this.#deps.doc().aliases);
      const fresh = due.filter((service) => !known.has(service));
      // Written down before it is made: what we made is never forgotten.
      if (fresh.length > 0) await this.#deps.change((doc) => ({ ...doc, aliases: [...new Set([...doc.aliases, ...fresh])] }));
      const foreign = new Set<ServiceId>();
      for (const service of due) {
        if (signal.aborted) return;
        const made = await this.#make(target, service, signal);
        if (made === false && !known.has(service)) foreign.add(service);
      }
      if (foreign.size === 0) return;
      await this.#deps.change((doc) => ({ ...doc, aliases: doc.aliases.filter((service) => !foreign.has(service)) }));
    } catch (thrown) {
      this.#error = messageOf(thrown);
    } finally {
      this.#working = false;
    }
  }

  /** Takes away what we made. Throws what the registry says while one is left. */
  async undo(signal: AbortSignal): Promise<void> {
    const { doc, sources, change } = this.#deps;
    const { aliases, spec } = doc();
    if (aliases.length === 0) return;
    const target = sources.adapter(spec.to);
    if (target?.unalias === undefined) throw new Error(`source ${spec.to} is not there to take aliases away from`);
    for (const service of aliases) {
      const names = this.#names(service);
      if (names === null) continue;
      try {
        await target.unalias(names.key, names.alias, signal);
        this.#said('unalias', service, names, 'ok');
      } catch (thrown) {
        this.#said('unalias', service, names, messageOf(thrown));
        throw thrown;
      }
    }
    this.#standing.clear();
    await change((now) => ({ ...now, aliases: [] }));
  }

  #namesAreIds(from: string): boolean {
    return ID_KINDS.has(this.#deps.sources.adapter(from)?.kind ?? '');
  }

  /** Services with a copy in the target whose alias is not known to stand; a bounded number. */
  #due(ledger: Ledger, to: string): readonly ServiceId[] {
    const due: ServiceId[] = [];
    const now = this.#deps.clock.now();
    for (const { service } of ledger.pages()) {
      if (due.length >= AT_ONCE) break;
      if (this.#standing.has(service) || (this.#putOff.get(service) ?? 0) > now) continue;
      if (!ledger.entriesIn(to, service).some(({ state }) => state === 'written')) continue;
      const names = this.#names(service);
      if (names === null || names.alias === names.key.name) this.#standing.add(service);
      else due.push(service);
    }
    return due;
  }

  /** True: it was made now; false: it stood already; null: it failed. */
  async #make(target: Adapter, service: ServiceId, signal: AbortSignal): Promise<boolean | null> {
    const names = this.#names(service);
    if (names === null) return null;
    try {
      const created = (await target.alias?.(names.key, names.alias, signal)) ?? false;
      this.#standing.add(service);
      this.#error = null;
      if (created) this.#said('alias', service, names, 'ok');
      return created;
    } catch (thrown) {
      if (signal.aborted) return null;
      this.#putOff.set(service, this.#deps.clock.now() + AGAIN_MS);
      this.#error = `the alias ${names.alias} of ${service}: ${messageOf(thrown)}`;
      this.#said('alias', service, names, messageOf(thrown));
      return null;
    }
  }

  #names(service: ServiceId): { readonly key: ServiceKey; readonly alias: string } | null {
    const { scope, catalog, doc } = this.#deps;
    const { from, to } = doc().spec;
    const key = scope.key(to, service);
    const alias = (catalog.account(from, service)?.key ?? scope.key(from, service))?.name;
    return key === null || alias === undefined ? null : { key, alias };
  }

  #said(
    what: string,
    service: ServiceId,
    { key, alias }: { readonly key: ServiceKey; readonly alias: string },
    result: string,
  ): void {
    const { id, to } = this.#deps.doc().spec;
    this.#deps.audit({ what, registry: to, service, instance: `${alias} → ${serviceId(key)}`, migration: id, result });
  }
}
