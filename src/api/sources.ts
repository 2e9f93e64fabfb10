// Owns GET /v1/sources: every configured source with state, age, cause, counts and capabilities.
import { Type } from 'typebox';
import type { Capabilities } from '../adapter/capabilities.ts';
import type { ApiContext, App } from './context.ts';
import type { SourceSummary } from './ports.ts';
import { answers, SourceSchema } from './schemas.ts';
import { rounded } from './service-answer.ts';

/** Registers the call. */
export function routeSources(app: App, { ports }: ApiContext): void {
  app.get(
    '/v1/sources',
    { schema: { summary: 'Every source with its state', response: answers(Type.Object({ sources: Type.Array(SourceSchema) })) } },
    async () => ({ sources: ports.sources.list().map(sourceAnswer) }),
  );
}

/** One source as JSON; also the data of the `source` event of /v1/watch. */
export function sourceAnswer(source: SourceSummary): object {
  const { ageMs, contactAgeMs, capabilities, counts, recentRejected, ...rest } = source;
  return {
    ...rest,
    ageMs: rounded(ageMs),
    contactAgeMs: rounded(contactAgeMs),
    capabilities: capabilities === null ? null : capabilitiesAnswer(capabilities),
    counts: Object.fromEntries(counts),
    ...(recentRejected === undefined ? {} : { recentRejected: recentRejected.map(({ source: _source, ...refused }) => refused) }),
  };
}

function capabilitiesAnswer(capabilities: Capabilities): object {
  return { ...capabilities, reads: [...capabilities.reads].sort(), keeps: [...capabilities.keeps].sort() };
}
