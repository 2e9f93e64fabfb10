// Owns `weir services [pattern]`: names with counts, all pages.
import { type Static, Type } from 'typebox';
import { ApiClient, type ApiOptions, apiQuery } from './client.ts';
import type { Io } from './io.ts';
import { ageText, table } from './table.ts';

const Summary = Type.Object({
  namespace: Type.String(),
  name: Type.String(),
  instances: Type.Number(),
  healthy: Type.Number(),
  routable: Type.Number(),
  sources: Type.Array(Type.String()),
  revision: Type.Number(),
  stale: Type.Boolean(),
  ageMs: Type.Union([Type.Number(), Type.Null()]),
});
const Page = Type.Object({ services: Type.Array(Summary), next: Type.Optional(Type.String()) });

export interface ServicesOptions extends ApiOptions {
  readonly source?: string;
  readonly namespace?: string;
}

/** Runs the command. */
export async function services(io: Io, pattern: string | undefined, options: ServicesOptions): Promise<void> {
  const client = new ApiClient(options, io);
  const found: Static<typeof Summary>[] = [];
  let cursor: string | undefined;
  do {
    const query = apiQuery({ q: pattern, source: options.source, namespace: options.namespace, limit: '1000', cursor });
    const page: Static<typeof Page> = await client.ask(Page, 'GET', `/v1/services${query}`);
    found.push(...page.services);
    cursor = page.next;
  } while (cursor !== undefined);
  if (options.json === true) {
    io.out(`${JSON.stringify({ services: found }, null, 2)}\n`);
    return;
  }
  const columns = [
    { head: 'SERVICE' },
    { head: 'HEALTHY', right: true },
    { head: 'ROUTABLE', right: true },
    { head: 'INSTANCES', right: true },
    { head: 'SOURCES' },
    { head: 'STALE' },
  ];
  const rows = found.map((one) => [
    `${one.namespace}/${one.name}`,
    String(one.healthy),
    String(one.routable),
    String(one.instances),
    one.sources.join(','),
    one.stale ? ageText(one.ageMs) : '',
  ]);
  io.out(table(columns, rows));
}
