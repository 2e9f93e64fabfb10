// Layout `dubbo` (apache/dubbo-go registry/etcdv3): <interface>/providers/<query-escaped provider URL>, values are empty. Read only.
import { addressOf, addressText, BAD_ADDRESS, type Layout, type NativeService, stringOf } from './layout.ts';

/** Parameters that have a place of their own. */
const LIFTED = new Set(['weight', 'version', 'enabled', 'category', 'interface']);

export const dubboLayout: Layout = {
  name: 'dubbo',
  prefix: '/dubbo/',
  normalWeight: 100,
  leased: true,
  reads: ['weight', 'isolated', 'protocol', 'version', 'metadata', 'locality'],
  keeps: [],
  parse(key) {
    const [interfacePart = '', category, escaped = '', ...rest] = key.split('/');
    // Directories have keys of their own; consumers, configurators and routers are no instances.
    if (interfacePart === '' || category !== 'providers' || escaped === '' || rest.length > 0) return { kind: 'skip' };
    const name = unescaped(interfacePart);
    if (name === null) return { kind: 'skip' };
    const service = { name };
    const url = providerUrl(unescaped(escaped));
    if (url === null) return { kind: 'bad', service, id: escaped, reason: 'the key is no escaped provider URL' };
    const { scheme, authority, parameters } = url;
    if (scheme === 'empty' || (parameters.get('category') ?? 'providers') !== 'providers') return { kind: 'skip' };
    const address = addressOf(authority);
    if (address === null) return { kind: 'bad', service, id: authority, reason: `URL: ${BAD_ADDRESS}` };
    const version = stringOf(parameters.get('version'));
    const weight = parameters.get('weight') ?? '';
    const instance = {
      id: addressText(address),
      ...address,
      // What is no number counts as the default to its readers.
      weight: /^-?\d{1,9}$/.test(weight) ? Number(weight) : 100,
      isolated: parameters.get('enabled') === 'false',
      protocol: scheme,
      ...(version === undefined ? {} : { version }),
      metadata: [...parameters].filter(([parameter]) => !LIFTED.has(parameter)),
    };
    return { kind: 'instances', service: serviceOf(name, stringOf(parameters.get('group')), version), instances: [instance] };
  },
  servicePrefix({ name }) {
    const interfaceName = name.split(':', 1)[0] ?? '';
    // Other characters may stand escaped in more than one way.
    return /^[A-Za-z0-9._-]+$/.test(interfaceName) ? `${interfaceName}/providers/` : null;
  },
};

function serviceOf(name: string, group: string | undefined, version: string | undefined): NativeService {
  return { name: group === undefined && version === undefined ? name : `${name}:${group ?? ''}:${version ?? ''}` };
}

/** Query escape: `+` is a blank. */
function unescaped(text: string): string | null {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch {
    return null;
  }
}

function providerUrl(text: string | null): { scheme: string; authority: string; parameters: ReadonlyMap<string, string> } | null {
  const match = /^([a-z][a-z0-9+.-]{0,31}):\/\/(?:[^/?#@]*@)?([^/?#@]*)[^?#]*(?:\?([^#]*))?/i.exec(text ?? '');
  if (match === null) return null;
  const [, scheme = '', authority = '', query = ''] = match;
  const parameters = new Map<string, string>();
  for (const [name, value] of new URLSearchParams(query)) if (!parameters.has(name)) parameters.set(name, value);
  return { scheme: scheme.toLowerCase(), authority, parameters };
}
