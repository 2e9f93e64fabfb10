// Owns the list of names of one source: which way finds them (section 7), polling or following them, what is known of it.
// Called by adapter.ts (lists) and feed.ts (lacks); must never call a list complete of which a part failed.
import { Mailbox } from '../../src/kernel/mailbox.ts';
import { compareText, type ServiceKey, serviceId } from '../../src/model/service.ts';
import { asSourceError, type ServiceList, SourceError } from '../../src/model/snapshot.ts';
import { bareNames, type NamePage } from './api.ts';
import type { ListWay } from './config.ts';
import { HttpRefusal, NacosRefusal } from './errors.ts';
import { FuzzyNames } from './fuzzy.ts';
import { DOUBT_MS, type Line, type LineUser } from './line.ts';
import { badName, keyOf, type NativeName } from './mapping.ts';
import { numberOf } from './native.ts';
import type { Session } from './session.ts';

const PAGE = 500;
const MAX_NAMES = 20_000;
/** An unordered set that changes while it is paged is read again (section 5, rule 11). */
const READS = 3;

/** The next way is to be tried: this one is not for this server, or not for us. */
class WayClosed extends Error {}

export class Names implements LineUser {
  #line: Line | null = null;
  #fuzzy: FuzzyNames | null = null;
  /** The names of the newest list and when it was whole, monotonic ms. */
  #known = new Map<string, ServiceKey>();
  #wholeAt = Number.NEGATIVE_INFINITY;
  #attachedAt = Number.POSITIVE_INFINITY;
  #told: ListWay | null = null;

  bind(line: Line): void {
    this.#line = line;
  }

  async attached(): Promise<void> {
    this.#attachedAt = this.#line?.deps.clock.now() ?? 0;
  }

  lost(error: SourceError): void {
    this.#fuzzy?.fail(error);
  }

  onFuzzy(session: Session, type: string, body: Readonly<Record<string, unknown>>): void {
    this.#fuzzy?.take(session, type, body);
  }

  /** The service stands in no complete list of the last minute, and the connection is older than that (rule 8). */
  lacks(key: ServiceKey): boolean {
    const now = this.#line?.deps.clock.now() ?? 0;
    return now - this.#wholeAt < DOUBT_MS && now - this.#attachedAt >= DOUBT_MS && !this.#known.has(serviceId(key));
  }

  /** Level-triggered; yields when the list differs. Throws SourceError; returns only on abort. */
  async *lists(line: Line, signal: AbortSignal): AsyncGenerator<ServiceList, void, void> {
    const { config } = line;
    const ways: readonly ListWay[] = config.list === 'auto' ? ['admin', 'fuzzy', 'catalog', 'groups'] : [config.list];
    let why = '';
    try {
      for (const way of ways) {
        try {
          yield* way === 'fuzzy' ? this.#followed(line, signal) : this.#polled(line, way, signal);
          return;
        } catch (thrown) {
          if (!(thrown instanceof WayClosed)) throw thrown;
          why = thrown.message;
        }
      }
    } catch (thrown) {
      if (signal.aborted) return;
      throw asSourceError(thrown);
    }
    throw new SourceError('denied', `nacos: no way to list the services of this namespace is open to us: ${why}`);
  }

