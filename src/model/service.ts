// Owns the identity of a service and its printed form. Plain data; names are untrusted text that passed `serviceKey`.

/** Logical name of a service. */
export interface ServiceKey {
  readonly namespace: string;
  readonly name: string;
}

/** The printed form `namespace/name`; key of every Map about services. A namespace holds no `/`, a name may. */
export type ServiceId = string;

const MAX_NAME_BYTES = 255;

/** Printed form of a key. */
export function serviceId(key: ServiceKey): ServiceId {
  return `${key.namespace}/${key.name}`;
}

/** Splits `namespace/name` at the first slash; null when either part breaks the rules of {@link nameFault}. */
export function parseServiceId(text: string): ServiceKey | null {
  const slash = text.indexOf('/');
  if (slash < 0) return null;
  const namespace = text.slice(0, slash);
  const name = text.slice(slash + 1);
  return nameFault(namespace) === null && nameFault(name) === null ? { namespace, name } : null;
}

/** What is wrong with a namespace or service name (catalog-rules §6), or null. A namespace must hold no slash besides. */
export function nameFault(text: string): string | null {
  if (text.length === 0) return 'is empty';
  if (Buffer.byteLength(text) > MAX_NAME_BYTES) return `is longer than ${MAX_NAME_BYTES} bytes`;
  if (/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/.test(text)) return 'holds a control character';
  if (!text.isWellFormed()) return 'is not well-formed Unicode';
  return null;
}

/** Order of services by printed form, the same on every machine (code units, no locale). */
export function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
