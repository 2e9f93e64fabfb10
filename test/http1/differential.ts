// Compares the codec with node:http and undici on one input. Called by the differential tests and the fuzzer.
import { nodeRequests } from './node-peer.ts';
import { type RequestRun, type ResponseRun, runRequests, runResponse } from './record.ts';
import { undiciResponse } from './undici-peer.ts';

/** The methods that the request filter lets through by default (proxy-semantics §12). */
const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);

/** llhttp refuses, and undici miscounts, a Content-Length with a tab behind it, which RFC 9112 §5 allows as for any value. */
const PADDED_LENGTH = /content-length:[ \t]*\d+[ \t]+\r\n/i;

/** Null when what we accept is accepted by node:http and read alike; else what differs. `accepted`: how many requests both took. */
export async function compareRequest(bytes: Buffer, ours?: RequestRun): Promise<{ fault: string | null; accepted: number }> {
  const run = ours ?? (await runRequests([bytes]));
  const complete = run.requests.filter((request) => request.trailers !== null);
  // node:http itself throws on this name under --disable-proto=throw, so there is no second opinion on it.
  if (complete.length === 0 || bytes.includes('__proto__')) return { fault: null, accepted: 0 };
  const theirs = await nodeRequests(bytes);
  let accepted = 0;
  for (const [i, mine] of complete.entries()) {
    if (!METHODS.has(mine.start.slice(0, mine.start.indexOf(' ')))) break;
    const other = theirs[i];
    if (!other?.complete && PADDED_LENGTH.test(bytes.toString('latin1'))) break;
    if (other === undefined) return { fault: `request ${i} is accepted by us only: ${mine.start}`, accepted };
    if (!other.complete) return { fault: `request ${i} is complete for us only: ${mine.start}`, accepted };
    const a = JSON.stringify([mine.start, mine.fields, mine.body, mine.trailers]);
    const b = JSON.stringify([other.start, other.fields, other.body, other.trailers]);
    if (a !== b) return { fault: `request ${i} is read differently:\nours   ${a}\ntheirs ${b}`, accepted };
    accepted++;
  }
  return { fault: null, accepted };
}

/** The same for a response to `method`, against undici. */
export async function compareResponse(
  bytes: Buffer,
  method: string,
  ours?: ResponseRun,
): Promise<{ fault: string | null; accepted: number }> {
  const run = ours ?? (await runResponse([bytes], method));
  if (run.failed !== null || run.response === null || run.response.trailers === null) return { fault: null, accepted: 0 };
  const other = await undiciResponse(bytes, method);
  const mine = run.response;
  // undici calls any 100 that it did not ask for a bad response; we consume it (proxy-semantics §14).
  if (other.error === 'bad response' && bytes.includes(' 100')) return { fault: null, accepted: 0 };
  if (other.error !== null && PADDED_LENGTH.test(bytes.toString('latin1'))) return { fault: null, accepted: 0 };
  if (other.error !== null) return { fault: `accepted by us only: ${mine.start}, theirs: ${other.error}`, accepted: 0 };
  const a = JSON.stringify([Number(mine.start.slice(0, 3)), mine.fields, mine.body, mine.trailers]);
  const b = JSON.stringify([other.status, other.fields, other.body, other.trailers]);
  if (a !== b) return { fault: `read differently:\nours   ${a}\ntheirs ${b}`, accepted: 0 };
  // llhttp does not see keep-alive with a tab behind it.
  // undici drops the socket after HEAD, after a 304 with a length and on short hints: choices of its own, no other reading.
  const choice =
    method === 'HEAD' || mine.start.startsWith('304') || mine.fields.some(([name]) => name.toLowerCase() === 'keep-alive');
  if (run.reusable && !other.alive && !choice) return { fault: 'reusable for us only', accepted: 0 };
  return { fault: null, accepted: 1 };
}
