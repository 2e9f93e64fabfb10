// Owns /v1/overrides: an operator takes one address out of picking on this sidecar, for a while.
import { Type } from 'typebox';
import { hostPort, splitHostPort } from '../kernel/address.ts';
import { WeirError } from '../kernel/errors.ts';
import { type ServiceId, serviceId } from '../model/service.ts';
import { DURATION_PATTERN, parseDuration } from '../settings/units.ts';
import type { ApiContext, App } from './context.ts';
import { badRequest, bodyDecoder, pathService, pathText } from './decode-request.ts';
import type { Override } from './ports.ts';
import { answers } from './schemas.ts';

const DEFAULT_FOR_MS = 600_000;
/** An override that nobody remembers must end. [own number] */
const MAX_FOR_MS = 86_400_000;

const OverrideBody = Type.Object(
  {
    isolated: Type.Boolean({ description: 'true: take it out of picking; false: the same as DELETE.' }),
    for: Type.Optional(Type.String({ pattern: DURATION_PATTERN, description: 'At most 24h; default 10m.' })),
  },
  { additionalProperties: false },
);
const OverrideSchema = Type.Object({
  service: Type.String(),
  address: Type.String({ description: 'host:port' }),
  isolated: Type.Boolean(),
  until: Type.Optional(Type.String({ description: 'ISO time at which it ends by itself.' })),
});
const Params = Type.Object({
  ns: Type.String(),
  name: Type.String(),
  address: Type.String({ description: 'host:port, IPv6 in brackets' }),
});
const PATH = '/v1/overrides/:ns/:name/:address';

/** Registers GET, PUT and DELETE. */
export function routeOverrides(app: App, context: ApiContext): void {
  app.get(
    '/v1/overrides',
    { schema: { summary: 'Every override', response: answers(Type.Object({ overrides: Type.Array(OverrideSchema) })) } },
    async () => ({ overrides: context.ports.overrides.list().map(overrideAnswer) }),
  );
  const decode = bodyDecoder(OverrideBody);
  app.put(
    PATH,
    { schema: { summary: 'Isolate an address', params: Params, body: OverrideBody, response: answers(OverrideSchema) } },
    async (request) => {
      const { isolated, for: text } = decode(request.body);
      const target = overrideTarget(request.params);
      return isolated ? isolate(context, target, forMs(text)) : clear(context, target);
    },
  );
  app.delete(
    PATH,
    { schema: { summary: 'End an override', params: Params, response: answers(OverrideSchema) } },
    async (request) => clear(context, overrideTarget(request.params)),
  );
}

interface Target {
  readonly service: ServiceId;
  readonly host: string;
  readonly port: number;
}

function overrideTarget(params: unknown): Target {
  const address = splitHostPort(pathText(params, 'address'));
  if (address === null)
    throw badRequest([{ path: 'path.address', expected: 'host:port (IPv6 in brackets)', got: 'another text' }]);
  return { service: serviceId(pathService(params)), ...address };
}

function forMs(text: string | undefined): number {
  const ms = text === undefined ? DEFAULT_FOR_MS : parseDuration(text);
  if (ms !== null && ms > 0 && ms <= MAX_FOR_MS) return ms;
  throw badRequest([{ path: 'body.for', expected: 'a duration above 0 and at most 24h', got: JSON.stringify(text) }]);
}

async function isolate({ ports, audit }: ApiContext, target: Target, ms: number): Promise<object> {
  const override = await ports.overrides.isolate(target.service, target.host, target.port, ms);
  audit.write({ what: 'isolate', service: target.service, instance: hostPort(target.host, target.port), result: 'ok' });
  return overrideAnswer(override);
}

async function clear({ ports, audit }: ApiContext, { service, host, port }: Target): Promise<object> {
  const address = hostPort(host, port);
  if (!(await ports.overrides.clear(service, host, port))) {
    throw new WeirError('OVERRIDE_NOT_FOUND', 'there is no override for this address', { details: { service, address } });
  }
  audit.write({ what: 'unisolate', service, instance: address, result: 'ok' });
  return { service, address, isolated: false };
}

function overrideAnswer({ service, host, port, until }: Override): object {
  return { service, address: hostPort(host, port), isolated: true, until: new Date(until).toISOString() };
}
