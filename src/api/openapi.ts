// Owns /openapi.json: made by @fastify/swagger from the schemas of the routes. `describeApi` must run before the routes are added.
import { fastifySwagger } from '@fastify/swagger';
import type { ApiContext, App } from './context.ts';

/** Makes the app collect its routes. */
export async function describeApi(app: App): Promise<void> {
  await app.register(fastifySwagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'weir',
        description: 'Service-discovery unification sidecar. Words and shapes: docs/api.md; error codes: docs/errors.md.',
        version: '1',
      },
      components: { securitySchemes: { bearer: { type: 'http', scheme: 'bearer' } } },
      security: [{ bearer: [] }],
    },
  });
}

/** Registers the call. */
export function routeOpenapi(app: App, _context: ApiContext): void {
  let text: string | null = null;
  app.get('/openapi.json', { schema: { hide: true } }, async (_request, reply) => {
    text ??= JSON.stringify(app.swagger());
    reply.type('application/json; charset=utf-8');
    return text;
  });
}
