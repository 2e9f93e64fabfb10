// Owns GET /v1/services/{ns}/{name}/explain: candidate set → filters → health → ejections → panic → weights, with every reason.
import { Type } from 'typebox';
import { hostPort } from '../kernel/address.ts';
import { WeirError } from '../kernel/errors.ts';
import { type ServiceId, serviceId } from '../model/service.ts';
import type { ApiContext, App } from './context.ts';
import { pathService } from './decode-request.ts';
import { explainInstance } from './explain-steps.ts';
import type { Published } from './ports.ts';
import { answers, ConflictSchema, HoldSchema, ServiceParams, SourceStateSchema } from './schemas.ts';
import { endpointsByAddress, sourceStateAnswer, staleness } from './service-answer.ts';

const ExplainSchema = Type.Object({
  namespace: Type.String(),
  name: Type.String(),
  revision: Type.Integer(),
  stale: Type.Boolean(),
  merge: Type.Object({ policy: Type.Unknown(), from: Type.String(), migration: Type.Optional(Type.String()) }),
  sources: Type.Record(Type.String(), SourceStateSchema),
  conflicts: Type.Array(ConflictSchema),
  holds: Type.Array(HoldSchema),
  rejected: Type.Array(Type.Unknown()),
  panic: Type.Boolean(),
  counts: Type.Record(Type.String(), Type.Integer()),
  cluster: Type.Unknown({ description: 'null: no request has used the service.' }),
  instances: Type.Array(
    Type.Unknown({ description: 'instance, in, share, reason, steps, weight, verdict, provenance, conflicts, holds' }),
  ),
});

/** Registers the call. */
export function routeExplain(app: App, context: ApiContext): void {
  app.get(
    '/v1/services/:ns/:name/explain',
    { schema: { summary: 'Why each instance is in or out', params: ServiceParams, response: answers(ExplainSchema) } },
    async (request) => {
      const service = serviceId(pathService(request.params));
      context.ports.catalog.use(service);
      const published = context.ports.catalog.read(service);
      if (published === null) throw unknown(context, service);
      return explain(context, service, published);
    },
  );
}

function unknown({ ports }: ApiContext, service: ServiceId): WeirError {
  return ports.catalog.notReady()
    ? new WeirError('CATALOG_NOT_READY', 'some source has given no first answer yet', { details: { service } })
    : new WeirError('SERVICE_NOT_FOUND', 'no source knows this service', { details: { service } });
}

async function explain({ ports }: ApiContext, service: ServiceId, published: Published): Promise<object> {
  const { view, verdicts, reasons, index } = published;
  const cluster = await ports.dataPlane.state(service);
  const endpoints = endpointsByAddress(cluster);
  const states = ports.catalog.states(service);
  const holds = ports.holds.holds(service);
  const instances = view.instances.map((instance, at) =>
    explainInstance({
      instance,
      verdict: verdicts[at] ?? 'unknown',
      verdictReason: reasons[at] ?? null,
      cluster,
      endpoint: endpoints.get(hostPort(instance.host, instance.port)),
      holds,
      conflicts: view.conflicts,
    }),
  );
  return {
    namespace: view.key.namespace,
    name: view.key.name,
    revision: index,
    ...staleness(states),
    merge: ports.explain.merge(service),
    sources: Object.fromEntries(states.map((state) => [state.source, sourceStateAnswer(state)])),
    conflicts: view.conflicts,
    holds,
    rejected: ports.holds.rejected(service),
    panic: cluster?.panic ?? false,
    counts: countsOf(instances),
    cluster:
      cluster === null
        ? null
        : {
            revision: cluster.revision,
            activeRequests: cluster.activeRequests,
            lastPickAgeMs: cluster.lastPickAgeMs,
            endpoints: cluster.endpoints,
          },
    instances,
  };
}

/** How many candidates there are, how many are in, and at which step the others stopped. */
function countsOf(
  instances: readonly { readonly in: boolean; readonly steps: readonly { step: string; passed: boolean }[] }[],
): object {
  const counts = new Map<string, number>([
    ['candidates', instances.length],
    ['in', 0],
  ]);
  for (const one of instances) {
    const stop = one.in ? 'in' : (one.steps.find((step) => !step.passed)?.step ?? 'pick');
    counts.set(stop, (counts.get(stop) ?? 0) + 1);
  }
  return Object.fromEntries(counts);
}