  async *#polled(line: Line, way: Exclude<ListWay, 'fuzzy'>, signal: AbortSignal): AsyncGenerator<ServiceList, void, void> {
    const { clock, random } = line.deps;
    const { listInterval } = line.config;
    let before: ServiceList | null = null;
    while (!signal.aborted) {
      const { names, whole } = await this.#readAll(line, way, signal);
      if (before === null) this.#say(line, way);
      if (names.length === 0 && before === null) await this.#checkNamespace(line, signal);
      const list = this.#listOf(line, names, whole);
      if (before === null || !sameList(before, list)) yield list;
      before = list;
      // A list of many pages costs the server more.
      const wait = Math.max(listInterval, Math.ceil(names.length / PAGE) * 1_000);
      await clock.sleep(wait * (0.9 + 0.2 * random()), signal);
    }
  }

  async *#followed(line: Line, signal: AbortSignal): AsyncGenerator<ServiceList, void, void> {
    const session = await line.enter(signal);
    if (session === null || !session.abilities.has('fuzzyWatch')) throw new WayClosed('the server has no fuzzy watch');
    if (this.#fuzzy !== null) throw new WayClosed('the names are followed already');
    const box = new Mailbox<{ names: readonly NativeName[]; whole: boolean }>();
    const fuzzy = new FuzzyNames(session, line.config, line.deps, box);
    this.#fuzzy = fuzzy;
    try {
      await fuzzy.start(signal);
      let before: ServiceList | null = null;
      for await (const { names, whole } of box.read(signal)) {
        if (before === null) this.#say(line, 'fuzzy');
        const list = this.#listOf(line, names, whole);
        if (before === null || !sameList(before, list)) yield list;
        before = list;
      }
    } catch (thrown) {
      // Full, or no right to it: others may still be open. The supervisor asks again, so this must not loop in the middle of a life.
      if (thrown instanceof NacosRefusal && thrown.causeKind !== 'lost') throw new WayClosed(thrown.message);
      throw thrown;
    } finally {
      this.#fuzzy = null;
      fuzzy.close();
    }
  }

  async #readAll(
    line: Line,
    way: Exclude<ListWay, 'fuzzy'>,
    signal: AbortSignal,
  ): Promise<{ names: NativeName[]; whole: boolean }> {
    const session = await line.enter(signal);
    if (way === 'groups') return this.#readGroups(line, session, signal);
    try {
      const { version, generation } = await line.info(signal);
      if (way === 'admin' && generation < 3) throw new WayClosed('the server is older than 3.0');
      if (way === 'catalog' && generation >= 3 && version !== null) throw new WayClosed('the server is newer than 2.x');
      const { api, server } = line;
      const read = way === 'admin' ? api.adminNames.bind(api) : api.catalogNames.bind(api);
      const all = await readPages((page) => read(server, page, PAGE, signal));
      line.httpWent(true);
      return all;
    } catch (thrown) {
      throw this.#closedOr(line, thrown);
    }
  }

  /** The groups that are configured, one by one: the last way, which sees no other group. */
  async #readGroups(line: Line, session: Session | null, signal: AbortSignal): Promise<{ names: NativeName[]; whole: boolean }> {
    const { api, server, config } = line;
    const names: NativeName[] = [];
    let whole = true;
    for (const group of config.groups ?? [config.group]) {
      const read = (page: number): Promise<NamePage> =>
        session === null ? api.groupNames(server, group, page, PAGE, signal) : grpcPage(session, group, page, signal);
      try {
        const part = await readPages(read);
        names.push(...part.names);
        whole &&= part.whole;
        if (session === null) line.httpWent(true);
      } catch (thrown) {
        throw this.#closedOr(line, thrown);
      }
    }
    return { names, whole };
  }

  /** A refusal closes the way; anything else is a failure. */
  #closedOr(line: Line, thrown: unknown): unknown {
    if (thrown instanceof HttpRefusal && thrown.causeKind !== 'lost') return new WayClosed(thrown.message);
    if (thrown instanceof SourceError && thrown.causeKind === 'lost') line.httpWent(false);
    return thrown;
  }

  #listOf(line: Line, names: readonly NativeName[], whole: boolean): ServiceList {
    const { config, deps } = line;
    const keys = new Map<string, ServiceKey>();
    for (const name of names) {
      if (config.groups !== null && !config.groups.has(name.group)) continue;
      if (badName(name) !== null) {
        deps.count('names.rejected');
        continue;
      }
      const key = keyOf(config, name);
      keys.set(serviceId(key), key);
    }
    // After a loss lists are short until the publishers are back: what is missing now is in doubt, not gone.
    const failed = line.doubtful ? [...this.#known].flatMap(([id, key]) => (keys.has(id) ? [] : [key])) : [];
    this.#known = new Map([...keys, ...failed.map((key) => [serviceId(key), key] as const)]);
    if (whole) this.#wholeAt = deps.clock.now();
    const sorted = [...keys.values()].sort((a, b) => compareText(a.name, b.name));
    return { keys: sorted, failed, complete: whole };
  }

  /** A namespace that is not there is taken by Nacos without a word: an empty list asks for a look (sections 2 and 9). */
  async #checkNamespace(line: Line, signal: AbortSignal): Promise<void> {
    const { namespace } = line.config;
    if (namespace === 'public' || namespace === 'default') return;
    try {
      const { generation, version } = await line.info(signal);
      if (version === null) return;
      const known = await line.api.namespaces(line.server, generation, signal);
      if (known === null || known.includes(namespace)) return;
      const text = `nacos ${line.server.address}: there is no namespace ${namespace} (namespace wants its id, not its name): create it, or set one of ${known.slice(0, 10).join(', ')}`;
      throw new SourceError('refused', text);
    } catch (thrown) {
      // Not to know is no fault.
      if (thrown instanceof SourceError && thrown.causeKind === 'refused' && !(thrown instanceof HttpRefusal)) throw thrown;
    }
  }

  #say(line: Line, way: ListWay): void {
    if (this.#told === way) return;
    this.#told = way;
    const fields = { source: line.deps.sourceId, way, allGroups: way !== 'groups' };
    line.deps.log.info(fields, 'nacos: the names of services are listed');
  }
}

async function grpcPage(session: Session, groupName: string, pageNo: number, signal: AbortSignal): Promise<NamePage> {
  const { body } = await session.call(
    'ServiceListRequest',
    { serviceName: '', groupName, pageNo, pageSize: PAGE, selector: '' },
    signal,
  );
  const list = body['serviceNames'];
  if (!Array.isArray(list)) throw new SourceError('malformed', `nacos ${session.server.grpc}: a list of names is no list`);
  return { total: numberOf(body['count']) ?? list.length, names: bareNames(list, groupName) };
}

/** All pages, without doubles; read again when the number changed meanwhile. */
async function readPages(read: (page: number) => Promise<NamePage>): Promise<{ names: NativeName[]; whole: boolean }> {
  for (let round = 1; ; round++) {
    const names = new Map<string, NativeName>();
    let first = -1;
    let last = -1;
    for (let page = 1; page <= MAX_NAMES / PAGE + 1; page++) {
      const { total, names: part } = await read(page);
      if (first < 0) first = total;
      last = total;
      for (const name of part) names.set(`${name.group}@@${name.name}`, name);
      if (part.length === 0 || names.size >= total) break;
    }
    if (names.size > MAX_NAMES) throw new SourceError('limit', `nacos: more than ${MAX_NAMES} services: set groups`);
    const whole = first === last && names.size >= last;
    if (whole || round === READS) return { names: [...names.values()], whole };
  }
}

function sameList(a: ServiceList, b: ServiceList): boolean {
  if (a.complete !== b.complete || a.keys.length !== b.keys.length || a.failed.length !== b.failed.length) return false;
  return a.keys.every(({ name }, at) => name === b.keys[at]?.name);
}
