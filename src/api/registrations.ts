// Owns /v1/registrations: upsert, remove and list instances of this host; the leases are kept by registration.
import { Type } from 'typebox';
import { hostPort } from '../kernel/address.ts';
import { messageOf, WeirError } from '../kernel/errors.ts';
import { type ServiceKey, serviceId } from '../model/service.ts';
import type { ApiContext, App } from './context.ts';
import { badRequest, pathService, pathText } from './decode-request.ts';
import type { RegistrationState } from './ports.ts';
import { RegistrationBody, registrationOf } from './registration-body.ts';
import { answers, RegistrationSchema } from './schemas.ts';

const Params = Type.Object({ ns: Type.String(), name: Type.String(), id: Type.String() });
const PATH = '/v1/registrations/:ns/:name/:id';

/** Registers GET, PUT and DELETE. */
export function routeRegistrations(app: App, context: ApiContext): void {
  app.get(
    '/v1/registrations',
    {
      schema: {
        summary: 'Registrations that this sidecar keeps',
        response: answers(Type.Object({ registrations: Type.Array(RegistrationSchema) })),
      },
    },
    async () => ({ registrations: context.ports.registrations.list().map(registrationAnswer) }),
  );
  app.put(
    PATH,
    {
      schema: {
        summary: 'Register an instance of this host and keep it',
        params: Params,
        body: RegistrationBody,
        response: answers(RegistrationSchema),
      },
    },
    async (request) => {
      const { service, id } = target(request.params);
      return upsert(context, service, id, request.body);
    },
  );
  app.delete(
    PATH,
    { schema: { summary: 'Deregister', params: Params, response: answers(RegistrationSchema) } },
    async (request) => {
      const { service, id } = target(request.params);
      return remove(context, service, id);
    },
  );
}

function target(params: unknown): { readonly service: ServiceKey; readonly id: string } {
  const id = pathText(params, 'id');
  if (/^[A-Za-z0-9._-]{1,64}$/.test(id)) return { service: pathService(params), id };
  throw badRequest([{ path: 'path.id', expected: '1..64 characters of A-Z a-z 0-9 . _ -', got: 'another text' }]);
}

async function upsert({ ports, audit }: ApiContext, service: ServiceKey, id: string, body: unknown): Promise<object> {
  const registration = registrationOf(service, id, body);
  const line = { what: 'register', service: serviceId(service), instance: hostPort(registration.host, registration.port) };
  try {
    const state = await ports.registrations.upsert(registration);
    audit.write({ ...line, result: 'ok' });
    return registrationAnswer(state);
  } catch (thrown) {
    audit.write({ ...line, result: messageOf(thrown) });
    throw thrown;
  }
}

async function remove({ ports, audit }: ApiContext, service: ServiceKey, id: string): Promise<object> {
  const state = await ports.registrations.remove(service, id);
  if (state === null) {
    throw new WeirError('REGISTRATION_NOT_FOUND', 'this sidecar keeps no such registration', {
      details: { service: serviceId(service), id },
    });
  }
  audit.write({ what: 'deregister', service: serviceId(service), instance: hostPort(state.host, state.port), result: 'ok' });
  return registrationAnswer(state);
}

function registrationAnswer({ id, service, host, port, targets }: RegistrationState): object {
  return { id, service: serviceId(service), host, port, targets: Object.fromEntries(targets) };
}
