// Owns the schemas that several calls share: what they answer (for /openapi.json) and parameters of paths. One source for both.
// Called by the route files; shapes are contract.md's, fields may be added, these keep their names.
import { type TSchema, Type } from 'typebox';

export const ErrorSchema = Type.Object({
  error: Type.Object({ code: Type.String(), message: Type.String(), details: Type.Optional(Type.Unknown()) }),
});

/** Answers of a call: its own 200, and the one shape of every error. */
export function answers(ok: TSchema): Record<string, TSchema> {
  return { 200: ok, '4xx': ErrorSchema, '5xx': ErrorSchema };
}

export const ServiceParams = Type.Object({
  ns: Type.String({ description: 'Namespace; percent-encoded.' }),
  name: Type.String({ description: 'Service name; percent-encoded, a slash in it is %2F.' }),
});

const Nullable = (schema: TSchema): TSchema => Type.Union([schema, Type.Null()]);
const Age = Nullable(Type.Number({ description: 'Milliseconds; null: never.' }));
const Texts = Type.Array(Type.String());
const SourceStateText = Type.Union(['connecting', 'live', 'stale', 'failed'].map((word) => Type.Literal(word)));
const VerdictText = Type.Union(['healthy', 'unhealthy', 'unknown', 'isolated'].map((word) => Type.Literal(word)));

export const SourceSchema = Type.Object({
  id: Type.String(),
  kind: Type.String(),
  state: SourceStateText,
  ageMs: Age,
  contactAgeMs: Age,
  cause: Type.Optional(Type.String()),
  message: Type.Optional(Type.String()),
  services: Type.Integer(),
  instances: Type.Integer(),
  held: Type.Integer(),
  rejected: Type.Integer(),
  recentRejected: Type.Optional(
    Type.Array(
      Type.Object({
        service: Type.String({ description: "The source's own words where the name has no place here." }),
        nativeId: Type.String({ description: 'Empty where the name itself is refused.' }),
        reason: Type.String(),
        at: Type.Number(),
      }),
      { description: 'The newest 20, oldest first.' },
    ),
  ),
  lagMs: Age,
  capabilities: Nullable(
    Type.Object({
      watch: Type.String(),
      list: Type.Boolean(),
      register: Type.Boolean(),
      heartbeat: Type.String(),
      reads: Texts,
      keeps: Texts,
      tellsDeregistration: Type.Boolean(),
      tellsAbsent: Type.Boolean(),
    }),
  ),
  counts: Type.Record(Type.String(), Type.Number()),
});

export const ServiceSummarySchema = Type.Object({
  namespace: Type.String(),
  name: Type.String(),
  instances: Type.Integer(),
  healthy: Type.Integer({ description: 'Instances whose verdict is healthy.' }),
  routable: Type.Integer({ description: 'Instances that may be picked as far as their verdict goes (healthy or unknown).' }),
  sources: Texts,
  revision: Type.Integer(),
  stale: Type.Boolean(),
  ageMs: Age,
});

const ProvenanceSchema = Type.Object({
  source: Type.String(),
  nativeId: Type.String(),
  weight: Type.Integer(),
  health: Type.String(),
  isolated: Type.Boolean(),
  copyOf: Type.Optional(Type.String()),
  held: Type.Boolean(),
});

const InstanceSchema = Type.Object({
  id: Type.String(),
  host: Type.String(),
  port: Type.Integer(),
  weight: Type.Integer(),
  verdict: VerdictText,
  held: Type.Boolean(),
  suspect: Type.Boolean(),
  ejected: Type.Boolean(),
  registryHealth: Type.String(),
  isolated: Type.Boolean(),
  network: Type.Optional(Type.String()),
  transport: Type.Optional(Type.String()),
  protocol: Type.Optional(Type.String()),
  version: Type.Optional(Type.String()),
  locality: Type.Optional(Type.Record(Type.String(), Type.String())),
  metadata: Type.Record(Type.String(), Type.String()),
  provenance: Type.Array(ProvenanceSchema),
});

export const ConflictSchema = Type.Object({
  instance: Type.String({ description: 'host:port, or empty for the service as a whole.' }),
  field: Type.String(),
  values: Type.Array(Type.Object({ source: Type.String(), value: Type.String() })),
  chosen: Type.String(),
  rule: Type.String(),
  since: Type.Number(),
});

export const SourceStateSchema = Type.Object({
  state: SourceStateText,
  presence: Type.String(),
  ageMs: Age,
  contactAgeMs: Age,
  held: Type.Integer(),
  instances: Type.Integer(),
  rejected: Type.Integer(),
  sourceRevision: Type.String(),
  epoch: Type.String(),
  cause: Type.Optional(Type.String()),
  message: Type.Optional(Type.String()),
});

export const ServiceSchema = Type.Object({
  namespace: Type.String(),
  name: Type.String(),
  revision: Type.Integer(),
  stale: Type.Boolean(),
  ageMs: Age,
  sources: Type.Record(Type.String(), SourceStateSchema),
  instances: Type.Array(InstanceSchema),
  conflicts: Type.Array(ConflictSchema),
});

export const HoldSchema = Type.Object({
  service: Type.String(),
  source: Type.String(),
  kind: Type.String(),
  addresses: Texts,
  sinceMs: Type.Number(),
  confirmsInMs: Age,
  missing: Type.String(),
});

export const RegistrationSchema = Type.Object({
  id: Type.String(),
  service: Type.String({ description: 'namespace/name' }),
  host: Type.String(),
  port: Type.Integer(),
  targets: Type.Record(
    Type.String(),
    Type.Object({
      state: Type.Union(['pending', 'live', 'lost', 'refused'].map((word) => Type.Literal(word))),
      nativeId: Type.Optional(Type.String()),
      leaseMs: Type.Optional(Type.Number()),
      error: Type.Optional(Type.String()),
    }),
  ),
});
