// Owns how the providers of a story register themselves: by the plain protocol of each registry, past weir and its adapters.
// Called by demo-story.ts.
import type { NativeDoor, NativeProvider } from '../app/embedded.ts';

/** Addresses and tokens of the registries, by the names that the configuration uses. */
export type Variables = ReadonlyMap<string, string>;

/** The story's service, in the words of each registry. */
const NAME = 'hello';
const SID = '1001:77';
const CALL_MS = 5_000;

/** The HTTP API of a Consul agent. */
export function consulDoor(variables: Variables): NativeDoor {
  const base = `http://${variables.get('CONSUL')}/v1/agent/service`;
  return {
    async put({ name, host, port }) {
      const body = { ID: `${NAME}-${name}`, Name: NAME, Address: host, Port: port, Meta: { provider: name } };
      await call('PUT', `${base}/register`, JSON.stringify(body));
    },
    async remove({ name }) {
      await call('PUT', `${base}/deregister/${NAME}-${name}`, undefined, {}, [404]);
    },
  };
}

/** The open API of Nacos 1 and 2 (also what Polaris offers): an ephemeral instance that beats for itself. */
export function nacosDoor(variables: Variables): NativeDoor {
  const base = `http://${variables.get('NACOS')}/nacos/v1/ns/instance`;
  // Polaris answers 406 without it.
  const headers = { 'content-type': 'application/x-www-form-urlencoded' };
  const query = ({ name, host, port }: NativeProvider): URLSearchParams =>
    new URLSearchParams({
      serviceName: `DEFAULT_GROUP@@${NAME}`,
      groupName: 'DEFAULT_GROUP',
      namespaceId: 'public',
      clusterName: 'DEFAULT',
      ip: host,
      port: String(port),
      ephemeral: 'true',
      metadata: JSON.stringify({ provider: name }),
    });
  return {
    async put(provider) {
      await call('POST', `${base}?${query(provider)}`, undefined, headers);
    },
    async remove(provider) {
      await call('DELETE', `${base}?${query(provider)}`, undefined, headers);
    },
    async beat(provider) {
      const { name, host, port } = provider;
      const beat = { serviceName: `DEFAULT_GROUP@@${NAME}`, ip: host, port, weight: 1, metadata: { provider: name } };
      const words = query(provider);
      words.set('beat', JSON.stringify(beat));
      await call('PUT', `${base}/beat?${words}`, undefined, headers);
    },
  };
}

/** The client API of Polaris over HTTP; without a health check, so that nothing has to beat. */
export function polarisDoor(variables: Variables, namespace: string, service = NAME): NativeDoor {
  const base = `http://${variables.get('POLARIS_HTTP')}/v1`;
  const headers = polarisHeaders(variables);
  const ids = new Map<string, string>();
  const put = async ({ name, host, port }: NativeProvider): Promise<void> => {
    const body = { service, namespace, host, port, weight: 100, healthy: true, metadata: { provider: name } };
    const answer = await call('POST', `${base}/RegisterInstance`, JSON.stringify(body), headers);
    const id = /"id":\s*"([^"]+)"/.exec(answer)?.[1];
    if (id !== undefined) ids.set(name, id);
  };
  return {
    put,
    async remove(provider) {
      const id = ids.get(provider.name);
      if (id === undefined) return;
      // A Polaris with a file store shows for up to 75 s what it removed, unless that changed in the last 5 s (seen, 1.18.1).
      await put(provider);
      await call('POST', `${base}/DeregisterInstance`, JSON.stringify({ id }), headers);
      ids.delete(provider.name);
    },
  };
}

/** People edit CL5 in its console; where Polaris plays CL5, that is the service named as the SID, in `default`. */
export async function openCl5Door(variables: Variables): Promise<NativeDoor> {
  const base = `http://${variables.get('POLARIS_HTTP')}/naming/v1`;
  const headers = polarisHeaders(variables);
  const where = { service: SID, namespace: 'default' };
  const service = [{ name: SID, namespace: 'default', owners: 'polaris' }];
  // 400: it is there already.
  await call('POST', `${base}/services`, JSON.stringify(service), headers, [400]);
  const ids = new Map<string, string>();
  return {
    async put({ name, host, port }) {
      const instances = JSON.stringify([{ ...where, host, port, weight: 100, healthy: true }]);
      const answer = await call('POST', `${base}/instances`, instances, headers, [400]);
      const id = /"instance":\s*\{\s*"id":\s*"([^"]+)"/.exec(answer)?.[1];
      if (id !== undefined) ids.set(name, id);
    },
    async remove({ name, host, port }) {
      const id = ids.get(name);
      if (id === undefined) return;
      // Changed first, as in polarisDoor; and by its id, since by host every instance of this machine would go.
      await call('PUT', `${base}/instances`, JSON.stringify([{ ...where, id, host, port, weight: 99, healthy: true }]), headers);
      await call('POST', `${base}/instances/delete`, JSON.stringify([{ id }]), headers);
      ids.delete(name);
    },
  };
}

function polarisHeaders(variables: Variables): Readonly<Record<string, string>> {
  return { 'content-type': 'application/json', 'x-polaris-token': variables.get('POLARIS_TOKEN') ?? '' };
}

/** The answer's text. Throws for every status that is neither 2xx nor in `also`. */
async function call(
  method: string,
  url: string,
  body?: string,
  headers: Readonly<Record<string, string>> = {},
  also: readonly number[] = [],
): Promise<string> {
  const signal = AbortSignal.timeout(CALL_MS);
  const answer = await fetch(url, { method, headers, signal, ...(body === undefined ? {} : { body }) });
  const text = await answer.text();
  if (answer.ok || also.includes(answer.status)) return text;
  throw new Error(`${method} ${url.replace(/\?.*/, '')}: ${answer.status} ${text.slice(0, 300)}`);
}
