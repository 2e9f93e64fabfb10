// Owns `weir instances <ns/name>`: the merged view of one service.
import { Type } from 'typebox';
import { hostPort } from '../kernel/address.ts';
import { serviceArgument } from './arguments.ts';
import { ApiClient, type ApiOptions, apiPath, apiQuery } from './client.ts';
import type { Io } from './io.ts';
import { ageText, line, printable, table } from './table.ts';

const Answer = Type.Object({
  namespace: Type.String(),
  name: Type.String(),
  revision: Type.Number(),
  stale: Type.Boolean(),
  sources: Type.Record(
    Type.String(),
    Type.Object({ state: Type.String(), ageMs: Type.Union([Type.Number(), Type.Null()]), held: Type.Number() }),
  ),
  instances: Type.Array(
    Type.Object({
      id: Type.String(),
      host: Type.String(),
      port: Type.Number(),
      weight: Type.Number(),
      verdict: Type.String(),
      held: Type.Boolean(),
      ejected: Type.Boolean(),
      locality: Type.Optional(Type.Record(Type.String(), Type.String())),
      metadata: Type.Record(Type.String(), Type.String()),
      provenance: Type.Array(Type.Object({ source: Type.String(), copyOf: Type.Optional(Type.String()) })),
    }),
  ),
  conflicts: Type.Array(
    Type.Object({ instance: Type.String(), field: Type.String(), chosen: Type.String(), rule: Type.String() }),
  ),
});

export interface InstancesOptions extends ApiOptions {
  readonly healthy?: boolean;
  readonly zone?: string;
  readonly source?: string;
}

/** Runs the command. */
export async function instances(io: Io, service: string, options: InstancesOptions): Promise<void> {
  const { namespace, name } = serviceArgument(service);
  const query = apiQuery({ healthy: options.healthy === true ? 'true' : undefined, zone: options.zone, source: options.source });
  const answer = await new ApiClient(options, io).ask(Answer, 'GET', `/v1${apiPath('services', namespace, name)}${query}`);
  if (options.json === true) {
    io.out(`${JSON.stringify(answer, null, 2)}\n`);
    return;
  }
  const columns = [
    { head: 'INSTANCE' },
    { head: 'VERDICT' },
    { head: 'WEIGHT', right: true },
    { head: 'ZONE' },
    { head: 'SOURCES' },
    { head: 'FLAGS' },
    { head: 'METADATA' },
  ];
  const rows = answer.instances.map((one) => [
    hostPort(one.host, one.port),
    one.verdict,
    String(one.weight),
    one.locality?.['zone'] ?? '',
    one.provenance.map(({ source, copyOf }) => (copyOf === undefined ? source : `${source}(copy)`)).join(','),
    [one.held ? 'held' : '', one.ejected ? 'ejected' : ''].filter((flag) => flag !== '').join(','),
    Object.entries(one.metadata)
      .map(([key, value]) => `${key}=${value}`)
      .join(' '),
  ]);
  io.out(table(columns, rows));
  const states = Object.entries(answer.sources).map(
    ([id, { state, ageMs, held }]) => `${id} ${state} ${ageText(ageMs)}${held > 0 ? ` held ${held}` : ''}`,
  );
  io.out(`\n${printable(`revision ${answer.revision} · ${states.join(' · ')}`)}\n`);
  for (const one of answer.conflicts)
    io.out(line(`conflict: ${one.field} of ${one.instance || 'the service'}: ${one.chosen} (${one.rule})`));
}
