// Owns GET /v1/config: the effective configuration (secrets hidden by schema) and the outcome of the newest load or reload (R12).
import { Type } from 'typebox';
import type { ApiContext, App } from './context.ts';
import { answers } from './schemas.ts';

const FaultSchema = Type.Object({
  file: Type.String(),
  line: Type.Integer(),
  col: Type.Integer(),
  path: Type.String(),
  expected: Type.String(),
  got: Type.String(),
  hint: Type.Optional(Type.String()),
});
const ConfigSchema = Type.Object({
  effective: Type.Unknown({ description: 'weir.yaml with every default, secrets as [hidden].' }),
  reload: Type.Object({
    at: Type.String(),
    ok: Type.Boolean({ description: 'false: the configuration before it keeps running.' }),
    file: Type.Union([Type.String(), Type.Null()]),
    faults: Type.Array(FaultSchema),
    warnings: Type.Array(FaultSchema),
    needRestart: Type.Array(Type.String(), { description: 'Keys whose change takes effect at the next start only.' }),
  }),
});

/** Registers the call. */
export function routeConfig(app: App, { ports }: ApiContext): void {
  app.get('/v1/config', { schema: { summary: 'Effective configuration', response: answers(ConfigSchema) } }, async () => {
    const { effective, lastReload } = ports.settings;
    return { effective, reload: { ...lastReload, at: new Date(lastReload.at).toISOString() } };
  });
}
