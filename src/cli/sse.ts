// Owns reading Server-Sent Events from chunks of text; bounded. Called by watch.ts. Pure.

export interface SseMessage {
  readonly id: string | null;
  readonly event: string;
  readonly data: string;
}

const MAX_EVENT_CHARS = 67_108_864;

/** Feeds chunks in, gets whole events out. */
export class SseParser {
  #rest = '';

  /** Events that the chunk completes. Throws RangeError for an event over 64 MiB. */
  push(chunk: string): SseMessage[] {
    this.#rest += chunk;
    if (this.#rest.length > MAX_EVENT_CHARS) throw new RangeError('an event of more than 64 MiB');
    const messages: SseMessage[] = [];
    for (let end = this.#rest.indexOf('\n\n'); end >= 0; end = this.#rest.indexOf('\n\n')) {
      const message = parse(this.#rest.slice(0, end));
      this.#rest = this.#rest.slice(end + 2);
      if (message !== null) messages.push(message);
    }
    return messages;
  }
}

/** Null for a comment (heartbeat). */
function parse(block: string): SseMessage | null {
  const lines = block.split('\n');
  const values = (name: string): string[] =>
    lines.filter((line) => line.startsWith(`${name}:`)).map((line) => line.slice(name.length + 1).replace(/^ /, ''));
  const data = values('data');
  if (data.length === 0) return null;
  return { id: values('id').at(-1) ?? null, event: values('event').at(-1) ?? 'message', data: data.join('\n') };
}
