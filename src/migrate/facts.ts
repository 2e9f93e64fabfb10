// Owns the facts by which a step is judged: what stands only on one side, and which copies still stand in for a provider.
// Called by migrations.ts; reads accounts of the catalog and the ledger, never a registry. Must never guess: a side that is away is said.
import { isForeignCopy, readMarker } from '../catalog/copies.ts';
import type { SourceAccount } from '../catalog/view.ts';
import { hostPort } from '../kernel/address.ts';
import type { Instance } from '../model/instance.ts';
import type { ServiceId } from '../model/service.ts';
import type { Ledger } from './ledger.ts';
import type { MigrationDoc } from './migration.ts';
import type { StepFacts } from './phases.ts';
import type { MigrationCatalog } from './ports.ts';
import type { Scope } from './scope.ts';

/** So many are named; the rest is counted. */
const MAX_NAMED = 100;

export interface FactsInput {
  readonly doc: MigrationDoc;
  readonly now: number;
  readonly behind: readonly string[];
  readonly planErrors: readonly string[];
  /** Null: the step does not ask for what stands where. */
  readonly ledger: Ledger | null;
  readonly catalog: MigrationCatalog;
  readonly scope: Scope;
}

/** Costs by the number of services of the migration where a ledger is given. */
export function stepFacts(input: FactsInput): StepFacts {
  const { now, behind, planErrors, ledger } = input;
  const base = { now, behind, planErrors };
  if (ledger === null) return { ...base, copiesLeft: [], onlyInTo: [], onlyInFrom: [], blind: null };
  return { ...base, ...whereabouts(input, ledger) };
}

type Whereabouts = Pick<StepFacts, 'copiesLeft' | 'onlyInTo' | 'onlyInFrom' | 'blind'>;

function whereabouts({ doc, catalog, scope }: FactsInput, ledger: Ledger): Whereabouts {
  const { from, to } = doc.spec;
  const copiesLeft: string[] = [];
  const onlyInTo: string[] = [];
  const onlyInFrom: string[] = [];
  for (const service of scope.services()) {
    const here = catalog.account(from, service);
    const there = catalog.account(to, service);
    const away = [here, there].findIndex((account) => account?.live !== true);
    if (away >= 0) {
      const blind = `${away === 0 ? from : to} has no current word on ${service}: it cannot be seen what stands where`;
      return { copiesLeft: [], onlyInTo: [], onlyInFrom: [], blind };
    }
    const { id } = doc.spec;
    const sides = { from: sideOf(here, ledger, service, from, id), to: sideOf(there, ledger, service, to, id) };
    for (const address of sides.to.copies) copiesLeft.push(`${service} ${address}`);
    // A return copy does not count: the abort takes it away.
    for (const address of sides.to.natives) if (!sides.from.standing.has(address)) onlyInTo.push(`${service} ${address}`);
    const withheld = withheldIn(ledger, to, service);
    for (const address of sides.from.natives) {
      if (sides.to.all.has(address)) continue;
      const why = withheld.has(address) ? ` (its copy is withheld: ${to} has no word for what ${from} says of it)` : '';
      onlyInFrom.push(`${service} ${address}${why}`);
    }
  }
  return { copiesLeft: named(copiesLeft), onlyInTo: named(onlyInTo), onlyInFrom: named(onlyInFrom), blind: null };
}

function withheldIn(ledger: Ledger, target: string, service: ServiceId): ReadonlySet<string> {
  const withheld = ledger.entriesIn(target, service).filter(({ state }) => state === 'withheld');
  return new Set(withheld.map(({ host, port }) => hostPort(host, port)));
}

interface Side {
  readonly natives: readonly string[];
  readonly copies: readonly string[];
  /** Without what only the catalog holds: nobody may count on that. */
  readonly all: ReadonlySet<string>;
  /** The natives among them. */
  readonly standing: ReadonlySet<string>;
}

function sideOf(account: SourceAccount | null, ledger: Ledger, service: ServiceId, source: string, migration: string): Side {
  const natives: string[] = [];
  const copies: string[] = [];
  const all = new Set<string>();
  const standing = new Set<string>();
  for (const { instance, held } of account?.instances ?? []) {
    // What another tool or another migration copied has its provider elsewhere.
    if (isOthersCopy(instance, migration)) continue;
    const copy = isCopy(instance, ledger, service, source);
    const address = hostPort(instance.host, instance.port);
    (copy ? copies : natives).push(address);
    if (held) continue;
    all.add(address);
    if (!copy) standing.add(address);
  }
  return { natives, copies, all, standing };
}

/** A copy that is not this migration's: nothing follows from it. */
export function isOthersCopy({ metadata }: Instance, migration: string): boolean {
  const marker = readMarker(metadata);
  return isForeignCopy(metadata) || (marker !== null && marker.migration !== migration);
}

/** A copy by its marker, or where the registry loses markers by the ledger. */
export function isCopy(instance: Instance, ledger: Ledger, service: ServiceId, source: string): boolean {
  return (
    readMarker(instance.metadata) !== null ||
    ledger.copyOrigin(service, source, instance.host, instance.port, instance.id) !== null
  );
}

function named(all: readonly string[]): readonly string[] {
  return all.length <= MAX_NAMED ? all : [...all.slice(0, MAX_NAMED), `${all.length - MAX_NAMED} more`];
}
