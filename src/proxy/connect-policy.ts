// Owns the last look at an address before a connection is opened (reliability §4): the outbound policy at connect time, and
// names resolved, judged again and pinned. Called by the pools through data-plane.ts; one per data plane.
import dns from 'node:dns';
import net from 'node:net';
import type { Connect } from '../http1/upstream.ts';
import { canonicalHost, isIpLiteral } from '../kernel/address.ts';
import { type DialPolicy, type DialRefusal, dialPolicy, type OwnListener, REFUSAL_TEXT } from '../kernel/dial.ts';
import { WeirError } from '../kernel/errors.ts';

/** Resolves a name to all its addresses; `dns.lookup` unless a test says otherwise. */
export type Resolve = (
  name: string,
  done: (error: Error | null, addresses: readonly { readonly address: string; readonly family: number }[]) => void,
) => void;

const systemResolve: Resolve = (name, done) =>
  dns.lookup(name, { all: true }, (error, addresses) => done(error, error === null ? addresses : []));

export interface ConnectPolicyDeps {
  /** Own listeners and the admin port; asked at each connection. */
  readonly own: () => readonly OwnListener[];
  readonly onRefused: (rule: DialRefusal) => void;
  readonly resolve?: Resolve;
}

/**
 * A `Connect` for pools. The catalog has applied each source's own rules to what it learned; here stands what holds for every
 * source: no class that is never an instance, no listener of ours. A name may lead to a loopback address only when it says so
 * itself (`localhost`): otherwise whoever owns the name could reach services of this machine.
 * Throws a WeirError `DIAL_REFUSED` for a literal that is refused; a name that is refused fails like a failed connection.
 */
export function connectPolicy(deps: ConnectPolicyDeps): Connect {
  const literals = dialPolicy({ allowLoopback: true, allowNames: true, cidrs: [], ports: [] }, deps.own);
  const resolved = dialPolicy({ allowLoopback: false, allowNames: false, cidrs: [], ports: [] }, deps.own);
  const resolve = deps.resolve ?? systemResolve;
  return (host, port, onread) => {
    const refusal = literals(host, port);
    if (refusal !== null) {
      deps.onRefused(refusal);
      throw refused(host, port, refusal);
    }
    if (isIpLiteral(host)) return net.connect({ host, port, onread, allowHalfOpen: true, noDelay: true });
    const judge = host === 'localhost' || host.endsWith('.localhost') ? literals : resolved;
    const lookup = pinnedLookup(port, judge, resolve, deps.onRefused);
    return net.connect({ host, port, onread, lookup, allowHalfOpen: true, noDelay: true });
  };
}

/** The `lookup` of one connection: the first address of the name that may be used, and no other. */
function pinnedLookup(
  port: number,
  judge: DialPolicy,
  resolve: Resolve,
  onRefused: (rule: DialRefusal) => void,
): net.LookupFunction {
  return (name, options, done) => {
    resolve(name, (error, addresses) => {
      if (error !== null) {
        done(error, '', 0);
        return;
      }
      let refusal: DialRefusal = 'badHost';
      for (const { address } of addresses) {
        const canonical = canonicalHost(address);
        const verdict = canonical === null ? 'badHost' : judge(canonical, port);
        if (canonical !== null && verdict === null) {
          const family = net.isIPv6(canonical) ? 6 : 4;
          if (options.all === true) done(null, [{ address: canonical, family }]);
          else done(null, canonical, family);
          return;
        }
        refusal = verdict ?? refusal;
      }
      onRefused(refusal);
      done(refused(name, port, refusal), '', 0);
    });
  };
}

function refused(host: string, port: number, rule: DialRefusal): WeirError {
  return new WeirError('DIAL_REFUSED', REFUSAL_TEXT[rule], { details: { host, port, rule } });
}
