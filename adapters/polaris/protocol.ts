// Owns the wire of Polaris (polarismesh/specification api/v1): messages as a table, their types, their codecs.
// Called by client.ts, stream.ts and the fake (which has its own codecs for the same table); must never hold a rule about what a message means.
import { decode, encode, type MessageTable, type Shape, shapesOf } from './protobuf.ts';

/** Wrappers: the message absent = unset, present without value = "" / 0 / false. */
export interface StringValue {
  readonly value?: string;
}
export interface UintValue {
  readonly value?: number;
}
export interface BoolValue {
  readonly value?: boolean;
}

/** An entry of a map<string, string>: an object would lose keys such as `__proto__`. */
export interface Entry {
  readonly key?: string;
  readonly value?: string;
}

export interface NativeLocation {
  readonly region?: StringValue;
  readonly zone?: StringValue;
  readonly campus?: StringValue;
}

export interface NativeInstance {
  readonly id?: StringValue;
  readonly service?: StringValue;
  readonly namespace?: StringValue;
  readonly host?: StringValue;
  readonly port?: UintValue;
  readonly protocol?: StringValue;
  readonly version?: StringValue;
  readonly weight?: UintValue;
  readonly healthCheck?: { readonly type?: number; readonly heartbeat?: { readonly ttl?: UintValue } };
  readonly healthy?: BoolValue;
  readonly isolate?: BoolValue;
  readonly location?: NativeLocation;
  readonly metadata?: readonly Entry[];
  readonly revision?: StringValue;
  readonly enableHealthCheck?: BoolValue;
  readonly vpcId?: StringValue;
}

export interface NativeService {
  readonly name?: StringValue;
  readonly namespace?: StringValue;
  readonly token?: StringValue;
  readonly revision?: StringValue;
  readonly id?: StringValue;
}

export interface DiscoverRequest {
  readonly type?: number;
  readonly service?: NativeService;
}

export interface DiscoverResponse {
  readonly code?: UintValue;
  readonly info?: StringValue;
  readonly type?: number;
  readonly service?: NativeService;
  readonly instances?: readonly NativeInstance[];
  readonly services?: readonly NativeService[];
  readonly aliasFor?: NativeService;
}

export interface NativeResponse {
  readonly code?: UintValue;
  readonly info?: StringValue;
  readonly instance?: NativeInstance;
}

export interface HeartbeatItem {
  readonly instanceId?: string;
}

/** Types of a DiscoverRequest that we ask. */
export const TYPE_INSTANCE = 1;
export const TYPE_ROUTING = 3;
export const TYPE_SERVICES = 6;
/** healthCheck.type. */
export const CHECK_HEARTBEAT = 1;

/** Requests and responses of the calls we make. */
export interface Calls {
  readonly RegisterInstance: readonly [NativeInstance, NativeResponse];
  readonly DeregisterInstance: readonly [NativeInstance, NativeResponse];
  readonly Heartbeat: readonly [NativeInstance, NativeResponse];
  readonly Discover: readonly [DiscoverRequest, DiscoverResponse];
  readonly BatchHeartbeat: readonly [{ readonly heartbeats: readonly HeartbeatItem[] }, Record<string, never>];
}

export type CallName = keyof Calls;
/** Calls with one request and one answer that carries a code. */
export type WriteName = 'RegisterInstance' | 'DeregisterInstance' | 'Heartbeat';

/** As in protobuf.ts (protocol notes, section 3). Enums travel as int32. Other fields are skipped. */
export const MESSAGES: MessageTable = {
  StringValue: 'string value 1',
  UInt32Value: 'uint32 value 1',
  BoolValue: 'bool value 1',
  Entry: 'string key 1, string value 2',
  Location: 'StringValue region 1, StringValue zone 2, StringValue campus 3',
  HeartbeatCheck: 'UInt32Value ttl 1',
  HealthCheck: 'int32 type 1, HeartbeatCheck heartbeat 2',
  Instance:
    'StringValue id 1, StringValue service 2, StringValue namespace 3, StringValue host 4, UInt32Value port 5, StringValue protocol 6, ' +
    'StringValue version 7, UInt32Value weight 9, HealthCheck healthCheck 10, BoolValue healthy 11, BoolValue isolate 12, ' +
    'Location location 13, *Entry metadata 14, StringValue revision 18, BoolValue enableHealthCheck 20, StringValue vpcId 21',
  Service: 'StringValue name 1, StringValue namespace 2, StringValue token 12, StringValue revision 15, StringValue id 21',
  DiscoverRequest: 'int32 type 1, Service service 2',
  DiscoverResponse:
    'UInt32Value code 1, StringValue info 2, int32 type 3, Service service 4, *Instance instances 5, *Service services 9, Service aliasFor 21',
  Response: 'UInt32Value code 1, StringValue info 2, Instance instance 6',
  InstanceHeartbeat: 'string instanceId 1',
  HeartbeatsRequest: '*InstanceHeartbeat heartbeats 1',
  HeartbeatsResponse: '',
};

/** Call → service, messages, `stream` for both directions. */
export const METHODS: Readonly<Record<CallName, readonly [service: string, request: string, response: string, stream: boolean]>> =
  {
    RegisterInstance: ['PolarisGRPC', 'Instance', 'Response', false],
    DeregisterInstance: ['PolarisGRPC', 'Instance', 'Response', false],
    Heartbeat: ['PolarisGRPC', 'Instance', 'Response', false],
    Discover: ['PolarisGRPC', 'DiscoverRequest', 'DiscoverResponse', true],
    BatchHeartbeat: ['PolarisHeartbeatGRPC', 'HeartbeatsRequest', 'HeartbeatsResponse', true],
  };

/** Path and codecs of one call. */
export interface Codec<N extends CallName> {
  readonly path: string;
  encodeRequest(request: Calls[N][0]): Buffer;
  decodeRequest(bytes: Buffer): Calls[N][0];
  encodeResponse(response: Calls[N][1]): Buffer;
  decodeResponse(bytes: Buffer): Calls[N][1];
}

const SHAPES = shapesOf(MESSAGES);

/** The codec of a call; decoding throws an Error for what is no such message. */
export function codec<N extends CallName>(name: N): Codec<N> {
  const [service, request, response] = METHODS[name];
  const [asked, answered] = [shapeOf(request), shapeOf(response)];
  return {
    path: `/v1.${service}/${name}`,
    encodeRequest: (message) => encode(asked, message),
    encodeResponse: (message) => encode(answered, message),
    decodeRequest(bytes) {
      const message: unknown = decode(asked, bytes);
      return message as Calls[N][0]; // cast: built from MESSAGES; the interfaces restate that table
    },
    decodeResponse(bytes) {
      const message: unknown = decode(answered, bytes);
      return message as Calls[N][1]; // cast: as above
    },
  };
}

function shapeOf(name: string): Shape {
  const shape = SHAPES.get(name);
  if (shape === undefined) throw new Error(`polaris: no message ${name} in the table`);
  return shape;
}

/** The text of a wrapper: undefined for absent, '' for present and empty. */
export function textOf(wrapper: StringValue | undefined): string | undefined {
  return wrapper === undefined ? undefined : (wrapper.value ?? '');
}
