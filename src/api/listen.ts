// Owns where the API listens: loopback, a unix socket with mode 0600, or beyond this host when tokens are set (reliability.md §5).
// Called by server.ts; must never leave a socket that others may open, nor listen beyond the host without a token.
import { chmod, lstat, mkdtemp, rename, rm } from 'node:fs/promises';
import type { Server } from 'node:http';
import { connect, type ListenOptions } from 'node:net';
import { dirname, join } from 'node:path';
import { addressClass, canonicalHost, hostPort, isIpLiteral } from '../kernel/address.ts';
import { PRIVATE_MODE } from '../kernel/durable-file.ts';
import { messageOf, WeirError } from '../kernel/errors.ts';
import type { ListenAddress } from '../proxy/proxy-update.ts';
import type { Tokens } from './access.ts';

/** An open listener: `http://host:port` or `unix:path`, and what must be undone at its end. */
export interface Listening {
  readonly address: string;
  readonly release: () => Promise<void>;
}

/** Throws API_INSECURE when the listener can be reached from outside and no token is set. */
export function assertSecure(listen: ListenAddress, tokens: Tokens): void {
  if (listen.path !== undefined || isLoopback(listen.host) || tokens.read !== null || tokens.write !== null) return;
  throw new WeirError(
    'API_INSECURE',
    `api.listen ${hostPort(listen.host, listen.port)} can be reached from other hosts: set api.tokens, or listen on 127.0.0.1 or unix:`,
  );
}

function isLoopback(host: string): boolean {
  const canonical = canonicalHost(host);
  if (canonical === null) return false;
  return canonical === 'localhost' || (isIpLiteral(canonical) && addressClass(canonical) === 'loopback');
}

/** Opens the listener. Throws LISTEN_FAILED. */
export async function openListener(server: Server, listen: ListenAddress): Promise<Listening> {
  if (listen.path !== undefined) return openUnix(server, listen.path);
  await opened(server, { host: listen.host, port: listen.port }, hostPort(listen.host, listen.port));
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : listen.port;
  return { address: `http://${hostPort(listen.host, port)}`, release: async () => {} };
}

/**
 * Binds inside a directory that only we may enter, sets the mode, then renames to the place: at no moment can another user connect.
 */
async function openUnix(server: Server, path: string): Promise<Listening> {
  await assertFree(path);
  let directory: string;
  try {
    directory = await mkdtemp(join(dirname(path), '.weir-'));
  } catch (thrown) {
    throw listenFailed(`unix:${path}`, thrown);
  }
  try {
    const hidden = join(directory, 's');
    await opened(server, { path: hidden }, `unix:${path}`);
    await chmod(hidden, PRIVATE_MODE);
    await rename(hidden, path);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
  return { address: `unix:${path}`, release: () => rm(path, { force: true }) };
}

/** A socket that nobody answers on any more is in nobody's way; everything else is. */
async function assertFree(path: string): Promise<void> {
  const found = await lstat(path).catch(() => null);
  if (found === null) return;
  if (!found.isSocket()) throw new WeirError('LISTEN_FAILED', `unix:${path} exists and is no socket`);
  if (await answers(path)) throw new WeirError('LISTEN_FAILED', `unix:${path} is in use by a living process`);
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

function opened(server: Server, options: ListenOptions, words: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const onError = (thrown: Error): void => reject(listenFailed(words, thrown));
    server.once('error', onError);
    server.listen(options, () => {
      server.removeListener('error', onError);
      resolve();
    });
  });
}

function listenFailed(words: string, thrown: unknown): WeirError {
  return new WeirError('LISTEN_FAILED', `cannot listen on ${words}: ${messageOf(thrown)}`, { cause: thrown });
}
