// Owns the way to the registries that a demo carries inside itself. Called by the demo of cli; everything behind it is loaded when it is
// asked for. A sidecar (`weir run`) must never come here.
import type { NativeDoor } from '../../adapters/embedded.ts';

export type { NativeDoor, NativeProvider } from '../../adapters/embedded.ts';

/** Registries that run inside this process. */
export interface Embedded {
  /** Names of addresses as configuration and shell commands use them. */
  readonly variables: ReadonlyMap<string, string>;
  /** By kind: doors of registries whose protocol cannot write. */
  readonly doors: ReadonlyMap<string, NativeDoor>;
  close(): Promise<void>;
}

/** Starts one registry of each kind. Throws when one of them cannot start; those that did are ended. */
export async function startEmbedded(kinds: readonly string[]): Promise<Embedded> {
  const { embeddedKinds } = await import('../../adapters/embedded.ts');
  const variables = new Map<string, string>();
  const doors = new Map<string, NativeDoor>();
  const ends: (() => Promise<void>)[] = [];
  const close = async (): Promise<void> => {
    for (const end of ends.splice(0).reverse()) await end();
  };
  try {
    for (const kind of kinds) {
      const registry = await embeddedKinds.get(kind)?.();
      if (registry === undefined) throw new Error(`there is no embedded registry of kind ${kind}`);
      ends.push(() => registry.close());
      for (const [name, value] of registry.variables) variables.set(name, value);
      if (registry.door !== undefined) doors.set(kind, registry.door);
    }
  } catch (thrown) {
    await close();
    throw thrown;
  }
  return { variables, doors, close };
}

/** Native registration in an etcd, in the layout of gRPC's etcd endpoints. */
export async function openEtcdDoor(endpoint: string, service: string): Promise<NativeDoor> {
  const { etcdDoor } = await import('../../adapters/embedded.ts');
  return etcdDoor(endpoint, service);
}
