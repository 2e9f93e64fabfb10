// Owns GET /v1/prometheus/targets: Prometheus `http_sd`. One group per instance, labels `__meta_weir_…`.
import { Readable } from 'node:stream';
import { type Static, Type } from 'typebox';
import { hostPort } from '../kernel/address.ts';
import type { ServiceId } from '../model/service.ts';
import type { ApiContext, App } from './context.ts';
import { queryDecoder } from './decode-request.ts';
import { serviceFilter } from './pattern.ts';
import type { CatalogReader, Published } from './ports.ts';
import { answers } from './schemas.ts';

const BATCH = 200;

const TargetsQuery = Type.Object(
  {
    q: Type.Optional(Type.String({ description: 'Part of namespace/name, or a pattern with *.' })),
    namespace: Type.Optional(Type.String()),
  },
  { additionalProperties: false },
);
const GroupSchema = Type.Object({ targets: Type.Array(Type.String()), labels: Type.Record(Type.String(), Type.String()) });

/** Registers the call. */
export function routePrometheusTargets(app: App, { ports }: ApiContext): void {
  const decode = queryDecoder(TargetsQuery);
  app.get(
    '/v1/prometheus/targets',
    { schema: { summary: 'Prometheus http_sd', querystring: TargetsQuery, response: answers(Type.Array(GroupSchema)) } },
    async (request, reply) => {
      const query = decode(request.query);
      const matches = serviceFilter(query.q);
      reply.type('application/json; charset=utf-8');
      return Readable.from(targetsText(ports.catalog, query, matches));
    },
  );
}

/** JSON text in slices, so that 100,000 instances do not stall the loop; a slow reader holds the generator back. */
async function* targetsText(
  catalog: CatalogReader,
  query: Static<typeof TargetsQuery>,
  matches: (service: ServiceId) => boolean,
): AsyncGenerator<string, void, void> {
  let last: ServiceId | null = null;
  let separator = '[';
  for (;;) {
    const names: readonly ServiceId[] = catalog.names(last, BATCH);
    let text = '';
    for (const name of names) {
      last = name;
      const published = matches(name) ? catalog.read(name) : null;
      if (published === null || (query.namespace !== undefined && published.view.key.namespace !== query.namespace)) continue;
      for (const group of targetGroups(published)) {
        text += `${separator}${JSON.stringify(group)}`;
        separator = ',';
      }
    }
    if (text !== '') yield text;
    if (names.length < BATCH) break;
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
  yield separator === '[' ? '[]' : ']';
}

/** The groups of one service. Label names are those of Prometheus: what is not allowed in them becomes `_`. */
export function targetGroups({ view, verdicts }: Published): object[] {
  return view.instances.map((instance, at) => ({
    targets: [hostPort(instance.host, instance.port)],
    labels: Object.fromEntries([
      ['__meta_weir_namespace', view.key.namespace],
      ['__meta_weir_service', view.key.name],
      ['__meta_weir_verdict', verdicts[at] ?? 'unknown'],
      ['__meta_weir_weight', String(instance.weight)],
      ['__meta_weir_sources', `,${instance.provenance.map(({ source }) => source).join(',')},`],
      ...Object.entries(instance.locality ?? {}).map(([part, value]) => [`__meta_weir_${part}`, String(value)]),
      ...(instance.protocol === undefined ? [] : [['__meta_weir_protocol', instance.protocol]]),
      ...(instance.version === undefined ? [] : [['__meta_weir_version', instance.version]]),
      ...[...instance.metadata].map(([key, value]) => [`__meta_weir_metadata_${key.replace(/[^a-zA-Z0-9_]/g, '_')}`, value]),
    ]),
  }));
}
