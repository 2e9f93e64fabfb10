// Owns finding the sticky header of a request (a shift that keeps callers on one side). Called by exchange.ts only while a cluster asks
// for it. Must never change what is forwarded.
import { placeOf } from '../cluster/sides.ts';

/** The place in [0, 1) of the field's value among the forwarded fields (`name: value` lines with CRLF); -1 without the field. */
export function stickyPlace(fields: string, lowerName: string): number {
  for (let at = 0; at < fields.length; ) {
    const end = fields.indexOf('\r\n', at);
    if (end < 0) return -1;
    const colon = at + lowerName.length;
    if (fields[colon] === ':' && fields.slice(at, colon).toLowerCase() === lowerName) {
      return placeOf(fields.slice(colon + 1, end).trim());
    }
    at = end + 2;
  }
  return -1;
}
