// Layout `custom`: a key pattern with {namespace} {service} {id}, and a plain or JSON value with pointers. Built from the user's options.
import { isRecord } from '../../../src/kernel/decode.ts';
import {
  addressOf,
  addressText,
  BAD_ADDRESS,
  entriesOf,
  jsonObject,
  type Layout,
  type NativeService,
  safePart,
  stringOf,
  textOf,
} from './layout.ts';

/** What the user says; see config.ts for the defaults. Pointers are RFC 6901. */
export interface CustomOptions {
  /** `{namespace}`, `{service}`, `{id}` and fixed text between slashes; below the prefix. */
  readonly key: string;
  readonly value: 'plain' | 'json';
  readonly lease: boolean;
  /** Weight that means normal; only with `pointers.weight`. */
  readonly normalWeight: number;
  readonly pointers: {
    /** `host:port` in one text; else host and port. */
    readonly address?: string;
    readonly host?: string;
    readonly port?: string;
    readonly weight?: string;
    readonly version?: string;
    readonly protocol?: string;
    readonly metadata?: string;
  };
}

/** Builds the row, or says what is wrong with the options. */
export function customLayout(options: CustomOptions): Layout | string {
  const fault = patternFault(options);
  if (fault !== null) return fault;
  const segments = options.key.split('/');
  const { pointers } = options;
  const json = options.value === 'json';
  const fields = json
    ? (['weight', 'version', 'protocol', 'metadata'] as const).filter((name) => pointers[name] !== undefined)
    : [];
  return {
    name: 'custom',
    prefix: '',
    normalWeight: json && pointers.weight !== undefined ? options.normalWeight : null,
    weightStep: options.normalWeight >= 10 ? 1 : 0.01,
    leased: options.lease,
    ...(segments.includes('{namespace}') ? { namespaced: true as const } : {}),
    reads: fields.includes('metadata') ? [...fields, 'locality'] : fields,
    keeps: fields.includes('metadata') ? [...fields, 'locality'] : fields,
    parse(key, value) {
      const found = matchKey(segments, key);
      if (found === null) return { kind: 'skip' };
      const { service, id } = found;
      if (!json) {
        const address = addressOf(textOf(value)?.trim());
        if (address === null) return { kind: 'bad', service, id, reason: `value: ${BAD_ADDRESS}` };
        return { kind: 'instances', service, instances: [{ id, ...address }] };
      }
      const object = jsonObject(value);
      if (typeof object === 'string') return { kind: 'bad', service, id, reason: object };
      const address = addressIn(object, pointers);
      if (address === null) return { kind: 'bad', service, id, reason: BAD_ADDRESS };
      const weight = at(object, pointers.weight);
      const version = stringOf(at(object, pointers.version));
      const protocol = stringOf(at(object, pointers.protocol));
      const metadata = entriesOf(at(object, pointers.metadata));
      const instance = {
        id,
        ...address,
        ...(typeof weight === 'number' ? { weight } : {}),
        ...(version === undefined ? {} : { version }),
        ...(protocol === undefined ? {} : { protocol }),
        metadata,
      };
      return { kind: 'instances', service, instances: [instance] };
    },
    servicePrefix(service) {
      let prefix = '';
      for (const segment of segments) {
        const text = segment === '{service}' ? service.name : segment === '{namespace}' ? service.namespace : segment;
        if (segment === '{id}' || text === undefined) return prefix === '' || !segments.includes('{service}') ? null : prefix;
        prefix += `${text}/`;
      }
      return prefix;
    },
    write: {
      idOf: (instance) => safePart(instance.id),
      keyOf: (service, id) =>
        segments
          .map((segment) =>
            segment === '{service}'
              ? service.name
              : segment === '{namespace}'
                ? (service.namespace ?? '')
                : segment === '{id}'
                  ? id
                  : segment,
          )
          .join('/'),
      valueOf({ instance, weight, folded }) {
        if (!json) return addressText(instance);
        const root: Tree = new Map();
        if (pointers.address !== undefined) put(root, pointers.address, addressText(instance));
        if (pointers.host !== undefined) put(root, pointers.host, instance.host);
        if (pointers.port !== undefined) put(root, pointers.port, instance.port);
        if (pointers.weight !== undefined) put(root, pointers.weight, weight);
        if (pointers.version !== undefined && instance.version !== undefined) put(root, pointers.version, instance.version);
        if (pointers.protocol !== undefined && instance.protocol !== undefined) put(root, pointers.protocol, instance.protocol);
        const metadata = new Map(folded);
        if (pointers.version !== undefined) metadata.delete('version');
        if (pointers.protocol !== undefined) metadata.delete('protocol');
        if (pointers.metadata !== undefined) put(root, pointers.metadata, Object.fromEntries(metadata));
        return JSON.stringify(plain(root));
      },
      refuse: (service) =>
        service.name.includes('/') || (service.namespace ?? '').includes('/')
          ? 'a key part cannot hold a service name with "/"'
          : null,
    },
  };
}

