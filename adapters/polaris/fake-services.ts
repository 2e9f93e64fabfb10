// Owns the same calls by the packages of gRPC, for the fake: codecs that are not ours, so that a slip in ours cannot cancel itself out.
// Called by fake.ts and protobuf.test.ts only.
import { fromJSON, type MethodDefinition, type ServiceDefinition } from '@grpc/proto-loader';
import { type CallName, type Calls, type Codec, MESSAGES, METHODS } from './protocol.ts';

/** Service definitions by short name, as a gRPC server wants them. */
export const SERVICES: ReadonlyMap<string, ServiceDefinition> = buildServices();

/** The codec of a call by protobufjs. */
export function packagedCodec<N extends CallName>(name: N): Codec<N> {
  const method = methodOf(name);
  return {
    path: method.path,
    encodeRequest: (request) => method.requestSerialize(request),
    encodeResponse: (response) => method.responseSerialize(response),
    decodeRequest(bytes) {
      const message: unknown = method.requestDeserialize(bytes);
      return message as Calls[N][0]; // cast: the loader built it from MESSAGES; the interfaces restate that table
    },
    decodeResponse(bytes) {
      const message: unknown = method.responseDeserialize(bytes);
      return message as Calls[N][1]; // cast: as above
    },
  };
}

function methodOf(name: CallName): MethodDefinition<object, object> {
  const method = SERVICES.get(METHODS[name][0])?.[name];
  if (method === undefined) throw new Error(`polaris: no method ${name} in the table`);
  return method;
}

function buildServices(): ReadonlyMap<string, ServiceDefinition> {
  const nested: Record<string, object> = {};
  for (const [name, text] of Object.entries(MESSAGES)) nested[name] = { fields: fieldsOf(text) };
  const methods = new Map<string, Record<string, object>>();
  for (const [name, [service, requestType, responseType, stream]] of Object.entries(METHODS)) {
    const group = methods.get(service) ?? {};
    group[name] = { requestType, responseType, requestStream: stream, responseStream: stream };
    methods.set(service, group);
  }
  for (const [service, group] of methods) nested[service] = { methods: group };
  // Without defaults: an absent wrapper and an empty one mean different things.
  const loaded = fromJSON({ nested: { v1: { nested } } }, { keepCase: true });
  const services = new Map<string, ServiceDefinition>();
  for (const service of methods.keys()) {
    const definition = loaded[`v1.${service}`];
    if (definition !== undefined && !('format' in definition)) services.set(service, definition);
  }
  return services;
}

function fieldsOf(text: string): Record<string, object> {
  const fields: Record<string, object> = {};
  for (const part of text.split(', ')) {
    const [type, name, id] = part.split(' ');
    if (type === undefined || name === undefined || id === undefined) continue;
    const repeated = type.startsWith('*');
    fields[name] = { type: repeated ? type.slice(1) : type, id: Number(id), ...(repeated ? { rule: 'repeated' } : {}) };
  }
  return fields;
}
