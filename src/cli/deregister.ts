// Owns `weir deregister <ns/name> [host:port]`: ends what `weir register` began.
import { type Static, Type } from 'typebox';
import { hostPort } from '../kernel/address.ts';
import { serviceId } from '../model/service.ts';
import { addressArgument, serviceArgument } from './arguments.ts';
import { ApiClient, type ApiOptions, apiPath } from './client.ts';
import { CommandFailure, EXIT_FAILED, type Io, usageFailure } from './io.ts';
import { RegistrationAnswer } from './register.ts';
import { line, printable } from './table.ts';

const List = Type.Object({ registrations: Type.Array(RegistrationAnswer) });

export interface DeregisterOptions extends ApiOptions {
  readonly id?: string;
}

/** Runs the command. The id is looked up by the address unless it is given. */
export async function deregister(
  io: Io,
  service: string,
  address: string | undefined,
  options: DeregisterOptions,
): Promise<void> {
  const { namespace, name } = serviceArgument(service);
  if (address === undefined && options.id === undefined) throw usageFailure('name the instance: host:port, or --id');
  const client = new ApiClient(options, io);
  const ids = options.id !== undefined ? [options.id] : await idsAt(client, serviceId({ namespace, name }), address ?? '');
  const ended: Static<typeof RegistrationAnswer>[] = [];
  for (const id of ids)
    ended.push(await client.ask(RegistrationAnswer, 'DELETE', `/v1${apiPath('registrations', namespace, name, id)}`));
  if (options.json === true) io.out(`${JSON.stringify({ registrations: ended }, null, 2)}\n`);
  else for (const one of ended) io.out(line(`${one.service} ${hostPort(one.host, one.port)} (${one.id}) is deregistered`));
}

async function idsAt(client: ApiClient, service: string, address: string): Promise<readonly string[]> {
  const { host, port } = addressArgument(address);
  const { registrations } = await client.ask(List, 'GET', '/v1/registrations');
  const found = registrations
    .filter((one) => one.service === service && one.host === host && one.port === port)
    .map(({ id }) => id);
  if (found.length > 0) return found;
  throw new CommandFailure(
    EXIT_FAILED,
    `REGISTRATION_NOT_FOUND: this sidecar keeps no ${hostPort(host, port)} of ${printable(service)}`,
  );
}
