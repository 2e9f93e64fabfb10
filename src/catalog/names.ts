// Owns the mapping between a source's native names and ours, both ways (M2): `as:` of a source and `names:` of services.
// Called by catalog and by whoever writes to or watches a source; pure. Nothing from a registry becomes a pattern here.
import type { NativeNamespaces } from '../adapter/contract.ts';
import { nameFault, type ServiceId, type ServiceKey, serviceId } from '../model/service.ts';
import { compilePattern, type Pattern } from '../settings/pattern.ts';

/** How one source's names are read. */
export interface SourceNames {
  /** `as: {namespace}`: the namespace that our names get; null keeps the native one. */
  readonly as: string | null;
  /** The namespaces that names there can have; absent: `default`, and any other as well. */
  readonly namespaces?: NativeNamespaces;
}

const ANY_NAMESPACE: NativeNamespaces = { home: 'default', others: 'any' };
const PLAIN_SOURCE: SourceNames = { as: null };

/**
 * The `names:` of one `services:` entry. `{name}` and `{namespace}` stand for the parts of our name; a template with a slash says
 * `namespace/name` in the source's own words, one without says the name alone.
 */
export interface NameRules {
  /** Place among the `services:` entries of the config, where it came from there. */
  readonly entry?: number;
  /** Our names: `game/*`, `game/lobby`; `*` stands for any text. */
  readonly match: string;
  /** Template by source. */
  readonly names: ReadonlyMap<string, string>;
}

/** Why a native name has no name of ours: it breaks the rules for names, or a template calls another native name so. */
export type Unmapped = { readonly why: 'rules' } | { readonly why: 'taken'; readonly wanted: ServiceId; readonly by: NameRules };

export interface NameConfig {
  readonly sources: ReadonlyMap<string, SourceNames>;
  /** In config order: for each source, the first that names it and matches decides. */
  readonly rules: readonly NameRules[];
}

type Part = 'name' | 'namespace';

/** Literal text and holes in turn: `game-{name}` is ['game-', hole name, '']. */
interface Shape {
  readonly literals: readonly string[];
  readonly holes: readonly Part[];
}

interface Template {
  readonly rule: NameRules;
  readonly matches: Pattern;
  /** Null: the template says the name alone. */
  readonly namespace: Shape | null;
  readonly name: Shape;
  /** Parts of our name that `match` spells out, for templates without the hole. */
  readonly fixed: { readonly namespace: string | null; readonly name: string | null };
}

/** Both directions of the mapping; built once per config. */
export class Names {
  readonly #sources: ReadonlyMap<string, SourceNames>;
  /** Templates by source, in config order. */
  readonly #templates = new Map<string, Template[]>();

  constructor(config: NameConfig) {
    this.#sources = config.sources;
    for (const rule of config.rules) {
      for (const [source, text] of rule.names) {
        const list = this.#templates.get(source) ?? [];
        list.push(compile(rule, text));
        this.#templates.set(source, list);
      }
    }
  }

  /**
   * Our name of a native one. Null when it has none: the names break the rules, or a template calls another native name by our
   * default name for this one. A name taken by a template leaves its default.
   */
  toOurs(sourceId: string, native: ServiceKey): ServiceId | null {
    const read = this.readingOf(sourceId, native);
    return typeof read === 'string' ? read : null;
  }

  /** As `toOurs`, with the reason where there is none. */
  readingOf(sourceId: string, native: ServiceKey): ServiceId | Unmapped {
    const templates = this.#templates.get(sourceId);
    const namespace = this.#of(sourceId).as ?? native.namespace;
    if (templates !== undefined) {
      for (const template of templates) {
        for (const found of readings(template, native)) {
          const ours = ourName(template, found, namespace);
          // The first template that matches our name is the one that counts for it.
          if (ours !== null && templates.find((one) => one.matches(ours)) === template && this.#says(sourceId, ours, native)) {
            return ours;
          }
        }
      }
    }
    const ours = goodId({ namespace, name: native.name });
    if (ours === null) return { why: 'rules' };
    const by = templates?.find((one) => one.matches(ours))?.rule;
    return by === undefined ? ours : { why: 'taken', wanted: ours, by };
  }

  /** The native name of ours in a source, for reading; null when the source cannot have a service of that name. */
  toNative(sourceId: string, id: ServiceId): ServiceKey | null {
    const slash = id.indexOf('/');
    if (slash < 0) return null;
    const ours = { namespace: id.slice(0, slash), name: id.slice(slash + 1) };
    const { as } = this.#of(sourceId);
    const { home, others } = this.#namespacesOf(sourceId);
    const template = this.#templateOf(sourceId, id);
    if (template !== undefined) {
      const namespace = template.namespace === null ? home : fill(template.namespace, ours);
      if (namespace === null || (others === 'none' && namespace !== home)) return null;
      return { namespace, name: fill(template.name, ours) };
    }
    if (as !== null && ours.namespace !== as) return null;
    const namespace = as === null ? ours.namespace : home;
    if (namespace === null || (others === 'none' && namespace !== home)) return null;
    const native = { namespace, name: ours.name };
    return this.toOurs(sourceId, native) === id ? native : null;
  }

