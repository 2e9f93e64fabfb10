// Owns the wire of etcd v3 (docs: etcd-io/etcd api/etcdserverpb/rpc.proto): messages as a table, their types, their codecs.
// Called by client.ts and by the fake; must never hold a rule about what a message means.
import type { MethodDefinition, ServiceDefinition } from '@grpc/proto-loader';

export interface ResponseHeader {
  /** u64 as decimal text. */
  readonly clusterId: string;
  readonly memberId: string;
  /** i64 as decimal text; compare as BigInt. */
  readonly revision: string;
  readonly raftTerm: string;
}

export interface KeyValue {
  readonly key: Buffer;
  readonly createRevision: string;
  readonly modRevision: string;
  readonly version: string;
  readonly value: Buffer;
  /** Lease id, decimal; "0" for none. */
  readonly lease: string;
}

/** 0 PUT, 1 DELETE. */
export interface Event {
  readonly type: number;
  readonly kv: KeyValue | null;
  readonly prevKv: KeyValue | null;
}

export interface RangeRequest {
  readonly key: Buffer;
  readonly rangeEnd?: Buffer;
  readonly limit?: string;
  readonly revision?: string;
  readonly serializable?: boolean;
  readonly keysOnly?: boolean;
  readonly countOnly?: boolean;
}

export interface RangeResponse {
  readonly header: ResponseHeader | null;
  readonly kvs: readonly KeyValue[];
  readonly more: boolean;
  readonly count: string;
}

export interface PutRequest {
  readonly key: Buffer;
  readonly value: Buffer;
  readonly lease?: string;
  readonly prevKv?: boolean;
  readonly ignoreValue?: boolean;
  readonly ignoreLease?: boolean;
}

export interface DeleteRangeRequest {
  readonly key: Buffer;
  readonly rangeEnd?: Buffer;
  readonly prevKv?: boolean;
}

/** The numbers of the enums: a name would be one typing error away from 0 (= EQUAL, VERSION). */
export const COMPARE_EQUAL = 0;
export const TARGET_VERSION = 0;
export const TARGET_CREATE = 1;
export const TARGET_MOD = 2;
export const TARGET_VALUE = 3;
export const TARGET_LEASE = 4;

export interface Compare {
  readonly result: number;
  readonly target: number;
  readonly key: Buffer;
  readonly version?: string;
  readonly createRevision?: string;
  readonly modRevision?: string;
  readonly value?: Buffer;
  readonly lease?: string;
}

export interface RequestOp {
  readonly range?: RangeRequest | null;
  readonly put?: PutRequest | null;
  readonly deleteRange?: DeleteRangeRequest | null;
}

export interface TxnRequest {
  readonly compare: readonly Compare[];
  readonly success: readonly RequestOp[];
  readonly failure: readonly RequestOp[];
}

export interface TxnResponse {
  readonly header: ResponseHeader | null;
  readonly succeeded: boolean;
  readonly responses: readonly { readonly range?: RangeResponse | null }[];
}

export interface WatchRequest {
  readonly create?: {
    readonly key: Buffer;
    readonly rangeEnd?: Buffer;
    readonly startRevision: string;
    readonly progressNotify?: boolean;
    readonly prevKv?: boolean;
    readonly fragment?: boolean;
  } | null;
  readonly cancel?: { readonly watchId: string } | null;
  readonly progress?: Record<string, never> | null;
}

export interface WatchResponse {
  readonly header: ResponseHeader | null;
  readonly watchId: string;
  readonly created: boolean;
  readonly canceled: boolean;
  readonly compactRevision: string;
  readonly cancelReason: string;
  readonly fragment: boolean;
  readonly events: readonly Event[];
}

/** Requests and responses of the calls we make. */
export interface Calls {
  readonly Range: readonly [RangeRequest, RangeResponse];
  readonly Put: readonly [PutRequest, { readonly header: ResponseHeader | null }];
  readonly DeleteRange: readonly [DeleteRangeRequest, { readonly header: ResponseHeader | null; readonly deleted: string }];
  readonly Txn: readonly [TxnRequest, TxnResponse];
  readonly Compact: readonly [
    { readonly revision: string; readonly physical?: boolean },
    { readonly header: ResponseHeader | null },
  ];
  readonly Watch: readonly [WatchRequest, WatchResponse];
  readonly LeaseGrant: readonly [
    { readonly ttl: string; readonly id?: string },
    { readonly header: ResponseHeader | null; readonly id: string; readonly ttl: string; readonly error: string },
  ];
  readonly LeaseRevoke: readonly [{ readonly id: string }, { readonly header: ResponseHeader | null }];
  readonly LeaseKeepAlive: readonly [
    { readonly id: string },
    { readonly header: ResponseHeader | null; readonly id: string; readonly ttl: string },
  ];
  readonly LeaseTimeToLive: readonly [
    { readonly id: string; readonly keys?: boolean },
    {
      readonly header: ResponseHeader | null;
      readonly id: string;
      readonly ttl: string;
      readonly grantedTtl: string;
      readonly keys: readonly Buffer[];
    },
  ];
  readonly Authenticate: readonly [
    { readonly name: string; readonly password: string },
    { readonly header: ResponseHeader | null; readonly token: string },
  ];
  readonly Status: readonly [
    Record<string, never>,
    {
      readonly header: ResponseHeader | null;
      readonly version: string;
      readonly leader: string;
      readonly errors: readonly string[];
    },
  ];
}