function patternFault({ key, value, pointers }: CustomOptions): string | null {
  const segments = key.split('/');
  const count = (part: string): number => segments.filter((segment) => segment === part).length;
  if (count('{service}') !== 1 || count('{id}') !== 1 || count('{namespace}') > 1) {
    return 'custom.key: {service} and {id} must stand once, {namespace} at most once, each alone between slashes';
  }
  if (segments.some((segment) => segment === '' || (/[{}]/.test(segment) && !/^\{(namespace|service|id)\}$/.test(segment)))) {
    return 'custom.key: each part between slashes is fixed text, {namespace}, {service} or {id}';
  }
  if (value === 'plain') return null;
  if (Object.values(pointers).some((pointer) => !/^(\/[^/]+)+$/.test(pointer)))
    return 'custom.pointers: each is a JSON pointer such as /net/host';
  const pair = pointers.host !== undefined && pointers.port !== undefined;
  return pointers.address !== undefined || pair ? null : 'custom.pointers: address, or host and port, must be given';
}

function matchKey(segments: readonly string[], key: string): { service: NativeService; id: string } | null {
  const parts = key.split('/');
  if (parts.length !== segments.length) return null;
  let namespace: string | undefined;
  let name = '';
  let id = '';
  for (const [index, segment] of segments.entries()) {
    const part = parts[index] ?? '';
    if (part === '') return null;
    if (segment === '{service}') name = part;
    else if (segment === '{namespace}') namespace = part;
    else if (segment === '{id}') id = part;
    else if (segment !== part) return null;
  }
  return { service: namespace === undefined ? { name } : { namespace, name }, id };
}

function addressIn(object: unknown, pointers: CustomOptions['pointers']): { host: string; port: number } | null {
  if (pointers.address !== undefined) return addressOf(at(object, pointers.address));
  const host = at(object, pointers.host);
  const port = at(object, pointers.port);
  if (typeof host !== 'string') return null;
  if (typeof port !== 'number' && !(typeof port === 'string' && /^\d{1,5}$/.test(port))) return null;
  return { host, port: Number(port) };
}

function segmentsOf(pointer: string): string[] {
  return pointer
    .slice(1)
    .split('/')
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
}

function at(value: unknown, pointer: string | undefined): unknown {
  if (pointer === undefined) return undefined;
  let current = value;
  for (const part of segmentsOf(pointer)) {
    if (Array.isArray(current)) current = /^\d{1,9}$/.test(part) ? current[Number(part)] : undefined;
    else if (isRecord(current) && Object.hasOwn(current, part)) current = current[part];
    else return undefined;
  }
  return current;
}

/** A JSON object under construction; maps, so that no name from outside is a key of a plain object before the end. */
type Tree = Map<string, unknown>;

function put(root: Tree, pointer: string, value: unknown): void {
  const parts = segmentsOf(pointer);
  const last = parts.pop() ?? '';
  let node = root;
  for (const part of parts) {
    const child = node.get(part);
    const next: Tree = child instanceof Map ? child : new Map();
    node.set(part, next);
    node = next;
  }
  node.set(last, value);
}

function plain(tree: Tree): object {
  return Object.fromEntries([...tree].map(([key, value]) => [key, value instanceof Map ? plain(value) : value]));
}
