// Owns the rules that a schema cannot state: references between entries, addresses used twice, values that contradict each other.
// Called by load.ts on a file that the schema accepted. Faults refuse the file; warnings only speak.
import { canonicalHost, parseCidr } from '../kernel/address.ts';
import { describe } from '../kernel/decode.ts';
import { DEFAULT_BREAKER, DEFAULT_CLUSTER_POLICY, DEFAULT_OUTLIER } from '../model/policy.ts';
import { nameFault, parseServiceId } from '../model/service.ts';
import type { ListenAddress } from '../proxy/proxy-update.ts';
import { didYouMean, type Path, type PathFault } from './config-fault.ts';
import { collide, isLocal, parseListen } from './listen-address.ts';
import { covers, isGlob, patternFault } from './pattern.ts';
import {
  type ConfigFile,
  DEFAULT_API_LISTEN,
  DEFAULT_PROXY_LISTEN,
  type HealthCheckEntry,
  type ServiceEntry,
  type SourceEntry,
} from './schema.ts';
import { ms } from './services.ts';

export interface Findings {
  readonly faults: PathFault[];
  readonly warnings: PathFault[];
}

/** All findings at once. */
export function semanticFindings(file: ConfigFile): Findings {
  const found: Findings = { faults: [], warnings: [] };
  const ids = (file.sources ?? []).map(({ id }) => id);
  const sources = ids.length === 0 ? ['local'] : ids;
  duplicates(ids, (i) => ['sources', i, 'id'], 'an id that no other source has', found);
  for (const [i, source] of (file.sources ?? []).entries()) {
    cidrs(source.allow?.cidrs, ['sources', i, 'allow', 'cidrs'], found);
    if (source.select !== undefined && typeof source.select !== 'string')
      patterns(source.select, ['sources', i, 'select'], found);
    tlsPair(source.tls, ['sources', i, 'tls'], found);
  }
  tlsPair(file.state?.shared?.tls, ['state', 'shared', 'tls'], found);
  listens(file, found);
  for (const [i, entry] of (file.services ?? []).entries()) service(entry, ['services', i], sources, file, found);
  names(file, found);
  registrations(file, sources, found);
  return found;
}

function fault(found: Findings, path: Path, expected: string, got: string, hint?: string): void {
  found.faults.push({ path, expected, got, ...(hint === undefined ? {} : { hint }) });
}

function warn(found: Findings, path: Path, expected: string, got: string, hint: string): void {
  found.warnings.push({ path, expected, got, hint });
}

function duplicates(values: readonly string[], pathOf: (i: number) => Path, expected: string, found: Findings): void {
  const seen = new Set<string>();
  for (const [i, value] of values.entries()) {
    if (seen.has(value)) fault(found, pathOf(i), expected, `${describe(value)} again`);
    seen.add(value);
  }
}

function tlsPair(tls: SourceEntry['tls'], path: Path, found: Findings): void {
  if ((tls?.cert === undefined) !== (tls?.key === undefined))
    fault(found, path, 'cert and key together', tls?.cert === undefined ? 'only key' : 'only cert');
}

function cidrs(blocks: readonly string[] | undefined, path: Path, found: Findings): void {
  for (const [i, block] of (blocks ?? []).entries()) {
    if (parseCidr(block) === null) fault(found, [...path, i], 'a CIDR block such as 10.0.0.0/8', describe(block));
  }
}

function patterns(list: readonly string[], path: Path, found: Findings): void {
  for (const [i, pattern] of list.entries()) {
    const wrong = patternFault(pattern);
    if (wrong !== null) fault(found, [...path, i], wrong, describe(pattern));
  }
}

function knownSource(id: string, path: Path, sources: readonly string[], found: Findings): void {
  if (sources.includes(id)) return;
  const meant = didYouMean(id, sources);
  fault(
    found,
    path,
    `the id of a source: one of ${sources.join(', ')}`,
    describe(id),
    meant === null ? undefined : `did you mean ${JSON.stringify(meant)}?`,
  );
}

