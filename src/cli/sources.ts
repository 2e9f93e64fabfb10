// Owns `weir sources`: every source of a running sidecar with its state.
import { Type } from 'typebox';
import { ApiClient, type ApiOptions } from './client.ts';
import type { Io } from './io.ts';
import { ageText, line, table } from './table.ts';

const Age = Type.Union([Type.Number(), Type.Null()]);
const Answer = Type.Object({
  sources: Type.Array(
    Type.Object({
      id: Type.String(),
      kind: Type.String(),
      state: Type.String(),
      ageMs: Age,
      cause: Type.Optional(Type.String()),
      message: Type.Optional(Type.String()),
      services: Type.Number(),
      instances: Type.Number(),
      held: Type.Number(),
      rejected: Type.Number(),
      recentRejected: Type.Optional(
        Type.Array(Type.Object({ service: Type.String(), nativeId: Type.String(), reason: Type.String() })),
      ),
    }),
  ),
});

/** Runs the command. */
export async function sources(io: Io, options: ApiOptions): Promise<void> {
  const answer = await new ApiClient(options, io).ask(Answer, 'GET', '/v1/sources');
  if (options.json === true) {
    io.out(`${JSON.stringify(answer, null, 2)}\n`);
    return;
  }
  const columns = [
    { head: 'SOURCE' },
    { head: 'KIND' },
    { head: 'STATE' },
    { head: 'AGE', right: true },
    { head: 'SERVICES', right: true },
    { head: 'INSTANCES', right: true },
    { head: 'HELD', right: true },
    { head: 'REJECTED', right: true },
    { head: 'CAUSE' },
  ];
  const rows = answer.sources.map((one) => [
    one.id,
    one.kind,
    one.state,
    ageText(one.ageMs),
    String(one.services),
    String(one.instances),
    String(one.held),
    String(one.rejected),
    [one.cause, one.message].filter((word) => word !== undefined).join(': '),
  ]);
  io.out(table(columns, rows));
  const refused = answer.sources.flatMap(({ id, recentRejected }) => refusedLines(id, recentRejected ?? []));
  if (refused.length > 0) io.out(`\n${refused.map(line).join('')}`);
}

/** What was refused lately, each thing once: a list says the same again and again. */
function refusedLines(source: string, refused: readonly { service: string; nativeId: string; reason: string }[]): string[] {
  const lines = refused.map(
    ({ service, nativeId, reason }) => `rejected: ${source} ${[service, nativeId].join(' ').trim()}: ${reason}`,
  );
  return [...new Set(lines)].slice(-5);
}
