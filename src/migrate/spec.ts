// Owns the order of a migration as people write it (API body, migration.yaml): its schema, its defaults, and the way to a MigrationSpec.
// Called by api and cli; pure. Must never accept a key that it does not know.
import { type Static, Type } from 'typebox';
import { decoder, type Fault } from '../kernel/decode.ts';
import { boundedMetadata } from '../model/metadata.ts';
import { nameFault } from '../model/service.ts';
import { check } from '../settings/check.ts';
import { pathText } from '../settings/config-fault.ts';
import { duration, oneOf, text, whole } from '../settings/marks.ts';
import { patternFault } from '../settings/pattern.ts';
import { parseDuration } from '../settings/units.ts';
import type { MigrationSpec, SpecMapping } from './migration.ts';

const STRICT = { additionalProperties: false } as const;
const DAY = 86_400_000;

/** migration.md "The object" and W1, W6. Shares in per cent, durations ms. */
export const SPEC_DEFAULTS = {
  soak: 600_000,
  callsPerSecond: 50,
  deletePercentPerMinute: 15,
  grace: 60_000,
} as const;

const id = (description: string) =>
  text(description, '1..64 characters of A-Z a-z 0-9 . _ -', { pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$' });

/** Body of POST /v1/migrations and content of a migration file. */
export const SpecBody = Type.Object(
  {
    id: id('Name of the migration.'),
    from: id('Source that the services live in now.'),
    to: id('Source that they move to.'),
    services: Type.Array(text('A pattern over namespace/name.', 'a pattern such as game/*'), {
      minItems: 1,
      maxItems: 1_000,
      description: 'Which services move: patterns over our names.',
    }),
    direction: Type.Optional(
      oneOf('twoWay: both sides copy to each other, for long coexistence.', ['oneWay', 'twoWay'], 'oneWay'),
    ),
    liveness: Type.Optional(
      oneOf(
        'What keeps a copy alive: our beats, nothing (persistent), or our connection.',
        ['beat', 'persistent', 'connection'],
        'beat',
      ),
    ),
    sticky: Type.Optional(
      Type.Object(
        {
          header: text('Header whose value keeps a caller on one side.', 'the name of a header', {
            pattern: "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$",
          }),
        },
        { ...STRICT, description: 'During shift, requests with an equal value of the header stay on one side.' },
      ),
    ),
    mapping: Type.Optional(
      Type.Object(
        {
          namespace: Type.Optional(text('Namespace in the target: a template with {namespace} and {name}.', 'a template')),
          name: Type.Optional(text('Name in the target: a template with {namespace} and {name}.', 'a template')),
          metadata: Type.Optional(
            Type.Object(
              {
                rename: Type.Optional(
                  Type.Unsafe<Readonly<Record<string, string>>>({
                    type: 'object',
                    additionalProperties: { type: 'string', maxLength: 128, 'x-expected': 'the new key' },
                    maxProperties: 64,
                    description: 'Keys that get another name.',
                  }),
                ),
                drop: Type.Optional(
                  Type.Array(text('A key.', 'a key of metadata'), { maxItems: 64, description: 'Keys that are not copied.' }),
                ),
                set: Type.Optional(
                  Type.Unsafe<Readonly<Record<string, string>>>({
                    type: 'object',
                    additionalProperties: { type: 'string', maxLength: 1_024, 'x-expected': 'text of at most 1024 characters' },
                    maxProperties: 64,
                    description: 'Keys that every copy gets.',
                  }),
                ),
              },
              { ...STRICT, description: 'How metadata changes on the way.' },
            ),
          ),
        },
        { ...STRICT, description: 'How names and metadata change on the way to the target.' },
      ),
    ),
    gates: Type.Optional(
      Type.Object(
        {
          soak: Type.Optional(
            duration(
              'Verify must have been ok for this long before a shift.',
              { min: 0, max: 30 * DAY, zero: true },
              SPEC_DEFAULTS.soak,
            ),
          ),
          maxErrorRate: Type.Optional(
            Type.Number({
              minimum: 0,
              maximum: 1,
              'x-expected': 'a number from 0 to 1',
              description: 'Share of failed requests of the new side that stops the shift.',
            }),
          ),
          maxP99Ratio: Type.Optional(
            Type.Number({
              minimum: 1,
              maximum: 1_000,
              'x-expected': 'a number of at least 1',
              description: 'p99 of the new side over p99 of the old one that stops the shift.',
            }),
          ),
          onBreach: Type.Optional(oneOf('What a broken limit does.', ['stop', 'rollback'], 'stop')),
        },
        { ...STRICT, description: 'What must hold before and during a shift.' },
      ),
    ),
    limits: Type.Optional(
      Type.Object(
        {
          callsPerSecond: Type.Optional(
            whole('Calls a second to one target; a batch is one.', 1, 10_000, SPEC_DEFAULTS.callsPerSecond),
          ),
          deletePercentPerMinute: Type.Optional(
            whole('Share of a service’s copies that may be removed in a minute.', 1, 100, SPEC_DEFAULTS.deletePercentPerMinute),
          ),
          grace: Type.Optional(
            duration(
              'No removal before this long after the first read of both sides.',
              { min: 0, max: DAY, zero: true },
              SPEC_DEFAULTS.grace,
            ),
          ),
        },
        { ...STRICT, description: 'How fast the mirror may write.' },
      ),
    ),
  },
  STRICT,
);

type SpecBody = Static<typeof SpecBody>;

const decode = decoder(SpecBody);

export type DecodedSpec =
  | { readonly ok: true; readonly spec: MigrationSpec }
  | { readonly ok: false; readonly faults: readonly Fault[] };

/** The order behind a value from outside, with every default; or all of its faults, each with its path. */
export function decodeSpec(value: unknown): DecodedSpec {
  const faults: Fault[] = check(SpecBody, value).map(({ path, expected, got }) => ({ path: pathText(path), expected, got }));
  const decoded = decode(value);
  if (!decoded.ok) return { ok: false, faults: faults.length > 0 ? faults : decoded.faults };
  const more = [...faults, ...semanticFaults(decoded.value)];
  return more.length > 0 ? { ok: false, faults: more } : { ok: true, spec: specOf(decoded.value) };
}

function specOf(body: SpecBody): MigrationSpec {
  const { gates = {}, limits = {} } = body;
  return {
    id: body.id,
    from: body.from,
    to: body.to,
    services: body.services,
    direction: body.direction ?? 'oneWay',
    liveness: body.liveness ?? 'beat',
    sticky: body.sticky === undefined ? null : { header: body.sticky.header.toLowerCase() },
    mapping: mappingOf(body),
    gates: {
      soak: milliseconds(gates.soak, SPEC_DEFAULTS.soak),
      maxErrorRate: gates.maxErrorRate ?? null,
      maxP99Ratio: gates.maxP99Ratio ?? null,
      onBreach: gates.onBreach ?? 'stop',
    },
    limits: {
      callsPerSecond: limits.callsPerSecond ?? SPEC_DEFAULTS.callsPerSecond,
      deletePercentPerMinute: limits.deletePercentPerMinute ?? SPEC_DEFAULTS.deletePercentPerMinute,
      grace: milliseconds(limits.grace, SPEC_DEFAULTS.grace),
    },
  };
}

function mappingOf({ mapping = {} }: SpecBody): SpecMapping {
  const { metadata = {} } = mapping;
  return {
    namespace: mapping.namespace ?? null,
    name: mapping.name ?? null,
    metadata: {
      rename: new Map(Object.entries(metadata.rename ?? {})),
      drop: new Set(metadata.drop ?? []),
      set: new Map(Object.entries(metadata.set ?? {})),
    },
  };
}

function milliseconds(value: string | number | undefined, fallback: number): number {
  return value === undefined ? fallback : (parseDuration(value) ?? fallback);
}

/** What the schema cannot say. */
function semanticFaults(body: SpecBody): Fault[] {
  const faults: Fault[] = [];
  if (body.from === body.to) faults.push({ path: 'to', expected: 'another source than from', got: JSON.stringify(body.to) });
  for (const [n, pattern] of body.services.entries()) {
    const fault = patternFault(pattern);
    if (fault !== null) faults.push({ path: `services[${n}]`, expected: fault, got: JSON.stringify(pattern.slice(0, 80)) });
  }
  for (const part of ['namespace', 'name'] as const) {
    const fault = templateFault(body.mapping?.[part]);
    if (fault !== null) faults.push({ path: `mapping.${part}`, ...fault });
  }
  return [...faults, ...metadataFaults(body)];
}

function templateFault(template: string | undefined): Pick<Fault, 'expected' | 'got'> | null {
  if (template === undefined) return null;
  const got = JSON.stringify(template.slice(0, 80));
  const plain = template.replaceAll('{namespace}', 'x').replaceAll('{name}', 'x');
  if (/[{}]/.test(plain)) return { expected: 'text with no other holes than {namespace} and {name}', got };
  const fault = nameFault(plain);
  return fault === null ? null : { expected: 'a name', got: `${got}, which ${fault}` };
}

function metadataFaults({ mapping }: SpecBody): Fault[] {
  const { rename = {}, set = {}, drop = [] } = mapping?.metadata ?? {};
  const keys = [...Object.entries(rename).flat(), ...Object.keys(set), ...drop];
  const ours = keys.find((key) => key.startsWith('weir-'));
  if (ours !== undefined)
    return [{ path: 'mapping.metadata', expected: 'no key that starts with weir-', got: JSON.stringify(ours.slice(0, 80)) }];
  const words = 'keys of 1..128 bytes, without control characters';
  const bad = boundedMetadata([...Object.values(rename).map((key): [string, string] => [key, '']), ...Object.entries(set)]).cut;
  return bad === 0 ? [] : [{ path: 'mapping.metadata', expected: words, got: `${bad} that are not` }];
}

/** The order as people write it: the inverse of {@link decodeSpec}, for answers and `weir migrate plan`. */
export function specJson(spec: MigrationSpec): Record<string, unknown> {
  const { rename, drop, set } = spec.mapping.metadata;
  return {
    id: spec.id,
    from: spec.from,
    to: spec.to,
    services: spec.services,
    direction: spec.direction,
    liveness: spec.liveness,
    ...(spec.sticky === null ? {} : { sticky: spec.sticky }),
    mapping: {
      ...(spec.mapping.namespace === null ? {} : { namespace: spec.mapping.namespace }),
      ...(spec.mapping.name === null ? {} : { name: spec.mapping.name }),
      metadata: { rename: Object.fromEntries(rename), drop: [...drop], set: Object.fromEntries(set) },
    },
    gates: {
      soak: `${spec.gates.soak}ms`,
      ...(spec.gates.maxErrorRate === null ? {} : { maxErrorRate: spec.gates.maxErrorRate }),
      ...(spec.gates.maxP99Ratio === null ? {} : { maxP99Ratio: spec.gates.maxP99Ratio }),
      onBreach: spec.gates.onBreach,
    },
    limits: { ...spec.limits, grace: `${spec.limits.grace}ms` },
  };
}