function listens(file: ConfigFile, found: Findings): void {
  const taken: { readonly what: string; readonly address: ListenAddress }[] = [];
  const add = (text: string, path: Path, what: string): ListenAddress | null => {
    const address = parseListen(text);
    if (address === null) {
      fault(found, path, 'an IP address and port such as 127.0.0.1:7900, or unix:/path', describe(text));
      return null;
    }
    const other = taken.find((one) => collide(one.address, address));
    if (other !== undefined)
      fault(found, path, 'an address that nothing else listens on', `${describe(text)}, which ${other.what} has`);
    taken.push({ what, address });
    return address;
  };
  const api = add(file.api?.listen ?? DEFAULT_API_LISTEN, ['api', 'listen'], 'api.listen');
  if (api !== null && !isLocal(api) && file.api?.tokens?.read === undefined && file.api?.tokens?.write === undefined) {
    const hint = 'writes always need the write token';
    fault(
      found,
      ['api', 'listen'],
      'api.tokens, or a loopback address or unix socket',
      'an address that other hosts reach, without a token',
      hint,
    );
  }
  add(file.proxy?.listen ?? DEFAULT_PROXY_LISTEN, ['proxy', 'listen'], 'proxy.listen');
  for (const [i, { listen, service: name, trustedCidrs, direction }] of (file.listeners ?? []).entries()) {
    add(listen, ['listeners', i, 'listen'], `listeners[${i}]`);
    if (parseServiceId(name) === null) fault(found, ['listeners', i, 'service'], 'a service: namespace/name', describe(name));
    cidrs(trustedCidrs, ['listeners', i, 'trustedCidrs'], found);
    if (trustedCidrs !== undefined && direction !== 'inbound') {
      warn(
        found,
        ['listeners', i, 'trustedCidrs'],
        'direction: inbound beside it',
        'an outbound listener',
        'it has no effect there',
      );
    }
  }
}

function service(entry: ServiceEntry, path: Path, sources: readonly string[], file: ConfigFile, found: Findings): void {
  const wrong =
    patternFault(entry.match) ??
    (entry.match === '*' || entry.match.includes('/') ? null : 'namespace/name, * for any run of characters');
  if (wrong !== null) fault(found, [...path, 'match'], wrong, describe(entry.match));
  for (const source of Object.keys(entry.names ?? {})) knownSource(source, [...path, 'names', source], sources, found);
  merge(entry, path, sources, found);
  if (entry.healthCheck !== undefined) healthCheck(entry.healthCheck, [...path, 'healthCheck'], found);
  times(entry, path, found);
  const { match, names: _names, ...policies } = entry;
  const index = Number(path[1]);
  const earlier = (file.services ?? []).slice(0, index).find((one) => covers(one.match, match));
  if (earlier !== undefined && Object.keys(policies).length > 0) {
    warn(
      found,
      [...path, 'match'],
      'a pattern that no earlier entry covers',
      describe(match),
      `${JSON.stringify(earlier.match)} stands above and matches first: only names of this entry count`,
    );
  }
}

function merge(entry: ServiceEntry, path: Path, sources: readonly string[], found: Findings): void {
  if (entry.merge === undefined || entry.merge === 'union') return;
  if ('prefer' in entry.merge) {
    for (const [i, id] of entry.merge.prefer.entries()) knownSource(id, [...path, 'merge', 'prefer', i], sources, found);
    return;
  }
  for (const id of Object.keys(entry.merge.weighted)) knownSource(id, [...path, 'merge', 'weighted', id], sources, found);
  if (Object.values(entry.merge.weighted).every((share) => share === 0)) {
    fault(found, [...path, 'merge', 'weighted'], 'a share above 0', 'only 0');
  }
}

function healthCheck(entry: HealthCheckEntry, path: Path, found: Findings): void {
  const kinds = [entry.http, entry.tcp, entry.grpc].filter((kind) => kind !== undefined).length;
  if (kinds !== 1) fault(found, path, 'exactly one of http, tcp, grpc', kinds === 0 ? 'none of them' : `${kinds} of them`);
  for (const [i, range] of (entry.http?.expectedStatuses ?? []).entries()) {
    const [from = '', to = ''] = typeof range === 'string' ? range.split('-') : [];
    if (Number(from) > Number(to))
      fault(found, [...path, 'http', 'expectedStatuses', i], 'a range from low to high', describe(range));
  }
}

