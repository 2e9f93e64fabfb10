// Owns the one shape of an error answer: `{"error": {code, message, details?}}` (contract.md), and the way from anything thrown to it.
// Called by server.ts; must never let a stack trace or the words of an unknown failure out.
import { isRecord } from '../kernel/decode.ts';
import { WeirError } from '../kernel/errors.ts';
import { errorAbout } from '../model/error-table.ts';
import { SourceError } from '../model/snapshot.ts';

export interface ErrorBody {
  readonly error: { readonly code: string; readonly message: string; readonly details?: Readonly<Record<string, unknown>> };
}

export interface ErrorReply {
  readonly status: number;
  readonly body: ErrorBody;
  /** True when the cause is ours: it belongs into the log. */
  readonly bug: boolean;
}

/** What fastify and its router throw, by status; their words are kept only where they say what the caller did. */
const BY_STATUS: ReadonlyMap<number, { readonly code: string; readonly message: string }> = new Map([
  [400, { code: 'BAD_REQUEST', message: 'the request is not valid' }],
  [404, { code: 'NOT_FOUND', message: 'there is no such call' }],
  [405, { code: 'METHOD_NOT_ALLOWED', message: 'this method is not used here' }],
  [408, { code: 'REQUEST_TIMEOUT', message: 'the request did not arrive in time' }],
  [413, { code: 'BODY_TOO_LARGE', message: 'a body may have at most 1 MiB' }],
  [414, { code: 'BAD_REQUEST', message: 'a part of the path is too long' }],
  [415, { code: 'CONTENT_TYPE', message: 'a changing call needs content-type: application/json' }],
  [431, { code: 'HEAD_TOO_LARGE', message: 'the head of the request is too large' }],
]);

/** The answer for anything thrown by a handler or by the framework. */
export function errorReply(thrown: unknown): ErrorReply {
  if (thrown instanceof WeirError) return replyOf(thrown);
  if (thrown instanceof SourceError) return replyOf(new WeirError(sourceCode(thrown), thrown.message));
  const known = BY_STATUS.get(statusOf(thrown));
  return known === undefined
    ? replyOf(new WeirError('INTERNAL', 'weir failed to answer; its log has the cause'))
    : replyOf(new WeirError(known.code, known.message));
}

function replyOf(error: WeirError): ErrorReply {
  const about = errorAbout(error.code);
  const { code, message, details } = error;
  return {
    status: about?.status ?? 500,
    body: { error: { code, message, ...(details === undefined ? {} : { details }) } },
    bug: about === null || about.family === 'bug',
  };
}

function sourceCode(error: SourceError): string {
  if (error.causeKind === 'denied') return 'SOURCE_DENIED';
  return error.causeKind === 'refused' || error.causeKind === 'fenced' ? 'SOURCE_REFUSED' : 'SOURCE_LOST';
}

/** The status that a framework error carries; 500 for what carries none. */
function statusOf(thrown: unknown): number {
  const status = isRecord(thrown) ? thrown['statusCode'] : undefined;
  return typeof status === 'number' ? status : 500;
}
