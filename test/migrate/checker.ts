// The promises of a migration, held against the history of a run: what stood in both registries by their own word (never through our
// adapters), what every sidecar's catalog showed, what the audit log says, and what the script did. Pure; each claim throws an
// AssertionError that names its first violations. It shares no code with src/migrate: markers, copies and expectations are spelled here.
import assert from 'node:assert/strict';

/** A provider's process: alive from `since` on, whatever registries say of it. Times monotonic ms of the run. */
export interface Life {
  readonly service: string;
  readonly address: string;
  readonly since: number;
  until: number | null;
}

/** What one sidecar's catalog showed of one service. */
export interface ViewRead {
  readonly at: number;
  readonly sidecar: string;
  readonly service: string;
  /** When this life of the sidecar began. */
  readonly startedAt: number;
  readonly phase: string | null;
  readonly weight: number;
  readonly merge: string;
  readonly instances: readonly {
    readonly address: string;
    readonly weight: number;
    readonly health: string;
    readonly isolated: boolean;
    readonly held: boolean;
    readonly groups: readonly string[] | null;
  }[];
  readonly shares: readonly { readonly source: string; readonly share: number }[] | null;
  readonly sticky: string | null;
}

/** One record of a registry, by its own protocol. `writer`: the registry's own knowledge where it has one, else by the script. */
export interface Standing {
  readonly registry: string;
  readonly service: string;
  readonly address: string;
  readonly key: string;
  readonly writer: 'provider' | 'sidecar' | 'tool';
  readonly weight: number;
  readonly health: string;
  readonly isolated: boolean;
  readonly metadata: ReadonlyMap<string, string>;
}

export interface Changed {
  readonly at: number;
  readonly registry: string;
  readonly service: string;
  readonly address: string;
  readonly by: string;
  readonly before: Pick<Standing, 'writer' | 'metadata'> | null;
  readonly after: Pick<Standing, 'writer' | 'metadata'> | null;
}

export interface CarriedOut {
  readonly at: number;
  readonly registry: string;
  readonly service: string;
  readonly address: string;
  readonly by: string;
  readonly what: 'put' | 'health' | 'remove';
  readonly told: boolean;
}

export interface AuditSeen {
  readonly at: number;
  readonly by: string;
  readonly what: string;
  readonly registry?: string;
  readonly service?: string;
  readonly instance?: string;
  readonly migration?: string;
  readonly result: string;
}

/** What a registry can say of a record. */
export interface Speaks {
  readonly weight: boolean;
  readonly health: boolean;
  readonly isolated: boolean;
  readonly metadata: boolean;
}

const ORIGIN = 'weir-origin';
const KEPT = 'weir-kept';

/**
 * No instance lost: what a life of a sidecar has shown it shows until its provider dies. `excused`: why the script says that it cannot
 * know (it began while a registry was away), by view and address.
 */
export function noneLost(
  views: readonly ViewRead[],
  lives: readonly Life[],
  excused: (view: ViewRead, address: string) => boolean = () => false,
): void {
  const shown = new Map<string, Set<string>>();
  const lost: string[] = [];
  for (const view of views) {
    const place = `${view.sidecar} ${view.service}`;
    const known = shown.get(place) ?? new Set<string>();
    shown.set(place, known);
    const now = new Set(view.instances.map(({ address }) => address));
    for (const address of known) {
      const alive = lives.some((one) => one.service === view.service && one.address === address && lives_(one, view.at));
      if (!alive) known.delete(address);
      else if (!now.has(address) && !excused(view, address))
        lost.push(`${address} of ${view.service} left the view of ${view.sidecar} at ${view.at} (${view.phase} ${view.weight})`);
    }
    for (const address of now) known.add(address);
  }
  assert.deepEqual(lost.slice(0, 5), [], `${lost.length} times an instance that lives was missing`);
}

function lives_({ since, until }: Life, at: number): boolean {
  return since <= at && (until === null || until > at);
}

/** A quiet moment: the views are exactly what lives. */
export function viewsAre(views: readonly ViewRead[], lives: readonly Life[], at: number): void {
  for (const view of views) {
    const seen = view.instances.map(({ address }) => address).sort();
    const alive = lives.filter((one) => one.service === view.service && lives_(one, at)).map(({ address }) => address);
    assert.deepEqual(seen, [...new Set(alive)].sort(), `${view.sidecar} shows of ${view.service} in ${view.phase}`);
  }
}

/** No instance invented: every member of a view lives, or died at most `grace` ms of audible time ago. */
export function noneInvented(
  views: readonly ViewRead[],
  lives: readonly Life[],
  grace: number,
  audibleSince: (at: number) => number,
): void {
  const invented: string[] = [];
  for (const { service, instances, at, sidecar, phase, startedAt } of views) {
    for (const { address } of instances) {
      const mine = lives.filter((one) => one.service === service && one.address === address && one.since <= at);
      const end = Math.max(...mine.map(({ until }) => until ?? Number.POSITIVE_INFINITY));
      if (mine.length > 0 && at - Math.max(end, audibleSince(at), startedAt) <= grace) continue;
      invented.push(`${address} of ${service} in the view of ${sidecar} at ${at} (${phase}), dead since ${end}`);
    }
  }
  assert.deepEqual(invented.slice(0, 5), [], `${invented.length} times a view had an instance that nobody provides`);
}

