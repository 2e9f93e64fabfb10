// Owns `weir register` and what it shares with `weir deregister`: an instance of this host, kept by the sidecar.
import { Type } from 'typebox';
import { hostPort } from '../kernel/address.ts';
import { addressArgument, listArgument, numberArgument, pairArguments, serviceArgument } from './arguments.ts';
import { ApiClient, type ApiOptions, apiPath } from './client.ts';
import { type Io, usageFailure } from './io.ts';
import { ageText, line, table } from './table.ts';

/** A registration as the API shows it. */
export const RegistrationAnswer = Type.Object({
  id: Type.String(),
  service: Type.String(),
  host: Type.String(),
  port: Type.Number(),
  targets: Type.Record(
    Type.String(),
    Type.Object({
      state: Type.String(),
      nativeId: Type.Optional(Type.String()),
      leaseMs: Type.Optional(Type.Number()),
      error: Type.Optional(Type.String()),
    }),
  ),
});

export interface RegisterOptions extends ApiOptions {
  readonly id?: string;
  readonly weight?: string;
  readonly meta?: readonly string[];
  readonly to?: string;
  readonly ttl?: string;
  readonly protocol?: string;
  readonly checkHttp?: string;
  readonly checkTcp?: boolean;
  /** A service of grpc.health.v1; true: the server as a whole. */
  readonly checkGrpc?: string | true;
  readonly onUnhealthy?: string;
}

/** Runs the command. */
export async function register(io: Io, service: string, address: string, options: RegisterOptions): Promise<void> {
  const { namespace, name } = serviceArgument(service);
  const { host, port } = addressArgument(address);
  const body = {
    host,
    port,
    ...(options.weight === undefined ? {} : { weight: numberArgument('--weight', options.weight, 0, 65_535) }),
    ...(options.meta === undefined ? {} : { metadata: Object.fromEntries(pairArguments(options.meta)) }),
    ...(options.to === undefined ? {} : { sources: listArgument('--to', options.to) }),
    ...(options.ttl === undefined ? {} : { ttl: options.ttl }),
    ...(options.protocol === undefined ? {} : { protocol: options.protocol }),
    ...healthCheck(options),
    ...(options.onUnhealthy === undefined ? {} : { onUnhealthy: options.onUnhealthy }),
  };
  const id = options.id ?? defaultRegistrationId(host, port);
  const answer = await new ApiClient(options, io).ask(
    RegistrationAnswer,
    'PUT',
    `/v1${apiPath('registrations', namespace, name, id)}`,
    body,
  );
  if (options.json === true) {
    io.out(`${JSON.stringify(answer, null, 2)}\n`);
    return;
  }
  io.out(line(`${answer.service} ${hostPort(answer.host, answer.port)} is kept as ${answer.id}`));
  const rows = Object.entries(answer.targets).map(([source, one]) => [
    source,
    one.state,
    one.nativeId ?? '',
    ageText(one.leaseMs),
    one.error ?? '',
  ]);
  io.out(
    table(
      [{ head: 'SOURCE' }, { head: 'STATE' }, { head: 'NATIVE ID' }, { head: 'LEASE', right: true }, { head: 'ERROR' }],
      rows,
    ),
  );
  const open = Object.entries(answer.targets).filter(([, { state }]) => state !== 'live');
  if (open.length > 0) io.out(line(`not there yet: ${open.map(([source]) => source).join(', ')}; the sidecar keeps trying`));
}

function healthCheck(options: RegisterOptions): { readonly healthCheck?: object } {
  const asked = [
    ...(options.checkHttp === undefined ? [] : [{ http: { path: options.checkHttp } }]),
    ...(options.checkTcp === true ? [{ tcp: {} }] : []),
    ...(options.checkGrpc === undefined ? [] : [{ grpc: { service: options.checkGrpc === true ? '' : options.checkGrpc } }]),
  ];
  if (asked.length > 1) throw usageFailure('expected one of --check-http, --check-tcp and --check-grpc');
  if (asked.length === 0 && options.onUnhealthy !== undefined) throw usageFailure('--on-unhealthy: expected a check beside it');
  const [healthCheck] = asked;
  return healthCheck === undefined ? {} : { healthCheck };
}

/** `10.0.0.5-8000`: ids hold no colons. */
export function defaultRegistrationId(host: string, port: number): string {
  return `${host}-${port}`.replaceAll(':', '_').slice(0, 64);
}
