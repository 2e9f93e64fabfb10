// Owns the stage of a story: its providers, where each is registered, their beats, and the small HTTP port through which a reader moves
// them (`curl -X PUT $STAGE/providers/a/nacos`), as an operator would deploy a provider anew. Called by demo-story.ts.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { NativeDoor } from '../app/embedded.ts';
import { hostPort } from '../kernel/address.ts';
import { messageOf } from '../kernel/errors.ts';
import type { DemoUpstream } from './demo-upstreams.ts';
import { table } from './table.ts';

/** Registries that want it drop what was silent for 15 s and more. */
const BEAT_MS = 4_000;
const HOST = '127.0.0.1';

export interface StageTraffic {
  /** Since the story began. */
  readonly requests: number;
  readonly failed: number;
}

export interface StageDeps {
  readonly upstreams: readonly DemoUpstream[];
  readonly doors: ReadonlyMap<string, NativeDoor>;
  readonly traffic: () => StageTraffic;
  readonly say: (line: string) => void;
}

export class Stage {
  readonly #deps: StageDeps;
  /** `provider registry`. */
  readonly #registered = new Set<string>();
  readonly #server: Server;
  readonly #beating: NodeJS.Timeout;

  constructor(deps: StageDeps) {
    this.#deps = deps;
    this.#server = createServer((request, response) => void this.#take(request, response));
    this.#beating = setInterval(() => this.#beat(), BEAT_MS);
  }

  /** Resolves with `host:port`. */
  async listen(): Promise<string> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(0, HOST, resolve);
    });
    const address = this.#server.address();
    return address !== null && typeof address === 'object' ? hostPort(HOST, address.port) : '';
  }

  /** The provider registers itself. Throws what the registry says. */
  async put(provider: string, registry: string): Promise<void> {
    const { door, upstream } = this.#find(provider, registry);
    await door.put({ name: provider, host: HOST, port: upstream.port });
    this.#registered.add(`${provider} ${registry}`);
  }

  async remove(provider: string, registry: string): Promise<void> {
    const { door, upstream } = this.#find(provider, registry);
    this.#registered.delete(`${provider} ${registry}`);
    await door.remove({ name: provider, host: HOST, port: upstream.port });
  }

  /** Takes every provider out of every registry, for real ones that live on; ends the port. */
  async close(): Promise<void> {
    clearInterval(this.#beating);
    this.#server.closeAllConnections();
    this.#server.close();
    for (const entry of [...this.#registered]) {
      const [provider = '', registry = ''] = entry.split(' ');
      await this.remove(provider, registry).catch((thrown: unknown) => this.#deps.say(messageOf(thrown)));
    }
    for (const door of this.#deps.doors.values()) door.close?.();
  }

  #find(provider: string, registry: string): { readonly door: NativeDoor; readonly upstream: DemoUpstream } {
    const door = this.#deps.doors.get(registry);
    const upstream = this.#deps.upstreams.find(({ name }) => name === provider);
    if (door === undefined || upstream === undefined)
      throw new Error(`there is no provider ${provider}, or no registry ${registry}`);
    return { door, upstream };
  }

  #beat(): void {
    for (const entry of this.#registered) {
      const [provider = '', registry = ''] = entry.split(' ');
      const { door, upstream } = this.#find(provider, registry);
      const beat = upstream.alive ? door.beat?.({ name: provider, host: HOST, port: upstream.port }) : undefined;
      beat?.catch((thrown: unknown) => this.#deps.say(`a beat of ${provider} in ${registry}: ${messageOf(thrown)}`));
    }
  }

  async #take({ method, url = '/' }: IncomingMessage, response: ServerResponse): Promise<void> {
    const [, area, provider, registry] = url.split('/');
    try {
      if (area === 'providers' && provider !== undefined && registry !== undefined && method === 'PUT') {
        await this.put(provider, registry);
        response.end(`${provider} has registered itself in ${registry}\n`);
      } else if (area === 'providers' && provider !== undefined && registry !== undefined && method === 'DELETE') {
        await this.remove(provider, registry);
        response.end(`${provider} has left ${registry}\n`);
      } else if (area === 'providers') response.end(this.#table());
      else if (area === 'traffic') response.end(trafficText(this.#deps.traffic()));
      else response.writeHead(404).end('PUT and DELETE /providers/<name>/<registry>, GET /providers, GET /traffic\n');
    } catch (thrown) {
      response.writeHead(500).end(`${messageOf(thrown)}\n`);
    }
  }

  #table(): string {
    const rows = this.#deps.upstreams.map(({ name, port, alive }) => {
      const where = [...this.#registered]
        .filter((entry) => entry.startsWith(`${name} `))
        .map((entry) => entry.split(' ')[1] ?? '');
      return [name, hostPort(HOST, port), alive ? 'alive' : 'dead', where.join(', ') || '-'];
    });
    return table([{ head: 'PROVIDER' }, { head: 'ADDRESS' }, { head: 'STATE' }, { head: 'REGISTERED ITSELF IN' }], rows);
  }
}

function trafficText({ requests, failed }: StageTraffic): string {
  return `${requests} requests through the proxy, ${failed} failed\n`;
}
