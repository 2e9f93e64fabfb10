// Owns the way to a set of Polaris servers: which one is asked now, its connection, the files of TLS. gRPC first, HTTP as a fallback.
// Called by feed.ts, adapter.ts and writer.ts; must never retry (a loss moves on to the next server for the next try).
import { readFile } from 'node:fs/promises';
import type { SourceOptions } from '../../src/adapter/contract.ts';
import type { Clock } from '../../src/kernel/clock.ts';
import { messageOf } from '../../src/kernel/errors.ts';
import { type Random, randomBelow } from '../../src/kernel/random.ts';
import type { TimerWheel } from '../../src/kernel/timer-wheel.ts';
import { asSourceError, SourceError } from '../../src/model/snapshot.ts';
import { Connection, type TlsMaterial } from './client.ts';
import type { PolarisServerAddress } from './config.ts';
import { PolarisFailure, sourceError, UNIMPLEMENTED } from './errors.ts';
import { HttpApi, HttpAsker } from './http.ts';
import { codec, type NativeInstance, type NativeResponse, type WriteName } from './protocol.ts';
import type { Asker, Question, Result } from './question.ts';
import { DiscoverStreams } from './stream.ts';

export interface ServersDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly wheel: TimerWheel;
}

/** An answer and who gave it. */
export interface Written {
  readonly server: string;
  readonly answer: NativeResponse;
}

/** An answer to a question and who gave it. */
export interface Told {
  readonly server: string;
  readonly result: Exclude<Result, { kind: 'failed' }>;
}

type Place = { readonly kind: 'grpc'; readonly connection: Connection } | { readonly kind: 'http'; readonly api: HttpApi };

const beats = codec('BatchHeartbeat');

export class Servers {
  readonly #list: readonly PolarisServerAddress[];
  readonly #options: SourceOptions;
  readonly #deps: ServersDeps;
  readonly #places = new Map<number, Place>();
  readonly #askers = new Set<Asker>();
  #current: number;
  #closed = false;

  constructor(list: readonly PolarisServerAddress[], options: SourceOptions, deps: ServersDeps) {
    this.#list = list;
    this.#options = options;
    this.#deps = deps;
    // A fleet of sidecars must not all begin at the first server.
    const grpc = list.filter(({ kind }) => kind === 'grpc').length;
    this.#current = randomBelow(deps.random, Math.max(1, grpc));
  }

  /** How many there are. */
  get size(): number {
    return this.#list.length;
  }

  /** The server that is asked now. */
  get server(): string {
    return this.#list[this.#current]?.address ?? '';
  }

  /** True when HTTP is used although a gRPC server is configured. */
  get onFallback(): boolean {
    return this.#list[this.#current]?.kind === 'http' && this.#list[0]?.kind === 'grpc';
  }

  /** Questions to the current server until `onLost` (called once) or `close` of the asker. Rejects with SourceError. */
  async open(onLost: (error: SourceError) => void): Promise<Asker> {
    return this.#open(this.#current, onLost);
  }

  /** The first gRPC server that answers is taken as the current one; null when none does. For the way back from HTTP. */
  async backToGrpc(question: Question, onLost: (error: SourceError) => void, signal: AbortSignal): Promise<Asker | null> {
    for (const [index, { kind }] of this.#list.entries()) {
      if (kind !== 'grpc') continue;
      let live = false;
      const asker = await this.#open(index, (error) => (live ? onLost(error) : undefined));
      const result = await asked(asker, question, signal);
      if (result.kind !== 'failed') {
        live = true;
        this.#current = index;
        return asker;
      }
      asker.close(result.error);
      this.#drop(index);
    }
    return null;
  }

