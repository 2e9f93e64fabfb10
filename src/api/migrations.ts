// Owns /v1/migrations until migrations are built: every call says so (contract.md: never ignored).
import { WeirError } from '../kernel/errors.ts';
import type { ApiContext, App } from './context.ts';

/** Registers every call below /v1/migrations. */
export function routeMigrations(app: App, _context: ApiContext): void {
  const refuse = async (): Promise<never> => {
    throw new WeirError('NOT_BUILT', 'migrations are not built yet in this version');
  };
  for (const url of ['/v1/migrations', '/v1/migrations/*']) {
    app.route({ method: ['GET', 'POST'], url, schema: { summary: 'Not built yet', hide: url.endsWith('*') }, handler: refuse });
  }
}
