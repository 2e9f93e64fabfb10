// Owns the door for what callers send: parameters, queries and bodies → typed values, or one 400 with the path of every fault.
// Called by the routes; must never pass an unchecked value on.
import type { Static, TSchema } from 'typebox';
import { type Decoded, type Decoder, decoder, type Fault, faultText, isRecord } from '../kernel/decode.ts';
import { WeirError } from '../kernel/errors.ts';
import { nameFault, type ServiceKey } from '../model/service.ts';

/** BAD_REQUEST (400) whose details list the faults as `{path, expected, got}`. */
export function badRequest(faults: readonly Fault[]): WeirError {
  const [first] = faults;
  const more = faults.length > 1 ? ` (and ${faults.length - 1} more)` : '';
  return new WeirError('BAD_REQUEST', first === undefined ? 'bad request' : `${faultText(first)}${more}`, {
    details: { faults },
  });
}

/** The value, or a throw of {@link badRequest} with `where` (`query`, `body`, `path`) before each path. */
export function orBadRequest<T>(where: string, decoded: Decoded<T>): T {
  if (decoded.ok) return decoded.value;
  throw badRequest(decoded.faults.map((fault) => ({ ...fault, path: placed(where, fault.path) })));
}

function placed(where: string, path: string): string {
  if (path === '') return where;
  return path.startsWith('[') ? `${where}${path}` : `${where}.${path}`;
}

/** Compiles the schema of a body; the decoder throws BAD_REQUEST. An absent body counts as `{}`. */
export function bodyDecoder<S extends TSchema>(schema: S): (body: unknown) => Static<S> {
  const decode = decoder(schema);
  return (body) => orBadRequest('body', decode(body ?? {}));
}

/** Compiles the schema of a query. Texts become numbers and booleans where the schema has them; keys that it does not know are faults. */
export function queryDecoder<S extends TSchema>(schema: S): (query: unknown) => Static<S> {
  const decode: Decoder<Static<S>> = decoder(schema);
  const types = propertyTypes(schema);
  return (query) => orBadRequest('query', decode(coerced(query, types)));
}

function propertyTypes(schema: TSchema): ReadonlyMap<string, unknown> {
  const properties = 'properties' in schema ? schema.properties : undefined;
  if (!isRecord(properties)) return new Map();
  return new Map(Object.entries(properties).map(([key, value]) => [key, isRecord(value) ? value['type'] : undefined]));
}

function coerced(query: unknown, types: ReadonlyMap<string, unknown>): Record<string, unknown> {
  const entries = isRecord(query) ? Object.entries(query) : [];
  return Object.fromEntries(
    entries.map(([key, value]) => [key, typeof value === 'string' ? coerce(value, types.get(key)) : value]),
  );
}

function coerce(text: string, type: unknown): unknown {
  if (type === 'integer' && /^\d{1,16}$/.test(text)) return Number(text);
  if (type === 'boolean' && (text === 'true' || text === 'false')) return text === 'true';
  return text;
}

/** One parameter of the path; the router has decoded it. */
export function pathText(params: unknown, name: string): string {
  const value = isRecord(params) ? params[name] : undefined;
  if (typeof value === 'string') return value;
  throw badRequest([{ path: `path.${name}`, expected: 'text', got: 'nothing' }]);
}

/** `{ns}/{name}` of the path as a key; names break the rules of catalog-rules §6 → 400. */
export function pathService(params: unknown): ServiceKey {
  const namespace = checkedName('ns', pathText(params, 'ns'), true);
  return { namespace, name: checkedName('name', pathText(params, 'name'), false) };
}

/** A name from the path that keeps the rules of names, or 400. */
function checkedName(parameter: string, text: string, isNamespace: boolean): string {
  const fault = isNamespace && text.includes('/') ? 'holds a slash' : nameFault(text);
  if (fault === null) return text;
  throw badRequest([{ path: `path.${parameter}`, expected: 'a name', got: `one that ${fault}` }]);
}