function times(entry: ServiceEntry, path: Path, found: Findings): void {
  const timeout = ms(entry.timeout, DEFAULT_CLUSTER_POLICY.timeout);
  const perTry = ms(entry.retry?.perTryTimeout, 0);
  if (timeout > 0 && perTry >= timeout) {
    warn(found, [...path, 'retry', 'perTryTimeout'], `less than the timeout of ${timeout} ms`, `${perTry} ms`, 'it is ignored');
  }
  const outlier = entry.outlierDetection;
  const base = ms(outlier?.baseEjectionTime, DEFAULT_OUTLIER.baseEjectionTime);
  if (outlier?.maxEjectionTime !== undefined && ms(outlier.maxEjectionTime, base) < base) {
    fault(
      found,
      [...path, 'outlierDetection', 'maxEjectionTime'],
      `at least baseEjectionTime (${base} ms)`,
      describe(outlier.maxEjectionTime),
    );
  }
  const sleep = ms(entry.breaker?.sleepWindow, DEFAULT_BREAKER.sleepWindow);
  if (entry.breaker?.maxSleepWindow !== undefined && ms(entry.breaker.maxSleepWindow, sleep) < sleep) {
    fault(
      found,
      [...path, 'breaker', 'maxSleepWindow'],
      `at least sleepWindow (${sleep} ms)`,
      describe(entry.breaker.maxSleepWindow),
    );
  }
}

/** Two services of ours must never be one service of a source. */
function names(file: ConfigFile, found: Findings): void {
  const seen: { readonly source: string; readonly template: string; readonly match: string; readonly at: number }[] = [];
  for (const [at, { match, names: templates }] of (file.services ?? []).entries()) {
    for (const [source, template] of Object.entries(templates ?? {})) {
      const path: Path = ['services', at, 'names', source];
      const wrong = templateFault(match, template);
      if (wrong !== null) fault(found, path, wrong, describe(template));
      const other = seen.find(
        (one) => one.source === source && one.template === template && one.match !== match && meet(one.match, match, template),
      );
      if (other !== undefined) {
        fault(
          found,
          path,
          `a name that no other service has in ${source}`,
          `${describe(template)}, which services[${other.at}] has`,
        );
      }
      seen.push({ source, template, match, at });
    }
  }
}

function templateFault(match: string, template: string): string | null {
  const holes: readonly string[] = template.match(/\{[^{}]*\}?/g) ?? [];
  if (holes.some((hole) => hole !== '{name}' && hole !== '{namespace}')) return 'no placeholder but {name} and {namespace}';
  if (new Set(holes).size < holes.length) return 'each placeholder at most once';
  const slash = match.indexOf('/');
  const [namespace, name] = slash < 0 ? [match, match] : [match.slice(0, slash), match.slice(slash + 1)];
  const missing =
    isGlob(name) && !holes.includes('{name}')
      ? '{name}'
      : isGlob(namespace) && !holes.includes('{namespace}')
        ? '{namespace}'
        : null;
  if (missing !== null) return `${missing} in it, since ${JSON.stringify(match)} can match several services`;
  return nameFault(template) === null ? null : 'a name of at most 255 bytes without control characters';
}

/** True when two different patterns with one template can give one native name to two services: what the template leaves out differs. */
function meet(a: string, b: string, template: string): boolean {
  const part = (match: string): readonly [string, string] => [
    match.slice(0, match.indexOf('/')),
    match.slice(match.indexOf('/') + 1),
  ];
  const [aSpace, aName] = part(a);
  const [bSpace, bName] = part(b);
  const overlap = (x: string, y: string): boolean => covers(x, y) || covers(y, x);
  const namesMeet = overlap(aName, bName);
  const spacesMeet = overlap(aSpace, bSpace);
  // A part that the template carries is equal in both; one that it leaves out may differ, and then it is two services with one name.
  const possible = (!template.includes('{name}') || namesMeet) && (!template.includes('{namespace}') || spacesMeet);
  return possible && !(namesMeet && spacesMeet);
}

function registrations(file: ConfigFile, sources: readonly string[], found: Findings): void {
  const entries = file.registrations ?? [];
  duplicates(
    entries.map(({ service: name, id }) => `${name} ${id}`),
    (i) => ['registrations', i, 'id'],
    'an id that no other registration of the service has',
    found,
  );
  for (const [i, entry] of entries.entries()) {
    const path: Path = ['registrations', i];
    if (parseServiceId(entry.service) === null)
      fault(found, [...path, 'service'], 'a service: namespace/name', describe(entry.service));
    if (canonicalHost(entry.host) === null) fault(found, [...path, 'host'], 'an IP address or host name', describe(entry.host));
    for (const [j, id] of (entry.sources ?? []).entries()) knownSource(id, [...path, 'sources', j], sources, found);
    if (entry.healthCheck !== undefined) healthCheck(entry.healthCheck, [...path, 'healthCheck'], found);
  }
}
