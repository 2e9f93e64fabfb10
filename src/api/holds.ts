// Owns GET /v1/holds and POST /v1/holds/release: what R2 keeps, and the operator's word that it may go.
import { Type } from 'typebox';
import { WeirError } from '../kernel/errors.ts';
import { parseServiceId } from '../model/service.ts';
import type { ApiContext, App } from './context.ts';
import { badRequest, bodyDecoder } from './decode-request.ts';
import { answers, HoldSchema } from './schemas.ts';

const ReleaseBody = Type.Object(
  {
    service: Type.Optional(Type.String({ description: 'namespace/name; left out: every service.' })),
    source: Type.Optional(Type.String({ description: 'Source id; left out: every source.' })),
  },
  { additionalProperties: false },
);

/** Registers both calls. */
export function routeHolds(app: App, { ports, audit }: ApiContext): void {
  app.get(
    '/v1/holds',
    { schema: { summary: 'Every hold', response: answers(Type.Object({ holds: Type.Array(HoldSchema) })) } },
    async () => ({
      holds: ports.holds.holds(null),
    }),
  );
  const decode = bodyDecoder(ReleaseBody);
  app.post(
    '/v1/holds/release',
    {
      schema: {
        summary: 'Release holds',
        body: ReleaseBody,
        response: answers(Type.Object({ released: Type.Integer({ description: 'Held instances that went.' }) })),
      },
    },
    async (request) => {
      const { service, source } = decode(request.body);
      if (service !== undefined && parseServiceId(service) === null) throw notAService(service);
      if (source !== undefined && !ports.sources.list().some(({ id }) => id === source)) {
        throw new WeirError('SOURCE_NOT_FOUND', 'no source of this id is configured', { details: { source } });
      }
      const released = ports.holds.release({ service: service ?? null, source: source ?? null });
      audit.write({
        what: 'release',
        ...(service === undefined ? {} : { service }),
        ...(source === undefined ? {} : { registry: source }),
        result: `ok: ${released}`,
      });
      return { released };
    },
  );
}

function notAService(got: string): WeirError {
  return badRequest([{ path: 'body.service', expected: 'namespace/name', got: JSON.stringify(got.slice(0, 60)) }]);
}
