// Owns the body of PUT /v1/registrations/…: the schema and the way to a registration, with the defaults of the configuration's entries.
// Called by registrations.ts; pure.
import { type Static, Type } from 'typebox';
import { canonicalHost } from '../kernel/address.ts';
import { decoder, type Fault } from '../kernel/decode.ts';
import { NORMAL_WEIGHT } from '../model/instance.ts';
import { boundedMetadata } from '../model/metadata.ts';
import type { ServiceKey } from '../model/service.ts';
import { check } from '../settings/check.ts';
import { pathText } from '../settings/config-fault.ts';
import { duration, oneOf, text, whole } from '../settings/marks.ts';
import { DEFAULT_REGISTRATION_TTL } from '../settings/schema.ts';
import { healthCheckSchema } from '../settings/schema-services.ts';
import { healthCheckPolicy, ms } from '../settings/services.ts';
import type { RegistrationSettings } from '../settings/settings.ts';
import { badRequest, orBadRequest } from './decode-request.ts';

/** contract.md "Shapes". `weir-` keys of metadata are our own words. */
export const RegistrationBody = Type.Object(
  {
    host: text('Address of this host as others reach it.', 'an IP address or host name'),
    port: whole('Port.', 1, 65_535),
    weight: Type.Optional(whole('100 is normal.', 0, 65_535, NORMAL_WEIGHT)),
    metadata: Type.Optional(
      Type.Unsafe<Readonly<Record<string, string>>>({
        type: 'object',
        additionalProperties: { type: 'string', maxLength: 1_024, 'x-expected': 'text of at most 1024 characters' },
        maxProperties: 64,
        description: 'Labels; at most 64.',
      }),
    ),
    protocol: Type.Optional(text('http, grpc, …', 'the name of a protocol')),
    version: Type.Optional(text('Version of the application.', 'text')),
    sources: Type.Optional(
      Type.Array(text('Id of a source.', 'the id of a source'), {
        minItems: 1,
        maxItems: 256,
        description: 'Default: those marked `register: true`, or the only one that can register.',
      }),
    ),
    ttl: Type.Optional(
      duration('The registry drops it after this long without renewal.', { min: 5_000, max: 60_000 }, DEFAULT_REGISTRATION_TTL),
    ),
    healthCheck: Type.Optional(healthCheckSchema),
    onUnhealthy: Type.Optional(oneOf('What a failing check does.', ['unhealthy', 'remove'], 'unhealthy')),
  },
  { additionalProperties: false },
);

type RegistrationBody = Static<typeof RegistrationBody>;

const decode = decoder(RegistrationBody);

/** A decoded registration. Throws BAD_REQUEST with every fault. */
export function registrationOf(service: ServiceKey, id: string, body: unknown): RegistrationSettings {
  // check() knows bounds of durations and says better words; the compiled decoder has the last word on types.
  const faults = check(RegistrationBody, body ?? {}).map(({ path, expected, got }) => ({
    path: placed(pathText(path)),
    expected,
    got,
  }));
  if (faults.length > 0) throw badRequest(faults);
  const entry = orBadRequest('body', decode(body ?? {}));
  const host = canonicalHost(entry.host);
  const metadata = boundedMetadata(Object.entries(entry.metadata ?? {}));
  const more = [...hostFaults(entry, host), ...metadataFaults(entry, metadata.cut), ...checkFaults(entry)];
  if (host === null || more.length > 0) throw badRequest(more);
  return {
    service,
    id,
    host,
    port: entry.port,
    weight: entry.weight ?? NORMAL_WEIGHT,
    metadata: metadata.metadata,
    ...(entry.protocol === undefined ? {} : { protocol: entry.protocol }),
    ...(entry.version === undefined ? {} : { version: entry.version }),
    sources: entry.sources ?? null,
    ttl: ms(entry.ttl, DEFAULT_REGISTRATION_TTL),
    healthCheck: entry.healthCheck === undefined ? null : healthCheckPolicy(entry.healthCheck),
    onUnhealthy: entry.onUnhealthy ?? 'unhealthy',
  };
}

function placed(path: string): string {
  return path === '' ? 'body' : `body.${path}`;
}

function hostFaults(entry: RegistrationBody, host: string | null): Fault[] {
  return host === null
    ? [{ path: 'body.host', expected: 'an IP address or host name', got: JSON.stringify(entry.host.slice(0, 60)) }]
    : [];
}

function metadataFaults(entry: RegistrationBody, cut: number): Fault[] {
  const ours = Object.keys(entry.metadata ?? {}).filter((key) => key.startsWith('weir-'));
  if (ours.length > 0)
    return [{ path: 'body.metadata', expected: 'no key that starts with weir-', got: JSON.stringify(ours[0]?.slice(0, 60)) }];
  const words = 'at most 64 keys of 128 bytes with values of 1 KiB, no control characters';
  return cut > 0 ? [{ path: 'body.metadata', expected: words, got: `${cut} that are not` }] : [];
}

function checkFaults(entry: RegistrationBody): Fault[] {
  if (entry.healthCheck === undefined) return [];
  const kinds = [entry.healthCheck.http, entry.healthCheck.tcp, entry.healthCheck.grpc].filter(
    (kind) => kind !== undefined,
  ).length;
  return kinds === 1
    ? []
    : [
        {
          path: 'body.healthCheck',
          expected: 'exactly one of http, tcp, grpc',
          got: kinds === 0 ? 'none of them' : `${kinds} of them`,
        },
      ];
}
