// Owns the gRPC check: grpc.health.v1.Health/Check, SERVING passes. One channel a target; the packages are loaded at the first check.
// Called by the prober through the Probe port. The channel never resolves names by itself and never uses a proxy from the environment.
import type { ChannelCredentials, Client, ClientUnaryCall, ServiceError } from '@grpc/grpc-js';
import { hostPort } from '../kernel/address.ts';
import { isRecord } from '../kernel/decode.ts';
import { dialAddress, type Resolve, systemResolve } from './dial-address.ts';
import { failed, PASS, type Probe, type ProbeResult, type ProbeRun, type ProbeTarget, reasonOf, targetKey } from './probe.ts';

/** grpc/health/v1/health.proto, as far as Check needs it. */
const HEALTH_PROTO = {
  nested: {
    grpc: {
      nested: {
        health: {
          nested: {
            v1: {
              nested: {
                HealthCheckRequest: { fields: { service: { type: 'string', id: 1 } } },
                HealthCheckResponse: {
                  fields: { status: { type: 'ServingStatus', id: 1 } },
                  nested: { ServingStatus: { values: { UNKNOWN: 0, SERVING: 1, NOT_SERVING: 2, SERVICE_UNKNOWN: 3 } } },
                },
                Health: {
                  methods: { Check: { requestType: 'HealthCheckRequest', responseType: 'HealthCheckResponse', comment: '' } },
                },
              },
            },
          },
        },
      },
    },
  },
};

const CHECK_PATH = '/grpc.health.v1.Health/Check';
const MAX_ANSWER_BYTES = 65_536;

/** What the packages give us: how to make a client, and the two codecs of Check. */
interface Loaded {
  readonly open: (address: string, authority: string) => Client;
  readonly serialize: (value: object) => Buffer;
  readonly deserialize: (bytes: Buffer) => unknown;
}

export class GrpcProbe implements Probe {
  readonly #resolve: Resolve;
  readonly #clients = new Map<string, { readonly client: Client; readonly address: string }>();
  #loaded: Promise<Loaded> | null = null;

  constructor(resolve: Resolve = systemResolve) {
    this.#resolve = resolve;
  }

  async run(target: ProbeTarget, how: ProbeRun): Promise<ProbeResult> {
    try {
      this.#loaded ??= load();
      const loaded = await this.#loaded;
      const address = await dialAddress(target.host, target.port, how.dial, this.#resolve, how.signal);
      const status = await check(this.#clientFor(target, address, loaded), loaded, target.grpcService, how.signal);
      const result = status === 'SERVING' ? PASS : failed(`gRPC status ${status}`);
      if (!how.keep) this.drop(target);
      return result;
    } catch (thrown) {
      // A fresh channel next time: the old one may sit in its own back-off.
      this.drop(target);
      return failed(how.signal.aborted ? reasonOf(how.signal.reason) : grpcReason(thrown));
    }
  }

  drop(target: ProbeTarget): void {
    const key = targetKey(target);
    this.#clients.get(key)?.client.close();
    this.#clients.delete(key);
  }

  async close(): Promise<void> {
    for (const { client } of this.#clients.values()) client.close();
    this.#clients.clear();
  }

  /** A name that resolves elsewhere now gets a new channel: the channel is pinned to the address that was judged. */
  #clientFor(target: ProbeTarget, address: string, loaded: Loaded): Client {
    const key = targetKey(target);
    const found = this.#clients.get(key);
    if (found !== undefined && found.address === address) return found.client;
    found?.client.close();
    const scheme = address.includes(':') ? 'ipv6' : 'ipv4';
    const client = loaded.open(`${scheme}:${hostPort(address, target.port)}`, hostPort(target.host, target.port));
    this.#clients.set(key, { client, address });
    return client;
  }
}

async function load(): Promise<Loaded> {
  const [grpc, { fromJSON }] = await Promise.all([import('@grpc/grpc-js'), import('@grpc/proto-loader')]);
  const service = fromJSON(HEALTH_PROTO, { enums: String, defaults: true })['grpc.health.v1.Health'];
  const method = service !== undefined && 'Check' in service ? service['Check'] : undefined;
  if (!isMethod(method)) throw new Error('health.proto did not load');
  const insecure: ChannelCredentials = grpc.credentials.createInsecure();
  return {
    serialize: method.requestSerialize,
    deserialize: method.responseDeserialize,
    open: (address, authority) =>
      new grpc.Client(address, insecure, {
        'grpc.default_authority': authority,
        'grpc.enable_http_proxy': 0,
        'grpc.enable_retries': 0,
        'grpc.service_config_disable_resolution': 1,
        'grpc.use_local_subchannel_pool': 1,
        'grpc.max_receive_message_length': MAX_ANSWER_BYTES,
        'grpc.max_metadata_size': 16_384,
      }),
  };
}

interface Method {
  readonly requestSerialize: (value: object) => Buffer;
  readonly responseDeserialize: (bytes: Buffer) => unknown;
}

function isMethod(value: unknown): value is Method {
  return isRecord(value) && typeof value['requestSerialize'] === 'function' && typeof value['responseDeserialize'] === 'function';
}

/** The serving status by name. Rejects with the call's error or the signal's reason. */
function check(client: Client, loaded: Loaded, service: string, signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(signal.reason);
      return;
    }
    const onAnswer = (error: ServiceError | null, value?: unknown): void => {
      signal.removeEventListener('abort', onAbort);
      if (error !== null) reject(error);
      else resolve(isRecord(value) && typeof value['status'] === 'string' ? value['status'] : 'UNKNOWN');
    };
    const call: ClientUnaryCall = client.makeUnaryRequest(
      CHECK_PATH,
      loaded.serialize,
      loaded.deserialize,
      { service },
      onAnswer,
    );
    const onAbort = (): void => call.cancel();
    signal.addEventListener('abort', onAbort, { once: true });
  });
}

const STATUS_NAMES = ['OK', 'CANCELLED', 'UNKNOWN', 'INVALID_ARGUMENT', 'DEADLINE_EXCEEDED', 'NOT_FOUND'] as const;

function grpcReason(thrown: unknown): string {
  if (!(thrown instanceof Error) || !('details' in thrown) || typeof thrown.details !== 'string') return reasonOf(thrown);
  const code = 'code' in thrown && typeof thrown.code === 'number' ? thrown.code : 2;
  return `gRPC ${STATUS_NAMES[code] ?? code}: ${thrown.details.slice(0, 100)}`;
}
