// Owns `weir release <ns/name>`: the operator's word that held instances of a service may go (R2).
import { Type } from 'typebox';
import { serviceId } from '../model/service.ts';
import { serviceArgument } from './arguments.ts';
import { ApiClient, type ApiOptions } from './client.ts';
import type { Io } from './io.ts';
import { line } from './table.ts';

const Answer = Type.Object({ released: Type.Number() });

export interface ReleaseOptions extends ApiOptions {
  readonly source?: string;
}

/** Runs the command. */
export async function release(io: Io, service: string, options: ReleaseOptions): Promise<void> {
  const id = serviceId(serviceArgument(service));
  const body = { service: id, ...(options.source === undefined ? {} : { source: options.source }) };
  const answer = await new ApiClient(options, io).ask(Answer, 'POST', '/v1/holds/release', body);
  if (options.json === true) io.out(`${JSON.stringify(answer, null, 2)}\n`);
  else io.out(line(`${answer.released} held instance${answer.released === 1 ? '' : 's'} of ${id} released`));
}
