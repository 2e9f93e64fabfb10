// Owns second names of services through the console API (protocol notes, section 7 of L5): made, looked at, taken away.
// Called by adapter.ts; must never take away an alias that leads to another service.
import { isRecord } from '../../src/kernel/decode.ts';
import type { ServiceKey } from '../../src/model/service.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { codeError, EXISTED, OK } from './errors.ts';
import type { Servers } from './servers.ts';

/** Ids below this have no layout: Polaris looks for them in `default`, then in `Production`. */
const FIRST_WITH_LAYOUT = 3_000_001;
const LAYOUTS: readonly string[] = ['default', 'Production', 'Development', 'Pre-release', 'Test', 'Polaris', 'default'];

/** Where an alias must stand to be found: beside its service, but a SID where its layout says. */
export function aliasNamespace(key: ServiceKey, alias: string): string {
  const sid = /^(\d{1,10}):\d{1,10}$/.exec(alias);
  if (sid === null) return key.namespace;
  const module = Number(sid[1]);
  if (Math.floor(module / 64) < FIRST_WITH_LAYOUT) return key.namespace === 'Production' ? 'Production' : 'default';
  return LAYOUTS[module % 64] ?? 'default';
}

export class Aliases {
  readonly #servers: Servers;

  constructor(servers: Servers) {
    this.#servers = servers;
  }

  /** True: made now; false: it stood already and leads to the service. */
  async make(key: ServiceKey, alias: string, signal: AbortSignal): Promise<boolean> {
    const about = `alias ${alias} of ${key.namespace}/${key.name}`;
    const namespace = aliasNamespace(key, alias);
    const body = { service: key.name, namespace: key.namespace, alias, alias_namespace: namespace, type: 'DEFAULT' };
    const { code, info } = await this.#write('/naming/v1/service/alias', body, about, signal);
    if (code === OK) return true;
    if (code === EXISTED && (await this.#leadsTo(key, namespace, alias, signal))) return false;
    throw codeError(code, info, this.#servers.server, about);
  }

  async remove(key: ServiceKey, alias: string, signal: AbortSignal): Promise<void> {
    const about = `alias ${alias} of ${key.namespace}/${key.name}`;
    const namespace = aliasNamespace(key, alias);
    if (!(await this.#leadsTo(key, namespace, alias, signal))) return;
    const { code, info } = await this.#write(
      '/naming/v1/service/aliases/delete',
      [{ alias, alias_namespace: namespace }],
      about,
      signal,
    );
    // The console answers by code, or by what the look afterwards shows where it is another one.
    if (code !== OK && (await this.#leadsTo(key, namespace, alias, signal)))
      throw codeError(code, info, this.#servers.server, about);
  }

  async #write(
    path: string,
    body: object,
    about: string,
    signal: AbortSignal,
  ): Promise<{ readonly code: number; readonly info: string }> {
    const answer = await this.#servers.console(path, 'POST', body, signal);
    if (answer === null) {
      throw new SourceError(
        'refused',
        `polaris: ${about}: only the console API can do this: add its http://host:8090 to servers`,
      );
    }
    const code = isRecord(answer) && typeof answer['code'] === 'number' ? answer['code'] : 0;
    return { code, info: isRecord(answer) && typeof answer['info'] === 'string' ? answer['info'] : '' };
  }

  /** Asked of the console, since reads show a new alias only a second later. */
  async #leadsTo(
    { namespace, name }: ServiceKey,
    aliasNamespaceName: string,
    alias: string,
    signal: AbortSignal,
  ): Promise<boolean> {
    const query = new URLSearchParams({ alias, alias_namespace: aliasNamespaceName });
    const answer = await this.#servers.console(`/naming/v1/service/aliases?${query}`, 'GET', null, signal);
    const aliases = isRecord(answer) && Array.isArray(answer['aliases']) ? answer['aliases'] : [];
    return aliases.some((one: unknown) => isRecord(one) && one['service'] === name && one['namespace'] === namespace);
  }
}
