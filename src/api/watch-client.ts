// Owns one reader of /v1/watch: what it has not seen yet, and writing it as fast as it reads.
// Called by watch.ts. Nothing queues: a slow reader holds a set of names, skips to the newest state, and is dropped when it stops.
import type { ServerResponse } from 'node:http';
import type { Clock, Timer } from '../kernel/clock.ts';
import type { ServiceId } from '../model/service.ts';

/** No drain for this long: dropped (dependencies.md §5). */
const STALL_MS = 30_000;

/** One event as it stands on the wire; `id` is what to resume from, absent until the reader has everything. */
export interface SseEvent {
  readonly id?: number;
  readonly event: 'view' | 'removed' | 'source' | 'reset' | 'synced';
  /** JSON. */
  readonly data: string;
}

/** What a client asks when it is ready to write; null: nothing to say about it any more. */
export interface SseSource {
  service(service: ServiceId, stamp: number | null): Promise<SseEvent | null>;
  source(sourceId: string): SseEvent | null;
}

/** Text of an event. The data is JSON, so it has no line break. */
export function sseText({ id, event, data }: SseEvent): string {
  return `${id === undefined ? '' : `id: ${id}\n`}event: ${event}\ndata: ${data}\n\n`;
}

export class WatchClient {
  readonly #response: ServerResponse;
  readonly #source: SseSource;
  readonly #clock: Clock;
  /** In the order of their stamps, so that an id that was sent says that everything before it was sent, too. */
  readonly #services = new Map<ServiceId, number>();
  /** The whole state at the start, read name by name as the reader takes it; what changes meanwhile is told after it. */
  #fill: { readonly names: Iterator<ServiceId>; readonly stamp: number } | null = null;
  readonly #sources = new Set<string>();
  #pumping = false;
  #blocked = false;
  #closed = false;
  #stall: Timer | null = null;

  constructor(response: ServerResponse, source: SseSource, clock: Clock) {
    this.#response = response;
    this.#source = source;
    this.#clock = clock;
    response.on('drain', () => this.#drained());
    // A reader that is gone is told by `close`; its last write may fail besides.
    response.on('error', () => {});
  }

  get #hasNews(): boolean {
    return this.#fill !== null || this.#services.size > 0 || this.#sources.size > 0;
  }

  changed(service: ServiceId, stamp: number): void {
    this.#services.delete(service);
    this.#services.set(service, stamp);
    this.#start();
  }

  /** Tells the whole state, then `synced` with the stamp: from there on the reader can resume. */
  fill(names: Iterator<ServiceId>, stamp: number): void {
    this.#fill = { names, stamp };
    this.#start();
  }

  sourceChanged(sourceId: string): void {
    this.#sources.add(sourceId);
    this.#start();
  }

  /** Writes at once, for what must come first (reset, heartbeat); false while the reader is behind. */
  write(text: string): boolean {
    if (this.#closed || this.#blocked) return false;
    this.#send(text);
    return true;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#stall?.cancel();
    this.#services.clear();
    this.#fill = null;
    this.#sources.clear();
    this.#response.end();
  }

  #start(): void {
    if (this.#pumping || this.#closed) return;
    this.#pumping = true;
    setImmediate(() => void this.#pump());
  }

  async #pump(): Promise<void> {
    try {
      while (!this.#closed && !this.#blocked) {
        const next = await this.#next();
        if (next === undefined) return;
        // It was taken out of the set: it goes out even if a heartbeat has filled the buffer meanwhile.
        if (next !== null) this.#send(sseText(next));
        // One event a turn: 10,000 services at the start of a watch must not stall the loop.
        await new Promise<void>((resolve) => setImmediate(resolve));
      }
    } catch {
      // The state of a service could not be read: the reader comes back by Last-Event-ID.
      this.#response.destroy();
    } finally {
      this.#pumping = false;
      if (!this.#blocked && this.#hasNews) this.#start();
    }
  }

  /** Undefined: nothing waits. */
  async #next(): Promise<SseEvent | null | undefined> {
    for (const sourceId of this.#sources) {
      this.#sources.delete(sourceId);
      return this.#source.source(sourceId);
    }
    if (this.#fill !== null) return this.#nextOfFill(this.#fill);
    for (const [service, stamp] of this.#services) {
      this.#services.delete(service);
      return this.#source.service(service, stamp);
    }
    return undefined;
  }

  #nextOfFill({
    names,
    stamp,
  }: {
    readonly names: Iterator<ServiceId>;
    readonly stamp: number;
  }): Promise<SseEvent | null> | SseEvent {
    const name = names.next();
    if (name.done !== true) return this.#source.service(name.value, null);
    this.#fill = null;
    return { id: stamp, event: 'synced', data: '{}' };
  }

  #send(text: string): void {
    if (!this.#closed && !this.#response.write(text)) this.#block();
  }

  #block(): void {
    if (this.#blocked) return;
    this.#blocked = true;
    this.#stall = this.#clock.setTimer(STALL_MS, () => this.#response.destroy());
  }

  #drained(): void {
    this.#stall?.cancel();
    this.#stall = null;
    this.#blocked = false;
    this.#start();
  }
}
