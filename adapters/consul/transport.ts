// Owns what the client needs of a way to an agent, and how TLS material is read. Implemented by http1.ts and http2.ts, chosen by
// client.ts. Must never load an HTTP library: that waits for the first request.
import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { checkServerIdentity, type PeerCertificate } from 'node:tls';
import type { SourceOptions } from '../../src/adapter/contract.ts';
import { messageOf } from '../../src/kernel/errors.ts';
import { SourceError } from '../../src/model/snapshot.ts';

/** watch: held blocking queries · read: what does not block · control: writes, locks and the guard, which nothing may hold up. */
export type Lane = 'watch' | 'read' | 'control';

/** The largest answer that is taken, bytes. */
export const MAX_BODY = 64 * 1024 * 1024;
/** A server that does not take a connection in this time is lost, ms. */
export const CONNECT_MS = 3_000;

export type RawHeaders = Readonly<Record<string, string | string[] | undefined>>;

export interface WireRequest {
  readonly method: 'GET' | 'PUT' | 'POST';
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | null;
  readonly signal: AbortSignal;
}

export interface WireAnswer {
  readonly status: number;
  readonly headers: RawHeaders;
  readonly body: AsyncIterable<Uint8Array>;
  /** Nobody reads on. */
  abandon(): void;
}

/** Many small reads whose bodies nobody needs. */
export interface HeadsRequest {
  readonly paths: readonly string[];
  readonly headers: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
}

export interface WireHead {
  readonly status: number;
  readonly headers: RawHeaders;
}

export interface Transport {
  /** Connections that the other side broke so far. */
  readonly breaks: number;
  /** Rejects with whatever the wire says; client.ts gives it words. */
  request(lane: Lane, request: WireRequest): Promise<WireAnswer>;
  /** The heads of the answers to GETs of all paths, in their order; one that fails rejects the whole. */
  heads(request: HeadsRequest): Promise<readonly WireHead[]>;
  close(): Promise<void>;
}

/** What a TLS connection is made with; left out what is not configured. */
export interface TlsMaterial {
  readonly ca?: Buffer;
  readonly cert?: Buffer;
  readonly key?: Buffer;
  readonly servername?: string;
  readonly checkServerIdentity?: (host: string, certificate: PeerCertificate) => Error | undefined;
}

/** An answer over {@link MAX_BODY}. */
export function tooLarge(): SourceError {
  return new SourceError('limit', 'consul: an answer is over our limit of 64 MiB');
}

type TlsFiles = NonNullable<SourceOptions['tls']>;

/** Reads the files for each connection, so that renewed certificates are taken without a restart. Throws SourceError `denied`. */
export async function tlsMaterial(files: TlsFiles): Promise<TlsMaterial> {
  const read = async (path: string | undefined, name: string): Promise<Buffer | undefined> => {
    if (path === undefined) return undefined;
    try {
      return await readFile(path);
    } catch (thrown) {
      throw new SourceError('denied', `consul: tls.${name} cannot be read: ${messageOf(thrown)}`, { cause: thrown });
    }
  };
  const [ca, cert, key] = await Promise.all([read(files.ca, 'ca'), read(files.cert, 'cert'), read(files.key, 'key')]);
  return {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...nameFor(files.serverName),
  };
}

/** An address cannot be sent as a server name; its certificate is checked for it all the same. */
function nameFor(serverName: string | undefined): TlsMaterial {
  if (serverName === undefined) return {};
  if (isIP(serverName) === 0) return { servername: serverName };
  return { checkServerIdentity: (_host, certificate) => checkServerIdentity(serverName, certificate) };
}