/** Nothing native is ever touched, nor the copies of other tools and other migrations. */
export function nativesUntouched(changes: readonly Changed[], migrations: ReadonlySet<string>): void {
  const bad = changes.filter(({ by, before }) => {
    if (!isSidecar(by) || before === null) return false;
    const migration = before.metadata.get('weir-migration');
    return before.writer !== 'sidecar' || (migration !== undefined && !migrations.has(migration));
  });
  assert.deepEqual(bad.slice(0, 3).map(text), [], `${bad.length} writes of ours changed a record that is not ours`);
}

/** Nothing that a sidecar wrote is written while its origin is unknown: each new copy has a provider in the other registry. */
export function copiesHaveOrigins(
  changes: readonly Changed[],
  lives: readonly Life[],
  grace: number,
  audibleSince: (at: number) => number,
): void {
  const bad = changes.filter(({ by, before, after, service, address, at }) => {
    if (!isSidecar(by) || after === null || before !== null) return false;
    return !lives.some(
      (one) =>
        one.service === service &&
        one.address === address &&
        one.since <= at &&
        Math.max(one.until ?? at, audibleSince(at)) >= at - grace,
    );
  });
  assert.deepEqual(bad.slice(0, 3).map(text), [], `${bad.length} copies were made of instances that nobody provides`);
}

/** After an abort, or a collect: nothing of ours stands anywhere. */
export function nothingLeft(records: readonly Standing[]): void {
  const left = records.filter(({ writer }) => writer === 'sidecar');
  assert.deepEqual(left.map(place), [], 'left behind');
}

/** After a finish: no return copy in `from`; what is ours in `to` is an ordinary record now. */
export function finishedWell(records: readonly Standing[], from: string, to: Speaks): void {
  const ours = records.filter(({ writer }) => writer === 'sidecar');
  assert.deepEqual(ours.filter(({ registry }) => registry === from).map(place), [], 'return copies left after finish');
  if (!to.metadata) return;
  const marked = ours.filter(({ metadata }) => metadata.has(ORIGIN) || !metadata.has(KEPT));
  assert.deepEqual(marked.map(place), [], 'kept copies that are still marked as copies');
}

export interface MirrorClaim {
  readonly from: string;
  readonly to: string;
  readonly speaks: Readonly<Record<string, Speaks>>;
  readonly twoWay: boolean;
  readonly baseline: ReadonlySet<string>;
  /** Metadata of mapping.metadata on the way from → to. */
  readonly drop?: ReadonlySet<string>;
  readonly registers: Readonly<Record<string, boolean>>;
}

/** A quiet moment of a mirror: each native has its copy, with its fields, and no copy is there without one. */
export function mirrored(records: readonly Standing[], claim: MirrorClaim): void {
  const { from, to, twoWay, baseline, registers } = claim;
  const faults: string[] = [];
  const natives = (registry: string): Standing[] =>
    records.filter((one) => one.registry === registry && one.writer === 'provider');
  const copies = (registry: string): Standing[] => records.filter((one) => one.registry === registry && one.writer === 'sidecar');
  const at = (list: readonly Standing[], { service, address }: Standing) =>
    list.filter((one) => one.service === service && one.address === address);
  for (const [origin, target] of [
    [from, to],
    [to, from],
  ] as const) {
    if (registers[target] !== true) continue;
    const all = target === to || twoWay;
    for (const native of natives(origin)) {
      const mine = at(copies(target), native);
      if (at(natives(target), native).length > 0) {
        // Without metadata two records of one address look alike: which one a catalog shows is chance.
        if (mine.length > 0 && claim.speaks[target]?.metadata === true)
          faults.push(`${place(native)} is native in ${target} too, and has a copy there`);
        continue;
      }
      const want = expected(native, claim.speaks[target]);
      const due = (all || !baseline.has(`${native.service} ${native.address}`)) && want !== null && !isTools(native);
      if (mine.length !== (due ? 1 : 0))
        faults.push(`${place(native)} has ${mine.length} copies in ${target}, not ${due ? 1 : 0}`);
      if (due) for (const copy of mine) faults.push(...differences(native, copy, want, claim, target === to));
    }
    for (const copy of copies(target)) if (at(natives(origin), copy).length === 0) faults.push(`${place(copy)} has no origin`);
  }
  assert.deepEqual(faults.slice(0, 5), [], `${faults.length} faults of the mirror`);
}

interface Expected {
  readonly weight: number;
  readonly health: string;
  readonly isolated: boolean;
}

/** migration.md rule 3: what a registry of few words can say of a record; null: none is better than a wrong one. */
function expected({ weight, health, isolated }: Standing, speaks: Speaks | undefined): Expected | null {
  if (speaks === undefined) return null;
  const mute = (isolated && !speaks.isolated) || (health === 'unhealthy' && !speaks.health);
  if (!mute) return { weight, health, isolated };
  if (speaks.weight) return { weight: 0, health: speaks.health ? health : 'healthy', isolated: isolated && speaks.isolated };
  if (speaks.health) return { weight, health: 'unhealthy', isolated: isolated && speaks.isolated };
  return null;
}

