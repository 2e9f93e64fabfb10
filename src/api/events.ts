// Owns GET /v1/events: the newest events of the ring (catalog-rules §5), oldest first.
import { Type } from 'typebox';
import type { ApiContext, App } from './context.ts';
import { queryDecoder } from './decode-request.ts';
import { answers } from './schemas.ts';

const MAX_EVENTS = 10_000;
const EventsQuery = Type.Object(
  {
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: MAX_EVENTS, description: 'The newest so many; default 100.' })),
    type: Type.Optional(Type.String({ description: 'Only events of this type.' })),
    after: Type.Optional(Type.Integer({ minimum: 0, description: 'Only events whose id is past this.' })),
  },
  { additionalProperties: false },
);
const EventSchema = Type.Object({
  id: Type.Integer(),
  at: Type.String(),
  type: Type.String(),
  details: Type.Record(Type.String(), Type.Unknown()),
});

/** Registers the call. */
export function routeEvents(app: App, { events }: ApiContext): void {
  const decode = queryDecoder(EventsQuery);
  app.get(
    '/v1/events',
    {
      schema: {
        summary: 'What happened',
        querystring: EventsQuery,
        response: answers(Type.Object({ events: Type.Array(EventSchema) })),
      },
    },
    async (request) => {
      const { limit = 100, type, after = 0 } = decode(request.query);
      const all = events.recent(MAX_EVENTS);
      const chosen = all.filter((event) => event.id > after && (type === undefined || event.type === type));
      return { events: chosen.slice(-limit).map((event) => ({ ...event, at: new Date(event.at).toISOString() })) };
    },
  );
}