  /**
   * One question on a stream of its own. `other` asks another server than the current one where there is one, and the current one
   * where that is down. Rejects with SourceError.
   */
  async ask(question: Question, signal: AbortSignal, other = false): Promise<Told> {
    const another = (this.#current + 1) % this.#list.length;
    if (other && another !== this.#current) {
      try {
        return await this.#askAt(another, question, signal);
      } catch (thrown) {
        signal.throwIfAborted();
        if (asSourceError(thrown).causeKind !== 'lost') throw thrown;
      }
    }
    return this.#askAt(this.#current, question, signal);
  }

  /** A register, deregister or beat. Rejects with SourceError or the signal's reason; refusals are answers. */
  async write(name: WriteName, instance: NativeInstance, signal: AbortSignal): Promise<Written> {
    const index = this.#current;
    const place = await this.#place(index);
    try {
      const answer =
        place.kind === 'http'
          ? await place.api.write(name, instance, signal)
          : await place.connection.call(name, instance, signal);
      return { server: this.#list[index]?.address ?? '', answer };
    } catch (thrown) {
      signal.throwIfAborted();
      const error = sourceError(thrown);
      if (error.causeKind === 'lost') this.#failed(index);
      throw error;
    }
  }

  /** Beats many instances by one message; false where the server does not have that. Rejects like `write`. */
  async beat(ids: readonly string[], signal: AbortSignal): Promise<boolean> {
    const index = this.#current;
    const place = await this.#place(index);
    if (place.kind === 'http') return false;
    try {
      await this.#beat(place.connection, ids, signal);
      return true;
    } catch (thrown) {
      signal.throwIfAborted();
      if (thrown instanceof PolarisFailure && thrown.status === UNIMPLEMENTED) return false;
      const error = sourceError(thrown);
      if (error.causeKind === 'lost') this.#failed(index);
      throw error;
    }
  }

  /** A call of the console API, on any server that is given as http://. Null when none is. Rejects with SourceError. */
  async console(path: string, method: 'GET' | 'POST', body: object | null, signal: AbortSignal): Promise<unknown> {
    const index = this.#list.findIndex(({ kind }) => kind === 'http');
    const place = index < 0 ? null : await this.#place(index);
    return place?.kind === 'http' ? place.api.json(method, path, body, signal) : null;
  }

  /** The server of this asker is lost: the next one is current from now on, unless that was done already. */
  lost(server: string): void {
    const index = this.#list.findIndex(({ address }) => address === server);
    if (index >= 0) this.#failed(index);
  }

  close(): void {
    this.#closed = true;
    for (const asker of [...this.#askers]) asker.close(closedError());
    for (const index of [...this.#places.keys()]) this.#drop(index);
  }

  async #askAt(index: number, question: Question, signal: AbortSignal): Promise<Told> {
    const place = await this.#place(index);
    const asker = place.kind === 'http' ? null : this.#streams(place.connection, index, () => undefined);
    const result = place.kind === 'http' ? await place.api.discover(question, signal) : await asked(asker, question, signal);
    asker?.close(new SourceError('lost', 'polaris: the question is answered'));
    if (result.kind !== 'failed') return { server: this.#list[index]?.address ?? '', result };
    if (result.error.causeKind === 'lost') this.#failed(index);
    throw result.error;
  }

  #failed(index: number): void {
    this.#drop(index);
    if (index === this.#current) this.#current = (this.#current + 1) % this.#list.length;
  }

  async #open(index: number, onLost: (error: SourceError) => void): Promise<Asker> {
    const place = await this.#place(index);
    if (place.kind === 'grpc') return this.#streams(place.connection, index, onLost);
    const asker = new HttpAsker(await this.#http(index), (error) => {
      this.#askers.delete(asker);
      this.#failed(index);
      onLost(error);
    });
    this.#askers.add(asker);
    return asker;
  }

  #streams(connection: Connection, index: number, onLost: (error: SourceError) => void): Asker {
    const asker = new DiscoverStreams({
      server: connection.server,
      wheel: this.#deps.wheel,
      timeout: this.#options.timeout,
      open: (onMessage, onEnd) => connection.stream('Discover', onMessage, onEnd),
      onEnd: () => this.#askers.delete(asker),
      onLost: (error) => {
        this.#failed(index);
        onLost(error);
      },
    });
    this.#askers.add(asker);
    return asker;
  }

  #beat(connection: Connection, ids: readonly string[], outer: AbortSignal): Promise<void> {
    const { clock } = this.#deps;
    return new Promise((resolve, reject) => {
      const end = (settle: () => void): void => {
        timer.cancel();
        outer.removeEventListener('abort', onAbort);
        stream.cancel();
        settle();
      };
      const onAbort = (): void => end(() => reject(outer.reason));
      const timer = clock.setTimer(this.#options.timeout, () =>
        end(() => reject(new SourceError('lost', `polaris ${connection.server}: no answer to a batch of beats`))),
      );
      const stream = connection.stream(
        'BatchHeartbeat',
        () => end(resolve),
        (failure) => end(() => reject(failure)),
      );
      outer.addEventListener('abort', onAbort, { once: true });
      stream.write(beats.encodeRequest({ heartbeats: ids.map((instanceId) => ({ instanceId })) }));
    });
  }

  async #place(index: number): Promise<Place> {
    const known = this.#places.get(index);
    if (known !== undefined) return known;
    const fresh = await this.#connect(index);
    const raced = this.#places.get(index);
    if (raced === undefined && !this.#closed) {
      this.#places.set(index, fresh);
      return fresh;
    }
    closePlace(fresh);
    if (raced === undefined) throw closedError();
    return raced;
  }

  async #connect(index: number): Promise<Place> {
    const server = this.#list[index];
    if (this.#closed || server === undefined) throw closedError();
    if (server.kind === 'http') return { kind: 'http', api: await this.#http(index) };
    const tls = server.tls ? await this.#tlsMaterial() : null;
    const { auth, timeout } = this.#options;
    try {
      return { kind: 'grpc', connection: new Connection(server.address, tls, auth.token ?? null, timeout, this.#deps.clock) };
    } catch (thrown) {
      throw new SourceError('denied', `polaris: tls.ca, tls.cert or tls.key is not usable: ${messageOf(thrown)}`, {
        cause: thrown,
      });
    }
  }

  async #http(index: number): Promise<HttpApi> {
    const server = this.#list[index];
    if (this.#closed || server === undefined) throw closedError();
    const tls = server.tls ? await this.#tlsMaterial() : null;
    const { auth, timeout } = this.#options;
    return new HttpApi(server.address, tls, {
      client: await import('undici'),
      clock: this.#deps.clock,
      token: auth.token ?? null,
      timeout,
    });
  }

  #drop(index: number): void {
    const place = this.#places.get(index);
    this.#places.delete(index);
    if (place !== undefined) closePlace(place);
  }

  /** Read again for each connection, so that renewed certificates are taken without a restart. */
  async #tlsMaterial(): Promise<TlsMaterial> {
    const { ca, cert, key, serverName } = this.#options.tls ?? {};
    const read = async (path: string | undefined, name: string): Promise<Buffer | null> => {
      if (path === undefined) return null;
      try {
        return await readFile(path);
      } catch (thrown) {
        throw new SourceError('denied', `polaris: tls.${name} cannot be read: ${messageOf(thrown)}`, { cause: thrown });
      }
    };
    const [caBytes, certBytes, keyBytes] = await Promise.all([read(ca, 'ca'), read(cert, 'cert'), read(key, 'key')]);
    return { ca: caBytes, cert: certBytes, key: keyBytes, serverName: serverName ?? null };
  }
}

function closedError(): SourceError {
  return new SourceError('lost', 'polaris: the source is closed');
}

function closePlace(place: Place): void {
  if (place.kind === 'grpc') place.connection.close();
  else place.api.close();
}

/** One question as a promise. Rejects with the signal's reason only. */
function asked(asker: Asker | null, question: Question, signal: AbortSignal): Promise<Result> {
  return new Promise((resolve, reject) => {
    if (signal.aborted || asker === null) return reject(signal.reason);
    const onAbort = (): void => {
      asker.close(closedError());
      reject(signal.reason);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    asker.ask(question, (result) => {
      signal.removeEventListener('abort', onAbort);
      resolve(result);
    });
  });
}