export type CallName = keyof Calls;

/** Message → fields as `[*]type name number`, `*` = repeated (protocol notes, section 2). Enums travel as int32. */
const MESSAGES: Readonly<Record<string, string>> = {
  ResponseHeader: 'uint64 clusterId 1, uint64 memberId 2, int64 revision 3, uint64 raftTerm 4',
  KeyValue: 'bytes key 1, int64 createRevision 2, int64 modRevision 3, int64 version 4, bytes value 5, int64 lease 6',
  Event: 'int32 type 1, KeyValue kv 2, KeyValue prevKv 3',
  RangeRequest:
    'bytes key 1, bytes rangeEnd 2, int64 limit 3, int64 revision 4, bool serializable 7, bool keysOnly 8, bool countOnly 9',
  RangeResponse: 'ResponseHeader header 1, *KeyValue kvs 2, bool more 3, int64 count 4',
  PutRequest: 'bytes key 1, bytes value 2, int64 lease 3, bool prevKv 4, bool ignoreValue 5, bool ignoreLease 6',
  PutResponse: 'ResponseHeader header 1, KeyValue prevKv 2',
  DeleteRangeRequest: 'bytes key 1, bytes rangeEnd 2, bool prevKv 3',
  DeleteRangeResponse: 'ResponseHeader header 1, int64 deleted 2, *KeyValue prevKvs 3',
  Compare:
    'int32 result 1, int32 target 2, bytes key 3, int64 version 4, int64 createRevision 5, int64 modRevision 6, bytes value 7, int64 lease 8, bytes rangeEnd 64',
  RequestOp: 'RangeRequest range 1, PutRequest put 2, DeleteRangeRequest deleteRange 3',
  ResponseOp: 'RangeResponse range 1, PutResponse put 2, DeleteRangeResponse deleteRange 3',
  TxnRequest: '*Compare compare 1, *RequestOp success 2, *RequestOp failure 3',
  TxnResponse: 'ResponseHeader header 1, bool succeeded 2, *ResponseOp responses 3',
  CompactionRequest: 'int64 revision 1, bool physical 2',
  CompactionResponse: 'ResponseHeader header 1',
  WatchCreateRequest:
    'bytes key 1, bytes rangeEnd 2, int64 startRevision 3, bool progressNotify 4, *int32 filters 5, bool prevKv 6, int64 watchId 7, bool fragment 8',
  WatchCancelRequest: 'int64 watchId 1',
  WatchProgressRequest: '',
  WatchRequest: 'WatchCreateRequest create 1, WatchCancelRequest cancel 2, WatchProgressRequest progress 3',
  WatchResponse:
    'ResponseHeader header 1, int64 watchId 2, bool created 3, bool canceled 4, int64 compactRevision 5, string cancelReason 6, bool fragment 7, *Event events 11',
  LeaseGrantRequest: 'int64 ttl 1, int64 id 2',
  LeaseGrantResponse: 'ResponseHeader header 1, int64 id 2, int64 ttl 3, string error 4',
  LeaseRevokeRequest: 'int64 id 1',
  LeaseRevokeResponse: 'ResponseHeader header 1',
  LeaseKeepAliveRequest: 'int64 id 1',
  LeaseKeepAliveResponse: 'ResponseHeader header 1, int64 id 2, int64 ttl 3',
  LeaseTimeToLiveRequest: 'int64 id 1, bool keys 2',
  LeaseTimeToLiveResponse: 'ResponseHeader header 1, int64 id 2, int64 ttl 3, int64 grantedTtl 4, *bytes keys 5',
  AuthenticateRequest: 'string name 1, string password 2',
  AuthenticateResponse: 'ResponseHeader header 1, string token 2',
  StatusRequest: '',
  StatusResponse: 'ResponseHeader header 1, string version 2, uint64 leader 4, *string errors 8',
};