function differences(native: Standing, copy: Standing, want: Expected, claim: MirrorClaim, forth: boolean): string[] {
  const speaks = claim.speaks[copy.registry];
  const faults: string[] = [];
  const differ = (field: string, is: unknown, should: unknown): void => {
    if (is !== should) faults.push(`${place(copy)}: ${field} is ${is}, its origin says ${should}`);
  };
  if (speaks?.weight) differ('weight', copy.weight, want.weight);
  if (speaks?.health && want.health !== 'unknown') differ('health', copy.health, want.health);
  if (speaks?.isolated) differ('isolated', copy.isolated, want.isolated);
  if (!speaks?.metadata) return faults;
  differ('origin', copy.metadata.get(ORIGIN), native.registry);
  if (claim.speaks[native.registry]?.metadata !== true) return faults;
  for (const [key, value] of native.metadata) {
    if (!key.startsWith('weir-') && !(forth && claim.drop?.has(key))) differ(`metadata ${key}`, copy.metadata.get(key), value);
  }
  return faults;
}

/** Nobody writes once he is dead: at most what was in flight. */
export function deadWriteNothing(changes: readonly Changed[], deaths: ReadonlyMap<string, number>, within: number): void {
  const late = changes.filter(({ by, at }) => at > (deaths.get(by) ?? Number.POSITIVE_INFINITY) + within);
  assert.deepEqual(late.slice(0, 3).map(text), [], `${late.length} writes of sidecars that are dead`);
}

/** Every write is a line of the audit log; a line that says ok is a write. A killed sidecar may owe the line of what it was doing. */
export function everyWriteAudited(
  carried: readonly CarriedOut[],
  audit: readonly AuditSeen[],
  deaths: ReadonlyMap<string, number>,
): void {
  const count = <T>(list: readonly T[], keyOf: (one: T) => string | null): Map<string, number> => {
    const counts = new Map<string, number>();
    for (const one of list) {
      const key = keyOf(one);
      if (key !== null) counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    return counts;
  };
  const keyOf = (by: string, registry: string, service: string, address: string, what: string): string =>
    `${by} ${registry} ${service} ${address} ${what}`;
  const writes = count(carried, (one) => keyOf(one.by, one.registry, one.service, one.address, one.what));
  const lines = count(audit, (one) => {
    const what = one.what.split(' ')[0] ?? '';
    if (!['put', 'health', 'remove'].includes(what)) return null;
    return keyOf(one.by, one.registry ?? '', one.service ?? '', one.instance ?? '', what);
  });
  const sure = count(audit, (one) => {
    if (one.result !== 'ok' || !/^(put|health)\b/.test(one.what)) return null;
    return keyOf(one.by, one.registry ?? '', one.service ?? '', one.instance ?? '', one.what.split(' ')[0] ?? '');
  });
  const faults: string[] = [];
  for (const [key, n] of writes) {
    const owed = deaths.has(key.split(' ')[0] ?? '') ? 1 : 0;
    if ((lines.get(key) ?? 0) + owed < n) faults.push(`${key}: ${n} writes, ${lines.get(key) ?? 0} lines`);
  }
  for (const [key, n] of sure)
    if ((writes.get(key) ?? 0) < n) faults.push(`${key}: ${n} lines say ok, ${writes.get(key) ?? 0} writes`);
  assert.deepEqual(faults.slice(0, 5), [], `${faults.length} faults of the audit log`);
}

/** The members of a view are the same before and after a step, whatever the phase (finish apart). */
export function sameMembers(before: readonly ViewRead[], after: readonly ViewRead[], step: string): void {
  const members = (views: readonly ViewRead[]): string[] =>
    views.map(({ sidecar, service, instances }) => `${sidecar} ${service}: ${instances.map(({ address }) => address).sort()}`);
  assert.deepEqual(members(after), members(before), `members changed by ${step}`);
}

/** No record of ours is put again and again: a quiet mirror writes nothing. */
export function quiet(carried: readonly CarriedOut[], since: number): void {
  const late = carried.filter(({ at }) => at >= since);
  assert.deepEqual(late.slice(0, 5), [], `${late.length} writes of a mirror that has nothing to do`);
}

function isTools({ metadata }: Standing): boolean {
  return metadata.has('__sync__') || metadata.has('internal-eureka-replicate') || metadata.has('sourceClusterId');
}

/** Lives of sidecars are called `name#n`. */
function isSidecar(by: string): boolean {
  return by.includes('#');
}

function place({ registry, service, address, key }: Standing): string {
  return `${registry} ${service} ${address} (${key})`;
}

function text({ at, registry, service, address, by, before, after }: Changed): string {
  return `${by} at ${at}: ${registry} ${service} ${address}: ${before?.writer ?? 'nothing'} -> ${after?.writer ?? 'nothing'}`;
}
