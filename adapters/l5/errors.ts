// Owns what a failure means: sockets, foreign protocols and odd answers → SourceError with a sentence that says what to change.
// Called by link.ts and servers.ts. Text of a server is shortened and loses its control characters before it is shown.
import { SourceError } from '../../src/model/snapshot.ts';
import type { FrameFault } from './frame.ts';
import { RESULT_OK } from './messages.ts';

const WHERE =
  'set servers to the L5 port (7779 by convention; in Polaris the apiserver service-l5, which its shipped configuration leaves off)';

/** No connection came about. */
export function connectError(server: string, code: string): SourceError {
  if (code === 'ECONNREFUSED') return lost(server, `connection refused: nothing listens there; start the server, or ${WHERE}`);
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN')
    return lost(server, `the host name does not resolve (${code}): check servers`);
  return lost(server, `no connection (${code}): check the address in servers and the network between`);
}

export function connectTimeout(server: string, ms: number): SourceError {
  return lost(server, `no connection within ${ms} ms: check the address in servers and the firewall between`);
}

/** The server is there and says nothing. */
export function silence(server: string, ms: number, answered: boolean): SourceError {
  const hint = answered ? 'the server hangs or the link is dead' : `the server hangs, or it is no L5 server: ${WHERE}`;
  return lost(server, `no answer within ${ms} ms: ${hint}`);
}

/** The server closed. `asked`: an answer was due; `answered`: it had answered before; `inside`: bytes of an unfinished answer. */
export function closed(server: string, how: { asked: boolean; answered: boolean; inside: number }): SourceError {
  if (how.inside > 0) return lost(server, `the connection was closed after ${how.inside} bytes of an answer`);
  if (!how.asked) return lost(server, 'the server closed the connection');
  if (how.answered)
    return lost(server, 'the connection was closed instead of an answer, which is how this protocol reports a failure');
  return lost(
    server,
    `the connection was closed without an answer: either no L5 server (${WHERE}), or a Polaris without naming.l5Open: true, whose process ends at our first question: set that option there`,
  );
}

/** Our own address is needed and the socket has none that this protocol can carry. */
export function noOwnIpv4(server: string): SourceError {
  const text =
    'the connection has no IPv4 address of ours, and the protocol carries nothing else: set agentIp to the IPv4 of this host';
  return new SourceError('refused', `L5 server ${server}: ${text}`);
}

/** An answer that breaks the protocol. */
export function malformed(server: string, what: string): SourceError {
  return new SourceError('malformed', `L5 server ${server}: ${what}: is it an L5 server? ${WHERE}`);
}

/** Bytes that are no frame; over the limit is a matter of ours. */
export function frameError(server: string, fault: FrameFault): SourceError {
  if (!fault.tooLarge) return malformed(server, fault.message);
  return new SourceError(
    'limit',
    `L5 server ${server}: ${fault.message}: raise maxAnswer if this is an L5 server, else ${WHERE}`,
  );
}

/** `result` is not the good one. */
export function refusedQuestion(server: string, result: number | null, error: string): SourceError {
  const said = error === '' ? '' : `: ${printable(error, 200)}`;
  return lost(server, `the answer has the result ${result ?? 'missing'} instead of ${RESULT_OK}${said}`);
}

/** Which other protocol the first bytes of a server belong to, as a sentence; null when they may be L5. At least 9 bytes tell the most. */
export function foreignProtocol(first: Buffer): string | null {
  if (first.length >= 5 && first.toString('latin1', 0, 5) === 'HTTP/') return 'an HTTP server answers at this address';
  // A TLS alert (or handshake record): type, version 3.x.
  if (first.length >= 3 && (first[0] === 0x15 || first[0] === 0x16) && first[1] === 3 && (first[2] ?? 9) <= 4) {
    return 'the server speaks TLS, which this protocol does not know';
  }
  // An HTTP/2 SETTINGS frame of stream 0, which servers of gRPC send unasked.
  if (
    first.length >= 9 &&
    first[0] === 0 &&
    first[1] === 0 &&
    first[3] === 4 &&
    first.subarray(4, 9).every((byte) => byte === 0)
  ) {
    return 'a gRPC (HTTP/2) server answers at this address';
  }
  if (first.length >= 6 && first.subarray(0, 6).every((byte) => byte >= 0x20 && byte < 0x7f)) {
    return `a server of another kind answers in text ("${printable(first.toString('latin1'), 16)}…")`;
  }
  return null;
}

/** Bounded, without control characters. */
export function printable(text: string, max: number): string {
  const plain = text
    .slice(0, max)
    .replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, '?')
    .toWellFormed();
  return text.length > max ? `${plain}…` : plain;
}

function lost(server: string, what: string): SourceError {
  return new SourceError('lost', `L5 server ${server}: ${what}`);
}
