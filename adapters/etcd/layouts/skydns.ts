// Layout `skydns` (coredns/coredns plugin/etcd): <domain labels reversed>/<x> → {host, port, priority, weight, text, ttl, group, mail}.
// A service is a domain name: it has the keys below its path, deeper ones included, as a DNS answer has; the parent path lists it.
import { NORMAL_WEIGHT } from '../../../src/model/instance.ts';
import { jsonObject, type Layout, type Member, type NativeService, safePart } from './layout.ts';

/** A DNS name has at most 253 characters. */
const MAX_PATH_BYTES = 253;
/** Every level of a key is one more service that it counts for. */
const MAX_LABELS = 16;
const MAX_DNS_PRIORITY = 65_535;

export const skydnsLayout: Layout = {
  name: 'skydns',
  prefix: '/skydns/',
  normalWeight: 100,
  weightStep: 1,
  // All weights 0 means all are equal to its readers.
  noZeroWeight: true,
  leased: 'optional',
  reads: ['weight'],
  keeps: ['weight'],
  parse(key, value) {
    const parts = key.split('/');
    const x = parts.pop() ?? '';
    // A label with a dot has no name that leads to it; names below arpa point from addresses to names.
    if (parts.length === 0 || x === '' || parts.some((label) => label === '' || label.includes('.'))) return { kind: 'skip' };
    if (parts[0] === 'arpa') return { kind: 'skip' };
    const service = nameOf(parts);
    if (parts.length > MAX_LABELS || Buffer.byteLength(key) > MAX_PATH_BYTES) {
      return { kind: 'bad', service, id: x, reason: 'the key is too long for a domain name' };
    }
    const home = { service, also: elsewhere(parts, x) };
    const json = jsonObject(value);
    if (typeof json === 'string') return { kind: 'bad', ...home, id: x, reason: json };
    const fault = faultOf(json);
    if (fault !== null) return { kind: 'bad', ...home, id: x, reason: fault };
    const { host, port, weight, priority, group, mail } = json;
    // Text only: a TXT record.
    if (typeof host !== 'string' || host === '') return { kind: 'skip', ...home };
    const tag = typeof group === 'string' ? group : '';
    if (mail === true) return { kind: 'instances', ...home, instances: [], tag };
    if (typeof port !== 'number' || port < 1 || port > 65_535) {
      return { kind: 'bad', ...home, id: x, reason: 'port: expected 1..65535' };
    }
    const metadata: [string, unknown][] = [];
    if (typeof priority === 'number' && priority !== 0) metadata.push(['priority', priority]);
    if (tag !== '') metadata.push(['group', tag]);
    const instance = { id: x, host, port, weight: typeof weight === 'number' ? weight : 0, metadata };
    return { kind: 'instances', ...home, instances: [instance], tag };
  },
  servicePrefix: ({ name }) => pathOf(name),
  combine(service, members) {
    const path = pathOf(service.name);
    const counting = chosenByGroup(belowOrExact(path, members));
    const allZero = [...counting].every(({ instances }) => instances.every(({ weight }) => weight === 0));
    return members.map((member) => {
      if (!counting.has(member)) return null;
      const within = member.key === path ? '' : member.key.slice(path.length + 1, member.key.lastIndexOf('/') + 1);
      if (within === '' && !allZero) return member.instances;
      return member.instances.map((one) => ({ ...one, id: within + one.id, weight: allZero ? NORMAL_WEIGHT : one.weight }));
    });
  },
  write: {
    idOf: (instance) => safePart(instance.id),
    keyOf: ({ name }, id) => `${pathOf(name)}/${id}`,
    valueOf({ instance, weight }) {
      const { host, port } = instance;
      const priority = Number(instance.metadata.get('priority'));
      const said = Number.isInteger(priority) && priority >= 1 && priority <= MAX_DNS_PRIORITY;
      return JSON.stringify({ host, port, weight, ...(said ? { priority } : {}) });
    },
    refuse(service, instance) {
      if (!/^[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63}){0,15}$/.test(service.name) || /(^|\.)arpa$/.test(service.name)) {
        return `this layout writes domain names in lower case only, not ${service.name}`;
      }
      const length = Buffer.byteLength(service.name) + 1 + Buffer.byteLength(instance.id);
      return length > MAX_PATH_BYTES ? 'the name and the id are too long for a domain name' : null;
    },
  },
};

function pathOf(name: string): string {
  return name.split('.').reverse().join('/');
}

function nameOf(labels: readonly string[]): NativeService {
  return { name: [...labels].reverse().join('.') };
}

/** The names above the service, and the name of the key itself. */
function elsewhere(labels: readonly string[], x: string): readonly NativeService[] {
  const above = labels.slice(1).map((_, n) => nameOf(labels.slice(0, n + 1)));
  return x.includes('.') ? above : [...above, nameOf([...labels, x])];
}

const FIELDS = [
  ['host', 'string'],
  ['port', 'integer'],
  ['priority', 'integer'],
  ['weight', 'integer'],
  ['text', 'string'],
  ['mail', 'boolean'],
  ['ttl', 'integer'],
  ['targetstrip', 'integer'],
  ['group', 'string'],
] as const;

/** What makes the reference reader refuse a value (and with it the whole answer), or null. */
function faultOf(json: Readonly<Record<string, unknown>>): string | null {
  for (const [name, type] of FIELDS) {
    const value = json[name];
    if (value === undefined || value === null) continue;
    const fits = type === 'integer' ? Number.isSafeInteger(value) : typeof value === type;
    if (!fits) return `${name}: expected ${type}`;
  }
  return null;
}

/** Keys below the path win; the key of the path itself counts only when there are none. */
function belowOrExact(path: string, members: readonly Member[]): readonly Member[] {
  const below = members.filter(({ key }) => key.startsWith(`${path}/`));
  return below.length > 0 ? below : members;
}

/**
 * The readers' rule, walked as they walk it (plugin/etcd/msg Group): the first record's group holds until a shorter key takes over; a
 * shorter key without a group ends the search. Only records of that group and groupless ones count, unless that level disagrees.
 */
function chosenByGroup(members: readonly Member[]): ReadonlySet<Member> {
  const all = new Set(members);
  const [first] = members.filter(({ tag }) => tag !== undefined);
  if (first === undefined) return all;
  let group = first.tag ?? '';
  let level = levelOf(first);
  const walked = new Set<Member>();
  for (const member of members) {
    if (member.tag === undefined) continue;
    walked.add(member);
    if (levelOf(member) >= level) continue;
    if (member.tag === '') break;
    level = levelOf(member);
    group = member.tag;
  }
  if (group === '') return all;
  const others = members.filter(({ tag = '' }) => tag !== '' && tag !== group);
  if (others.some((member) => walked.has(member) && levelOf(member) === level)) return all;
  for (const other of others) all.delete(other);
  return all;
}

function levelOf({ key }: Member): number {
  return key.split('/').length;
}