  /**
   * The native name under which ours is written; null when nobody said one. Stricter than reading (M2: for writes there is no default):
   * a namespace that is not the source's own is written only where a template under `names:` leads there.
   */
  toWrite(sourceId: string, id: ServiceId): ServiceKey | null {
    const native = this.toNative(sourceId, id);
    if (native === null || this.#templateOf(sourceId, id) !== undefined) return native;
    const { home, others } = this.#namespacesOf(sourceId);
    return others === 'stated' && native.namespace !== home ? null : native;
  }

  /** A template without a namespace speaks of the source's own one: the same name in another namespace is another service. */
  #says(sourceId: string, ours: ServiceId, native: ServiceKey): boolean {
    const written = this.toNative(sourceId, ours);
    return written !== null && written.namespace === native.namespace && written.name === native.name;
  }

  #templateOf(sourceId: string, id: ServiceId): Template | undefined {
    return this.#templates.get(sourceId)?.find((one) => one.matches(id));
  }

  #of(sourceId: string): SourceNames {
    return this.#sources.get(sourceId) ?? PLAIN_SOURCE;
  }

  #namespacesOf(sourceId: string): NativeNamespaces {
    return this.#of(sourceId).namespaces ?? ANY_NAMESPACE;
  }
}

function compile(rule: NameRules, text: string): Template {
  const { match } = rule;
  const slash = text.indexOf('/');
  const ourSlash = match.indexOf('/');
  const spelled = (text: string): string | null => (text.includes('*') ? null : text);
  return {
    rule,
    matches: compilePattern(match),
    namespace: slash < 0 ? null : shapeOf(text.slice(0, slash)),
    name: shapeOf(text.slice(slash + 1)),
    fixed: {
      namespace: ourSlash < 0 ? null : spelled(match.slice(0, ourSlash)),
      name: ourSlash < 0 ? null : spelled(match.slice(ourSlash + 1)),
    },
  };
}

function shapeOf(text: string): Shape {
  const literals: string[] = [];
  const holes: Part[] = [];
  let rest = text;
  for (;;) {
    const hole = (['{name}', '{namespace}'] as const)
      .map((word) => ({ word, at: rest.indexOf(word) }))
      .filter(({ at }) => at >= 0)
      .sort((a, b) => a.at - b.at)[0];
    if (hole === undefined) return { literals: [...literals, rest], holes };
    literals.push(rest.slice(0, hole.at));
    holes.push(hole.word === '{name}' ? 'name' : 'namespace');
    rest = rest.slice(hole.at + hole.word.length);
  }
}

function fill(shape: Shape, ours: ServiceKey): string {
  return shape.literals.map((literal, i) => (i === 0 ? literal : ours[shape.holes[i - 1] ?? 'name'] + literal)).join('');
}

type Found = Partial<Record<Part, string>>;

/** Every way in which the template can have made the native name. */
function* readings(template: Template, native: ServiceKey): Generator<Found, void, void> {
  const spaces = template.namespace === null ? [{}] : fits(template.namespace, 0, native.namespace, {});
  for (const found of spaces) yield* fits(template.name, 0, native.name, found);
}

/** Ways to cut `text` by the shape from its `at`-th literal on, shorter holes first. */
function* fits(shape: Shape, at: number, text: string, found: Found): Generator<Found, void, void> {
  const literal = shape.literals[at] ?? '';
  if (!text.startsWith(literal)) return;
  const rest = text.slice(literal.length);
  const hole = shape.holes[at];
  if (hole === undefined) {
    if (rest === '') yield found;
    return;
  }
  const isLast = at === shape.holes.length - 1;
  const next = shape.literals[at + 1] ?? '';
  for (let end = isLast ? rest.length - next.length : 1; end <= rest.length && end > 0; end++) {
    const value = rest.slice(0, end);
    if (!rest.startsWith(next, end) || (found[hole] ?? value) !== value) continue;
    yield* fits(shape, at + 1, rest.slice(end), { ...found, [hole]: value });
  }
}

function ourName(template: Template, found: Found, defaultNamespace: string): ServiceId | null {
  const name = found.name ?? template.fixed.name;
  if (name === null) return null;
  const ours = goodId({ namespace: found.namespace ?? template.fixed.namespace ?? defaultNamespace, name });
  return ours !== null && template.matches(ours) ? ours : null;
}

function goodId(key: ServiceKey): ServiceId | null {
  const good = nameFault(key.namespace) === null && nameFault(key.name) === null && !key.namespace.includes('/');
  return good ? serviceId(key) : null;
}