/** Call → service, messages, `stream` for both directions. */
const METHODS: Readonly<Record<CallName, readonly [service: string, request: string, response: string, stream: boolean]>> = {
  Range: ['KV', 'RangeRequest', 'RangeResponse', false],
  Put: ['KV', 'PutRequest', 'PutResponse', false],
  DeleteRange: ['KV', 'DeleteRangeRequest', 'DeleteRangeResponse', false],
  Txn: ['KV', 'TxnRequest', 'TxnResponse', false],
  Compact: ['KV', 'CompactionRequest', 'CompactionResponse', false],
  Watch: ['Watch', 'WatchRequest', 'WatchResponse', true],
  LeaseGrant: ['Lease', 'LeaseGrantRequest', 'LeaseGrantResponse', false],
  LeaseRevoke: ['Lease', 'LeaseRevokeRequest', 'LeaseRevokeResponse', false],
  LeaseKeepAlive: ['Lease', 'LeaseKeepAliveRequest', 'LeaseKeepAliveResponse', true],
  LeaseTimeToLive: ['Lease', 'LeaseTimeToLiveRequest', 'LeaseTimeToLiveResponse', false],
  Authenticate: ['Auth', 'AuthenticateRequest', 'AuthenticateResponse', false],
  Status: ['Maintenance', 'StatusRequest', 'StatusResponse', false],
};

/** Service definitions by short name (`KV`, `Watch`, …), as a gRPC server wants them. */
export type Services = ReadonlyMap<string, ServiceDefinition>;

let services: Promise<Services> | null = null;

/** The definitions. The loader of protocols is imported at the first call, so that no start waits for it. */
export function loadServices(): Promise<Services> {
  services ??= import('@grpc/proto-loader').then(({ fromJSON }) => buildServices(fromJSON));
  return services;
}

/** Path and codecs of one call. */
export interface Codec<N extends CallName> {
  readonly path: string;
  encodeRequest(request: Calls[N][0]): Buffer;
  decodeResponse(bytes: Buffer): Calls[N][1];
}

/** The codec of a call; encoding and decoding throw an Error for what is no such message. */
export function codec<N extends CallName>(services: Services, name: N): Codec<N> {
  const method = methodOf(services, name);
  return {
    path: method.path,
    encodeRequest: (request) => method.requestSerialize(request),
    decodeResponse(bytes) {
      const message: unknown = method.responseDeserialize(bytes);
      return message as Calls[N][1]; // cast: the loader built it from MESSAGES, every field set; the interfaces restate that table
    },
  };
}

function methodOf(services: Services, name: CallName): MethodDefinition<object, object> {
  const method = services.get(METHODS[name][0])?.[name];
  if (method === undefined) throw new Error(`etcd: no method ${name} in the table`);
  return method;
}

function buildServices(fromJSON: typeof import('@grpc/proto-loader').fromJSON): Services {
  const nested: Record<string, object> = {};
  for (const [name, text] of Object.entries(MESSAGES)) nested[name] = { fields: fieldsOf(text) };
  const methods = new Map<string, Record<string, object>>();
  for (const [name, [service, requestType, responseType, stream]] of Object.entries(METHODS)) {
    const group = methods.get(service) ?? {};
    group[name] = { requestType, responseType, requestStream: stream, responseStream: stream };
    methods.set(service, group);
  }
  for (const [service, group] of methods) nested[service] = { methods: group };
  const loaded = fromJSON({ nested: { etcdserverpb: { nested } } }, { longs: String, defaults: true, arrays: true });
  const services = new Map<string, ServiceDefinition>();
  for (const service of methods.keys()) {
    const definition = loaded[`etcdserverpb.${service}`];
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

/** The end of the range that holds exactly the keys with this prefix: last byte + 1 (0xff bytes dropped first); empty prefix: all keys. */
export function prefixEnd(prefix: Buffer): Buffer {
  for (let i = prefix.length - 1; i >= 0; i--) {
    const byte = prefix[i] ?? 0xff;
    if (byte === 0xff) continue;
    const end = Buffer.from(prefix.subarray(0, i + 1));
    end[i] = byte + 1;
    return end;
  }
  return Buffer.from([0]);
}

/** The first key of the range with this prefix (the empty key is not allowed on the wire: a zero byte stands for it). */
export function prefixStart(prefix: Buffer): Buffer {
  return prefix.length === 0 ? Buffer.from([0]) : prefix;
}
