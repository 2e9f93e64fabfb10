// Owns the meaning of `q=` and of the CLI's [pattern]: with `*` a pattern over `namespace/name` as in the configuration, without one a
// part of the name. Called by services.ts, watch.ts, prometheus-sd.ts; nothing from outside becomes a regular expression.

import { compilePattern, patternFault } from '../settings/pattern.ts';
import { badRequest } from './decode-request.ts';

/** A test of printed service names. An absent or empty pattern accepts all; throws BAD_REQUEST for one that is none. */
export function serviceFilter(pattern: string | undefined): (service: string) => boolean {
  if (pattern === undefined || pattern === '') return () => true;
  if (!pattern.includes('*')) return (service) => service.includes(pattern);
  const expected = patternFault(pattern);
  if (expected !== null) throw badRequest([{ path: 'query.q', expected, got: 'another pattern' }]);
  return compilePattern(pattern);
}
