// Owns the frames of Nacos' gRPC (docs: alibaba/nacos api/src/main/proto/nacos_grpc_service.proto): one message, two methods, JSON inside.
// Called by link.ts and by the fake; must never hold a rule about what a message means.
import type { fromJSON, MethodDefinition, ServiceDefinition } from '@grpc/proto-loader';
import { isRecord } from '../../src/kernel/decode.ts';

/** Section 4: at most this much each way. */
export const MAX_MESSAGE_BYTES = 10 * 1024 * 1024;

/** One frame: `type` is the simple class name, `body` UTF-8 JSON. */
export interface Frame {
  readonly type: string;
  readonly body: Buffer;
}

const text = (id: number): object => ({ type: 'string', id });
const both = { requestType: 'Payload', responseType: 'Payload' };
const nested: Record<string, object> = {
  Metadata: { fields: { type: text(3), clientIp: text(8), headers: { keyType: 'string', type: 'string', id: 7 } } },
  Any: { fields: { typeUrl: text(1), value: { type: 'bytes', id: 2 } } },
  Payload: { fields: { metadata: { type: 'Metadata', id: 2 }, body: { type: 'Any', id: 3 } } },
  Request: { methods: { request: both } },
  BiRequestStream: { methods: { requestBiStream: { ...both, requestStream: true, responseStream: true } } },
};

/** The codec and the two services, as a gRPC server wants them. */
export interface Wire {
  readonly request: ServiceDefinition;
  readonly stream: ServiceDefinition;
  /** A frame as bytes. `body` is JSON data; `headers` carry token and identity. */
  encode(type: string, body: unknown, headers: Readonly<Record<string, string>>): Buffer;
  /** Bytes as a frame, null for what is none. */
  decode(bytes: Buffer): Frame | null;
}

let wire: Promise<Wire> | null = null;

/** The loader of protocols is imported at the first call, so that no start waits for it, and HTTP alone never pays for it. */
export function loadWire(): Promise<Wire> {
  wire ??= import('@grpc/proto-loader').then((loader) => buildWire(loader.fromJSON));
  return wire;
}

function buildWire(make: typeof fromJSON): Wire {
  const loaded = make({ nested }, { longs: String, defaults: true });
  const service = (name: string): ServiceDefinition => {
    const definition = loaded[name];
    if (definition === undefined || 'format' in definition) throw new Error(`nacos: no service ${name} in the table`);
    return definition;
  };
  const request = service('Request');
  const method: MethodDefinition<object, object> | undefined = request['request'];
  if (method === undefined) throw new Error('nacos: no method request in the table');
  return {
    request,
    stream: service('BiRequestStream'),
    encode: (type, body, headers) => method.requestSerialize(payload(type, body, headers)),
    decode(bytes) {
      try {
        return frameOf(method.responseDeserialize(bytes));
      } catch {
        return null;
      }
    },
  };
}

export const REQUEST_PATH = '/Request/request';
export const STREAM_PATH = '/BiRequestStream/requestBiStream';

/** The object that the loader's codec takes for a frame. */
export function payload(type: string, body: unknown, headers: Readonly<Record<string, string>>, clientIp = ''): object {
  return { metadata: { type, headers, clientIp }, body: { value: Buffer.from(JSON.stringify(body)) } };
}

/** The frame in what the loader's codec made, null when a part is missing. */
export function frameOf(message: unknown): Frame | null {
  if (!isRecord(message) || !isRecord(message['metadata']) || !isRecord(message['body'])) return null;
  const { type } = message['metadata'];
  const { value } = message['body'];
  return typeof type === 'string' && Buffer.isBuffer(value) ? { type, body: value } : null;
}

/** The headers of such a message; names from outside. */
export function headersOf(message: unknown): ReadonlyMap<string, string> {
  const headers = isRecord(message) && isRecord(message['metadata']) ? message['metadata']['headers'] : null;
  if (!isRecord(headers)) return new Map();
  return new Map(Object.entries(headers).flatMap(([name, value]) => (typeof value === 'string' ? [[name, value]] : [])));
}
