// Free loopback ports for servers that cannot take port 0 themselves.
import { randomInt } from 'node:crypto';
import { createServer, type Server } from 'node:net';

/**
 * Below the range from which outgoing connections take theirs (32,768 on): else one of those may sit there when a server is started again.
 */
const LOWEST = 11_000;
const BEYOND = 32_000;

/** `count` ports that were free a moment ago, all different. */
export async function freePorts(count: number): Promise<readonly number[]> {
  const taken = new Map<number, Server>();
  while (taken.size < count) {
    const port = randomInt(LOWEST, BEYOND);
    const server = taken.has(port) ? null : await listening(port);
    if (server !== null) taken.set(port, server);
  }
  for (const server of taken.values()) await closed(server);
  return [...taken.keys()];
}

/** A port that is free together with those at these distances from it. */
export async function freePortWith(distances: readonly number[]): Promise<number> {
  for (;;) {
    const port = randomInt(LOWEST + 1_000, BEYOND - 2_000);
    const servers = await Promise.all([0, ...distances].map((distance) => listening(port + distance)));
    for (const server of servers) if (server !== null) await closed(server);
    if (servers.every((server) => server !== null)) return port;
  }
}

/** Null when somebody has the port. */
function listening(port: number): Promise<Server | null> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once('error', () => resolve(null));
    server.listen(port, '127.0.0.1', () => resolve(server));
  });
}

function closed(server: Server): Promise<void> {
  return new Promise((resolve) => server.close(() => resolve()));
}
