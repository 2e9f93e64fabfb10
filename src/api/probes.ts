// Owns /livez and /readyz: free of tokens, cheap, and nothing in them tells a stranger anything.
import { Type } from 'typebox';
import type { ApiContext, App } from './context.ts';

const Ready = Type.Object({ ready: Type.Boolean(), waiting: Type.Array(Type.String()) });

/** Registers both calls. */
export function routeProbes(app: App, { ports }: ApiContext): void {
  app.get(
    '/livez',
    {
      config: { access: 'free' },
      schema: { summary: 'The process answers', security: [], response: { 200: Type.Object({ alive: Type.Boolean() }) } },
    },
    async () => ({ alive: true }),
  );
  app.get(
    '/readyz',
    {
      config: { access: 'free' },
      schema: { summary: 'May be sent traffic', security: [], response: { 200: Ready, 503: Ready } },
    },
    async (_request, reply) => {
      const waiting = ports.readiness.waiting();
      if (waiting.length > 0) reply.code(503);
      return { ready: waiting.length === 0, waiting };
    },
  );
}
