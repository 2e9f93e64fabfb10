// Owns which L5 server is asked next: the configured ones, and after them those that the last answer named. Called by poller.ts and
// read-desk.ts. A learnt address passes the outbound policy before it is connected to; configured ones are trusted.
import type { DialPolicy } from '../../src/kernel/dial.ts';
import { asSourceError, SourceError } from '../../src/model/snapshot.ts';
import { type ServerAddress, serverAddress } from './config.ts';
import { printable } from './errors.ts';
import { type Link, type LinkOptions, openLink } from './link.ts';
import { dottedQuad } from './sid.ts';

/** More are not kept: each is only a further try after all others. */
const MAX_LEARNT = 32;
const MAX_MESSAGE = 1_000;

export interface ServersDeps {
  readonly link: LinkOptions;
  readonly dial: DialPolicy;
  readonly count: (what: string, by?: number) => void;
}

export class Servers {
  readonly #configured: readonly ServerAddress[];
  readonly #deps: ServersDeps;
  #learnt: readonly ServerAddress[] = [];
  /** Where the next connect of the poller begins. */
  #start = 0;

  constructor(configured: readonly ServerAddress[], deps: ServersDeps) {
    this.#configured = configured;
    this.#deps = deps;
  }

  /** All that may be tried, in their order. */
  get all(): readonly ServerAddress[] {
    return [...this.#configured, ...this.#learnt];
  }

  /** Connects to the first that takes us, beginning with the preferred one (`other`: the one after it). Rejects with SourceError. */
  async connect(which: 'preferred' | 'other', signal: AbortSignal): Promise<Link> {
    const all = this.all;
    const first = which === 'preferred' ? this.#start : this.#start + 1;
    const failures: SourceError[] = [];
    for (let n = 0; n < all.length; n++) {
      const at = (first + n) % all.length;
      const server = all[at];
      if (server === undefined) break;
      // Before the try: whoever gives up while one hangs goes on with the next one.
      if (which === 'preferred') this.#start = (at + 1) % all.length;
      try {
        const link = await openLink(server, this.#deps.link, signal);
        if (which === 'preferred') this.#start = at;
        return link;
      } catch (thrown) {
        signal.throwIfAborted();
        failures.push(asSourceError(thrown));
      }
    }
    const [only] = failures;
    if (only !== undefined && failures.length === 1) throw only;
    throw new SourceError('lost', printable(failures.map(({ message }) => message).join('; '), MAX_MESSAGE));
  }

  /** The link failed after it stood: the next connect begins with another server. */
  failed(link: Link): void {
    const all = this.all;
    const at = all.findIndex(({ text }) => text === link.server.text);
    this.#start = (at + 1) % all.length;
  }

  /** The server list of an answer; null (not said) leaves the configured ones alone. The protocol carries no ports: that of the teller. */
  learn(ips: readonly number[] | null, teller: ServerAddress): void {
    const learnt = new Map<string, ServerAddress>();
    for (const ip of ips ?? []) {
      const server = serverAddress(dottedQuad(ip), teller.port);
      if (this.#configured.some(({ text }) => text === server.text) || learnt.has(server.text)) continue;
      if (this.#deps.dial(server.host, server.port) !== null) this.#deps.count('servers.refused');
      else if (learnt.size < MAX_LEARNT) learnt.set(server.text, server);
    }
    this.#learnt = [...learnt.values()];
    if (this.#start >= this.all.length) this.#start = 0;
  }
}
