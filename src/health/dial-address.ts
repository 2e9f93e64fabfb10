// Owns the step from a target's host to the one address that a check connects to (reliability.md §4): judged, resolved, judged again, pinned.
// Called by the probes at connect time; must never hand out an address that the policy refuses.
import { lookup } from 'node:dns/promises';
import { canonicalHost, isIpLiteral } from '../kernel/address.ts';
import { raceAbort } from '../kernel/cancel.ts';
import { type DialPolicy, REFUSAL_TEXT } from '../kernel/dial.ts';

/** Resolves a name to its addresses; injected so that tests need no name server. */
export type Resolve = (name: string) => Promise<readonly string[]>;

export const systemResolve: Resolve = async (name) => (await lookup(name, { all: true })).map(({ address }) => address);

/** The address to connect to. Rejects with an Error whose message is for people, or with the signal's reason. */
export async function dialAddress(
  host: string,
  port: number,
  dial: DialPolicy,
  resolve: Resolve,
  signal: AbortSignal,
): Promise<string> {
  const refused = dial(host, port);
  if (refused !== null) throw new Error(`not dialled: ${REFUSAL_TEXT[refused]}`);
  if (isIpLiteral(host)) return host;
  const found = await raceAbort(resolve(host), signal);
  let why = 'the name has no address';
  for (const address of found) {
    const canonical = canonicalHost(address);
    const rule = canonical === null ? 'badHost' : dial(canonical, port);
    if (canonical !== null && rule === null) return canonical;
    if (rule !== null) why = `not dialled: ${REFUSAL_TEXT[rule]}`;
  }
  throw new Error(why);
}
