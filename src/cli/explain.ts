// Owns `weir explain <ns/name>`: why each instance is in or out, as text.
import { type Static, Type } from 'typebox';
import { serviceArgument } from './arguments.ts';
import { ApiClient, type ApiOptions, apiPath } from './client.ts';
import type { Io } from './io.ts';
import { ageText, printable, table } from './table.ts';

const Hold = Type.Object({
  source: Type.String(),
  sinceMs: Type.Number(),
  confirmsInMs: Type.Union([Type.Number(), Type.Null()]),
  missing: Type.String(),
  addresses: Type.Array(Type.String()),
});
const Answer = Type.Object({
  namespace: Type.String(),
  name: Type.String(),
  revision: Type.Number(),
  merge: Type.Object({ policy: Type.Unknown(), from: Type.String(), migration: Type.Optional(Type.String()) }),
  sources: Type.Record(
    Type.String(),
    Type.Object({
      state: Type.String(),
      presence: Type.String(),
      ageMs: Type.Union([Type.Number(), Type.Null()]),
      instances: Type.Number(),
      cause: Type.Optional(Type.String()),
    }),
  ),
  conflicts: Type.Array(
    Type.Object({
      instance: Type.String(),
      field: Type.String(),
      chosen: Type.String(),
      rule: Type.String(),
      values: Type.Array(Type.Object({ source: Type.String(), value: Type.String() })),
    }),
  ),
  holds: Type.Array(Hold),
  panic: Type.Boolean(),
  counts: Type.Record(Type.String(), Type.Number()),
  instances: Type.Array(
    Type.Object({
      instance: Type.String(),
      in: Type.Boolean(),
      share: Type.Union([Type.Number(), Type.Null()]),
      reason: Type.String(),
      weight: Type.Number(),
      verdict: Type.String(),
      steps: Type.Array(Type.Object({ step: Type.String(), passed: Type.Boolean(), reason: Type.String() })),
    }),
  ),
});

export interface ExplainOptions extends ApiOptions {
  /** Every step of every instance, not only the one that decides. */
  readonly steps?: boolean;
}

/** Runs the command. */
export async function explain(io: Io, service: string, options: ExplainOptions): Promise<void> {
  const { namespace, name } = serviceArgument(service);
  const answer = await new ApiClient(options, io).ask(Answer, 'GET', `/v1${apiPath('services', namespace, name, 'explain')}`);
  if (options.json === true) {
    io.out(`${JSON.stringify(answer, null, 2)}\n`);
    return;
  }
  io.out(head(answer));
  io.out(
    table(
      [
        { head: 'INSTANCE' },
        { head: 'IN' },
        { head: 'SHARE', right: true },
        { head: 'WEIGHT', right: true },
        { head: 'VERDICT' },
        { head: 'WHY' },
      ],
      rows(answer),
    ),
  );
  if (options.steps === true) io.out(`\n${steps(answer)}`);
}

type Answer = Static<typeof Answer>;

function head(answer: Answer): string {
  const { counts } = answer;
  const migration = answer.merge.migration === undefined ? '' : ` ${answer.merge.migration}`;
  const lines = [
    `${answer.namespace}/${answer.name}  revision ${answer.revision}`,
    `merge: ${JSON.stringify(answer.merge.policy)} (${answer.merge.from}${migration})`,
  ];
  for (const [id, one] of Object.entries(answer.sources)) {
    lines.push(
      `source ${id}: ${one.state}, ${one.presence}, ${one.instances} instance${one.instances === 1 ? '' : 's'}, age ${ageText(one.ageMs)}${one.cause === undefined ? '' : `, ${one.cause}`}`,
    );
  }
  for (const one of answer.conflicts) {
    const values = one.values.map(({ source, value }) => `${source}=${value}`).join(' ');
    lines.push(
      `conflict ${one.field} of ${one.instance === '' ? 'the service' : one.instance}: ${values} → ${one.chosen} (${one.rule})`,
    );
  }
  for (const one of answer.holds) {
    const until = one.confirmsInMs === null ? 'never by time' : `by time in ${ageText(one.confirmsInMs)}`;
    lines.push(`hold by ${one.source} of ${one.addresses.join(' ')} since ${ageText(one.sinceMs)}: ${one.missing}; ${until}`);
  }
  if (answer.panic) lines.push('PANIC: too few instances are available, health and ejections are ignored');
  lines.push(`${counts['in'] ?? 0} of ${counts['candidates'] ?? 0} instances may be picked`);
  return `${lines.map(printable).join('\n')}\n\n`;
}

function rows(answer: Answer): string[][] {
  return answer.instances.map((one) => [
    one.instance,
    one.in ? 'yes' : 'no',
    one.share === null ? '-' : `${(one.share * 100).toFixed(1)}%`,
    String(one.weight),
    one.verdict,
    one.reason,
  ]);
}

function steps(answer: Answer): string {
  const text = answer.instances.map((one) => {
    const lines = one.steps.map((step) => `  ${step.passed ? 'pass' : 'STOP'}  ${step.step}: ${step.reason}`);
    return [one.instance, ...lines].map(printable).join('\n');
  });
  return `${text.join('\n')}\n`;
}
