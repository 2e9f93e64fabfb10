// Owns `weir isolate <ns/name> <host:port>`: an operator takes an instance out of picking on this sidecar, for a while.
import { Type } from 'typebox';
import { hostPort } from '../kernel/address.ts';
import { addressArgument, serviceArgument } from './arguments.ts';
import { ApiClient, type ApiOptions, apiPath } from './client.ts';
import type { Io } from './io.ts';
import { line } from './table.ts';

const Answer = Type.Object({
  service: Type.String(),
  address: Type.String(),
  isolated: Type.Boolean(),
  until: Type.Optional(Type.String()),
});

export interface IsolateOptions extends ApiOptions {
  readonly for?: string;
  /** Ends the override instead. */
  readonly end?: boolean;
}

/** Runs the command. */
export async function isolate(io: Io, service: string, address: string, options: IsolateOptions): Promise<void> {
  const { namespace, name } = serviceArgument(service);
  const { host, port } = addressArgument(address);
  const client = new ApiClient(options, io);
  const path = `/v1${apiPath('overrides', namespace, name, hostPort(host, port))}`;
  const body = { isolated: true, for: options.for ?? '10m' };
  const answer = options.end === true ? await client.ask(Answer, 'DELETE', path) : await client.ask(Answer, 'PUT', path, body);
  if (options.json === true) io.out(`${JSON.stringify(answer, null, 2)}\n`);
  else if (answer.isolated)
    io.out(line(`${answer.address} of ${answer.service} is isolated on this sidecar until ${answer.until ?? '?'}`));
  else io.out(line(`${answer.address} of ${answer.service} is isolated no more`));
}
