// Owns the immutable chooser of a cluster: candidates, half-open slots, and the draw by group (catalog-rules M3 weighted) and policy.
// Built lazily by cluster.ts after a change, replaced by one assignment. Must never ask about health: membership is already decided.
import { AliasTable } from '../balance/alias-table.ts';
import { buildPicker } from '../balance/build.ts';
import type { Picker } from '../balance/picker.ts';
import { type Random, randomBelow } from '../kernel/random.ts';
import type { LoadBalancerPolicy } from '../model/policy.ts';
import { availability, isWell, type Shares } from './availability.ts';
import { type Endpoint, isTried } from './endpoint.ts';
import type { PickedEndpoint } from './pick-interface.ts';

/** proxy-semantics §5.4. */
export const MAX_RE_PICKS = 5;

/** A picker with the array that its answers index. */
interface Draw {
  readonly members: readonly Endpoint[];
  readonly picker: Picker;
}

interface Groups {
  readonly ids: readonly string[];
  readonly table: AliasTable;
  readonly draws: readonly Draw[];
  readonly shares: readonly number[];
}

/** Who can be picked between two changes of a cluster. */
export class PickSet {
  readonly panic: boolean;
  /** Whether a pick that finds nobody does so for breakers. */
  readonly breakerBlocks: boolean;
  readonly #all: Draw;
  readonly #groups: Groups | null;
  /** Free slots; a slot that is freed again comes back with the next set. */
  readonly #slots: Endpoint[];

  constructor(endpoints: Iterable<Endpoint>, shares: Shares, policy: LoadBalancerPolicy, panicThreshold: number) {
    const { panic, candidates, slots, breakerBlocks } = availability(endpoints, shares, panicThreshold);
    this.panic = panic;
    this.breakerBlocks = breakerBlocks;
    this.#slots = [...slots];
    this.#all = { members: candidates, picker: buildPicker(policy, candidates) };
    this.#groups = shares === null ? null : groupsOf(candidates, shares, policy);
  }

  get hasCandidates(): boolean {
    return this.#all.members.length > 0;
  }

  get hasSlot(): boolean {
    return this.#slots.length > 0;
  }

  /** Takes a free half-open slot; null when there is none. */
  takeSlot(): Endpoint | null {
    const endpoint = this.#slots.pop();
    return endpoint?.breaker?.takeSlot() === true ? endpoint : null;
  }

  /** The group of the last `draw`; null: it was none. */
  drawn: string | null = null;

  /** First attempt: the group by its share (or by `place` in [0, 1), -1 for chance), then the policy inside. */
  draw(random: Random, place = -1): Endpoint | null {
    const groups = this.#groups;
    if (groups === null) return drawFrom(this.#all, random);
    const at = place < 0 ? groups.table.pick(random) : groupAt(groups.shares, place);
    const group = groups.draws[at];
    this.drawn = groups.ids[at] ?? null;
    return group === undefined ? drawFrom(this.#all, random) : drawFrom(group, random);
  }

  /**
   * A retry: draws from all groups, up to five re-picks while the answer was tried. A policy can insist (of two hosts, least request always
   * takes the idle one, which a dead host is), so then the neighbours of a random place are asked: at most one more than were tried.
   * The last pick, tried or not, when all were.
   */
  drawAgain(random: Random, tried: readonly PickedEndpoint[]): Endpoint | null {
    this.drawn = null;
    let endpoint = drawFrom(this.#all, random);
    for (let i = 0; i < MAX_RE_PICKS && endpoint !== null && isTried(tried, endpoint); i++)
      endpoint = drawFrom(this.#all, random);
    if (endpoint === null || !isTried(tried, endpoint)) return endpoint;
    return this.#untriedNeighbour(random, tried) ?? endpoint;
  }

  /** Share of first picks by weight, in [0, 1]. */
  shareOf(endpoint: Endpoint): number {
    const groups = this.#groups;
    if (groups === null || groups.table.size === 0) return weightShare(this.#all.members, endpoint);
    const total = groups.shares.reduce((sum, share) => sum + share, 0);
    return groups.draws.reduce(
      (sum, draw, i) => sum + ((groups.shares[i] ?? 0) / total) * weightShare(draw.members, endpoint),
      0,
    );
  }

  #untriedNeighbour(random: Random, tried: readonly PickedEndpoint[]): Endpoint | null {
    const { members } = this.#all;
    const start = randomBelow(random, members.length);
    const steps = Math.min(tried.length + 1, members.length);
    for (let i = 0; i < steps; i++) {
      const endpoint = members[(start + i) % members.length];
      if (endpoint !== undefined && !isTried(tried, endpoint)) return endpoint;
    }
    return null;
  }
}

function drawFrom(draw: Draw, random: Random): Endpoint | null {
  return draw.members[draw.picker.pick(random)] ?? null;
}

/**
 * A group without an available endpoint gives its share to the others. In panic a group may consist of unavailable ones only; it takes
 * part only when no group has an available one.
 */
function groupsOf(candidates: readonly Endpoint[], shares: ReadonlyMap<string, number>, policy: LoadBalancerPolicy): Groups {
  const byGroup = new Map<string, Endpoint[]>();
  for (const endpoint of candidates) {
    // A Set: a group named twice does not double the endpoint.
    for (const group of new Set(endpoint.update.groups ?? [])) {
      if (!shares.has(group)) continue;
      const members = byGroup.get(group);
      if (members === undefined) byGroup.set(group, [endpoint]);
      else members.push(endpoint);
    }
  }
  const isLive = (members: readonly Endpoint[]): boolean => members.some((endpoint) => isWell(endpoint, shares));
  // In the order of the shares: a place stays with its group while the border between them moves.
  const all = [...shares.keys()].flatMap((id): [string, Endpoint[]][] => {
    const members = byGroup.get(id);
    return members === undefined ? [] : [[id, members]];
  });
  const live = all.filter(([, members]) => isLive(members));
  const used = live.length > 0 ? live : all;
  const usedShares = used.map(([group]) => shares.get(group) ?? 0);
  return {
    ids: used.map(([group]) => group),
    table: new AliasTable(usedShares),
    draws: used.map(([, members]) => ({ members, picker: buildPicker(policy, members) })),
    shares: usedShares,
  };
}

/** The group whose stretch of [0, 1) holds the place; stretches stand in order and are as long as the shares. */
function groupAt(shares: readonly number[], place: number): number {
  let left = place * shares.reduce((sum, share) => sum + share, 0);
  for (const [n, share] of shares.entries()) {
    if (left < share) return n;
    left -= share;
  }
  return shares.length - 1;
}

function weightShare(members: readonly Endpoint[], endpoint: Endpoint): number {
  if (!members.includes(endpoint)) return 0;
  return endpoint.weight / members.reduce((sum, member) => sum + member.weight, 0);
}
