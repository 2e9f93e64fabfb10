// Owns which services a migration is about, and their names in its two sources (W8: an unmapped name is an error, never a default).
// Called by plan, mirror, overlay and verify; pure beside the catalog's names.
import type { ServiceId, ServiceKey } from '../model/service.ts';
import { nameFault, serviceId } from '../model/service.ts';
import { compilePattern, type Pattern } from '../settings/pattern.ts';
import type { MigrationSpec } from './migration.ts';
import type { MigrationCatalog } from './ports.ts';

/** Why a service has no name in the target, in words for people. */
export interface Unnamed {
  readonly reason: string;
}

export class Scope {
  readonly #spec: MigrationSpec;
  readonly #catalog: MigrationCatalog;
  readonly #patterns: readonly Pattern[];

  constructor(spec: MigrationSpec, catalog: MigrationCatalog) {
    this.#spec = spec;
    this.#catalog = catalog;
    this.#patterns = spec.services.map(compilePattern);
  }

  has(service: ServiceId): boolean {
    return this.#patterns.some((matches) => matches(service));
  }

  /** Services in scope that either side knows, in code-unit order. Costs by the number of services of both sources. */
  services(): readonly ServiceId[] {
    const found = new Set<ServiceId>();
    for (const source of [this.#spec.from, this.#spec.to]) {
      for (const service of this.#catalog.servicesOf(source)) if (this.has(service)) found.add(service);
    }
    return [...found].sort();
  }

  /** The service in the words of one of the two sources. */
  keyIn(source: string, service: ServiceId): ServiceKey | Unnamed {
    const native = source === this.#spec.to ? this.#inTarget(service) : this.#catalog.toNative(source, service);
    if (native === null) return { reason: `${service} has no name in ${source}: say one under \`names:\` of its services entry` };
    if ('reason' in native) return native;
    const back = this.#catalog.toOurs(source, native);
    if (back === service) return native;
    const said = serviceId(native);
    return {
      reason:
        `${service} would be ${said} in ${source}, which is ${back === null ? 'no service' : `the service ${back}`} here: ` +
        `add \`names: {${source}: "${said}"}\` to the services entry of ${service}`,
    };
  }

  /** As {@link keyIn}, null where there is no name. */
  key(source: string, service: ServiceId): ServiceKey | null {
    const native = this.keyIn(source, service);
    return 'reason' in native ? null : native;
  }

  #inTarget(service: ServiceId): ServiceKey | Unnamed | null {
    const { namespace, name } = this.#spec.mapping;
    const native = this.#catalog.toNative(this.#spec.to, service);
    if (namespace === null && name === null) return native;
    const slash = service.indexOf('/');
    const parts = { namespace: service.slice(0, slash), name: service.slice(slash + 1) };
    const fill = (template: string): string =>
      template.replace(/\{(namespace|name)\}/g, (_, part: string) => (part === 'name' ? parts.name : parts.namespace));
    const key = {
      namespace: namespace === null ? (native?.namespace ?? parts.namespace) : fill(namespace),
      name: name === null ? (native?.name ?? parts.name) : fill(name),
    };
    const fault = nameFault(key.namespace) ?? nameFault(key.name);
    return fault === null ? key : { reason: `${service}: the mapping gives a name that ${fault}` };
  }
}

/** Services of both specs that could be the same one: a pair of patterns that meet. Null: they cannot overlap. */
export function overlap(a: MigrationSpec, b: MigrationSpec): { readonly a: string; readonly b: string } | null {
  for (const one of a.services) for (const other of b.services) if (meet(one, other)) return { a: one, b: other };
  return null;
}

/** True when some text matches both patterns. */
export function meet(a: string, b: string): boolean {
  // Each state is a pair of places; `*` may take a character or give way. Patterns are at most 512 characters.
  const width = b.length + 1;
  const seen = new Uint8Array((a.length + 1) * width);
  const queue: number[] = [0];
  for (let at = queue.pop(); at !== undefined; at = queue.pop()) {
    if (seen[at] === 1) continue;
    seen[at] = 1;
    const i = Math.floor(at / width);
    const j = at % width;
    if (i === a.length && j === b.length) return true;
    const x = a[i];
    const y = b[j];
    if (x === '*') queue.push((i + 1) * width + j);
    if (y === '*') queue.push(i * width + j + 1);
    if (x === undefined || y === undefined) continue;
    if (x === '*' && y !== '*') queue.push(i * width + j + 1);
    else if (y === '*' && x !== '*') queue.push((i + 1) * width + j);
    else if (x === y) queue.push((i + 1) * width + j + 1);
  }
  return false;
}
