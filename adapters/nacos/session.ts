// Owns one life as a client of one server: handshake, health calls, answers to pushes, naming calls with the token (section 4).
// Called by line.ts, which opens the next one; must never survive a loss: whatever breaks ends it, once, and closes the connection.
//
//   check ──▶ bi-stream + setup ──▶ ack (≤ 5 s; old servers: 100 ms) ──▶ calls and pushes, health every 5 s ──▶ end
import { Gate } from '../../src/adapter/gate.ts';
import type { Clock } from '../../src/kernel/clock.ts';
import { isRecord, parseJson } from '../../src/kernel/decode.ts';
import { asSourceError, SourceError } from '../../src/model/snapshot.ts';
import type { Auth } from './auth.ts';
import type { NacosConfig, NacosServer } from './config.ts';
import { GrpcFailure, refusalOf, STARTING, sourceError, UNREGISTERED } from './errors.ts';
import type { TlsMaterial } from './http.ts';
import { Link, loadGrpc } from './link.ts';
import { type Answer, decodeAnswer, stringOf } from './native.ts';
import { type Frame, MAX_MESSAGE_BYTES } from './wire.ts';

/** A fixed timer: a client that calls only when in doubt is lost to the server's detection race. */
export const HEALTH_EVERY_MS = 5_000;
const HEALTH_TIMEOUT_MS = 3_000;
const ACK_TIMEOUT_MS = 5_000;
const OLD_SERVER_WAIT_MS = 100;
const STARTING_TRIES = 30;
/** Naming calls under way at once: after a reconnect everything is subscribed and registered again, and a server is no sink. */
export const CALLS_AT_ONCE = 32;

export interface SessionDeps {
  readonly config: NacosConfig;
  readonly auth: Auth;
  readonly clock: Clock;
  /** Deadline of one call, ms. */
  readonly timeout: number;
  readonly count: (what: string, by?: number) => void;
}

/** Told in the order of arrival; must not throw. `onEnd` at most once, never after `close`. */
export interface SessionEvents {
  onService(session: Session, serviceInfo: unknown): void;
  onFuzzy(session: Session, type: string, body: Readonly<Record<string, unknown>>): void;
  /** Null: to any other server. */
  onReset(session: Session, target: { readonly host: string; readonly port: string } | null): void;
  onEnd(session: Session, error: SourceError): void;
}

export class Session {
  readonly server: NacosServer;
  /** Rises with every session of the source. */
  readonly number: number;
  /** The server's id of this connection; new with every connection, so it names an epoch. */
  connectionId = '';
  /** What the server can do beyond the base. */
  abilities: ReadonlySet<string> = new Set();
  readonly #deps: SessionDeps;
  readonly #events: SessionEvents;
  readonly #link: Link;
  readonly #ended = new AbortController();
  readonly #gate = new Gate(CALLS_AT_ONCE);
  #onAck: (() => void) | null = null;
  #lastUse: number;

  private constructor(server: NacosServer, number: number, link: Link, deps: SessionDeps, events: SessionEvents) {
    this.server = server;
    this.number = number;
    this.#link = link;
    this.#deps = deps;
    this.#events = events;
    this.#lastUse = deps.clock.now();
  }

  /** Connects and shakes hands. Rejects with SourceError, or with the signal's reason; then nothing is left open. */
  static async open(
    server: NacosServer,
    number: number,
    tls: TlsMaterial | null,
    deps: SessionDeps,
    events: SessionEvents,
    signal: AbortSignal,
  ): Promise<Session> {
    const grpc = await loadGrpc();
    signal.throwIfAborted();
    let link: Link;
    try {
      link = new Link(grpc, server.grpc, tls, deps.clock);
    } catch (thrown) {
      throw new SourceError('denied', `nacos: tls.ca, tls.cert or tls.key is not usable: ${asSourceError(thrown).message}`, {
        cause: thrown,
      });
    }
    const session = new Session(server, number, link, deps, events);
    try {
      await session.#handshake(signal);
      return session;
    } catch (thrown) {
      session.close();
      if (signal.aborted) throw signal.reason;
      throw sourceError(thrown);
    }
  }

  get alive(): boolean {
    return !this.#ended.signal.aborted;
  }

  /**
   * Polaris' face keeps instances one by one: a batch adds, and a deregistration takes what it names (seen, 1.18.1), where Nacos
   * keeps one entry for each service and connection. Its connection ids do not end in a port.
   */
  get oneByOne(): boolean {
    return this.connectionId !== '' && !/_\d+$/.test(this.connectionId);
  }

  /** Since the last call of `call`, ms. */
  get idleMs(): number {
    return this.#deps.clock.now() - this.#lastUse;
  }

  /** A naming call; `fields` beside namespace and module. Rejects with SourceError (NacosRefusal for a no), or the signal's reason. */
  async call(type: string, fields: Readonly<Record<string, unknown>>, signal: AbortSignal): Promise<Answer> {
    this.#lastUse = this.#deps.clock.now();
    const until = AbortSignal.any([signal, this.#ended.signal]);
    const { auth, config, timeout } = this.#deps;
    try {
      return await auth.run(this.server, until, async (token) => {
        const headers = token === null ? config.headers : { ...config.headers, accessToken: token };
        const body = { namespace: config.namespace, module: 'naming', ...fields };
        const leave = await this.#gate.enter(until);
        const frame = await this.#link.unary(type, body, headers, timeout, until).finally(leave);
        const answer = this.#decode(type, frame);
        if (answer.ok) return answer;
        const refusal = refusalOf(this.server.grpc, type, answer);
        if (answer.errorCode === UNREGISTERED || answer.errorCode === -401) this.#end(refusal);
        throw refusal;
      });
    } catch (thrown) {
      if (signal.aborted) throw signal.reason;
      if (this.#ended.signal.aborted) throw this.#ended.signal.reason;
      throw sourceError(thrown);
    }
  }

  /** Quiet: no event follows. The server drops what belongs to the connection. */
  close(): void {
    if (this.alive) this.#ended.abort(new SourceError('lost', 'nacos: the connection was closed'));
    this.#link.close();
  }

  async #handshake(signal: AbortSignal): Promise<void> {
    const { config, clock } = this.#deps;
    const check = await this.#check(signal);
    this.connectionId = stringOf(check.body['connectionId']) ?? '';
    const acked = new Promise<void>((resolve) => {
      this.#onAck = resolve;
    });
    let failed: (failure: GrpcFailure) => void = () => {};
    const broken = new Promise<never>((_, reject) => {
      failed = reject;
    });
    broken.catch(() => {});
    let open = false;
    this.#link.stream(
      (frame) => this.#onFrame(frame),
      (failure) => (open ? this.#end(sourceError(failure)) : failed(failure)),
    );
    this.#link.send(
      'ConnectionSetupRequest',
      {
        clientVersion: 'weir',
        tenant: config.namespace,
        labels: { source: 'sdk', module: 'naming', AppName: 'weir' },
        abilityTable: { fuzzyWatch: true },
        module: 'internal',
      },
      config.headers,
    );
    const negotiates = check.body['supportAbilityNegotiation'] === true;
    const waited = new AbortController();
    try {
      const late = clock
        .sleep(negotiates ? ACK_TIMEOUT_MS : OLD_SERVER_WAIT_MS, AbortSignal.any([signal, waited.signal]))
        .then(() => {
          if (negotiates)
            throw new GrpcFailure(4, 'the server does not confirm the connection (SetupAckRequest)', this.server.grpc);
        });
      late.catch(() => {});
      await Promise.race(negotiates ? [acked, broken, late] : [broken, late]);
    } finally {
      waited.abort();
    }
    open = true;
    this.#link.seal();
    this.#healthLater();
  }

  async #check(signal: AbortSignal): Promise<Answer> {
    const { clock, config, timeout } = this.#deps;
    for (let round = 1; ; round++) {
      const body = { module: 'internal' };
      const frame = await this.#link.unary('ServerCheckRequest', body, config.headers, Math.min(timeout, ACK_TIMEOUT_MS), signal);
      const answer = this.#decode('ServerCheckRequest', frame);
      if (answer.ok) return answer;
      if (answer.errorCode !== STARTING || round === STARTING_TRIES)
        throw refusalOf(this.server.grpc, 'ServerCheckRequest', answer);
      await clock.sleep(1_000, signal);
    }
  }

  #decode(type: string, frame: Frame): Answer {
    const parsed = parseJson(frame.body, { maxBytes: MAX_MESSAGE_BYTES });
    const answer = parsed.ok ? decodeAnswer(frame.type, parsed.value) : null;
    if (answer !== null) return answer;
    throw new SourceError(
      'malformed',
      `nacos ${this.server.grpc}: ${type} is answered by something else than Nacos' JSON: check servers and grpcPort`,
    );
  }

  #healthLater(): void {
    const timer = this.#deps.clock.setTimer(HEALTH_EVERY_MS, () => {
      this.#ended.signal.removeEventListener('abort', cancel);
      void this.#health();
    });
    const cancel = (): void => timer.cancel();
    this.#ended.signal.addEventListener('abort', cancel, { once: true });
  }

  async #health(): Promise<void> {
    this.#healthLater();
    try {
      const { config } = this.#deps;
      const frame = await this.#link.unary(
        'HealthCheckRequest',
        { module: 'internal' },
        config.headers,
        HEALTH_TIMEOUT_MS,
        this.#ended.signal,
      );
      const answer = this.#decode('HealthCheckRequest', frame);
      if (!answer.ok) throw refusalOf(this.server.grpc, 'HealthCheckRequest', answer);
    } catch (thrown) {
      if (this.alive) this.#end(sourceError(thrown));
    }
  }

  #onFrame(frame: Frame | null): void {
    const parsed = frame === null ? null : parseJson(frame.body, { maxBytes: MAX_MESSAGE_BYTES });
    if (frame === null || parsed?.ok !== true || !isRecord(parsed.value)) {
      this.#deps.count('push.malformed');
      return;
    }
    const body = parsed.value;
    const answer = ANSWERS.get(frame.type);
    if (answer === undefined) {
      this.#deps.count('push.unknown');
      return;
    }
    // First, so that no work of ours delays it.
    const requestId = stringOf(body['requestId']);
    const ack = { resultCode: 200, errorCode: 0, success: true, ...(requestId === null ? {} : { requestId }) };
    this.#link.send(answer, ack, this.#deps.config.headers);
    switch (frame.type) {
      case 'NotifySubscriberRequest':
        return this.#events.onService(this, body['serviceInfo']);
      case 'SetupAckRequest':
        this.abilities = new Set(
          isRecord(body['abilityTable'])
            ? Object.entries(body['abilityTable']).flatMap(([name, on]) => (on === true ? [name] : []))
            : [],
        );
        this.#onAck?.();
        return;
      case 'ConnectResetRequest': {
        const host = stringOf(body['serverIp']);
        const port = body['serverPort'];
        return this.#events.onReset(this, host === null || host === '' ? null : { host, port: String(port ?? '') });
      }
      case 'NamingFuzzyWatchSyncRequest':
      case 'NamingFuzzyWatchChangeNotifyRequest':
        return this.#events.onFuzzy(this, frame.type, body);
      default:
        return;
    }
  }

  #end(error: SourceError): void {
    if (!this.alive) return;
    this.#ended.abort(error);
    this.#link.close();
    this.#events.onEnd(this, error);
  }
}

/** Push → type of its answer. */
const ANSWERS: ReadonlyMap<string, string> = new Map(
  ['NotifySubscriber', 'ClientDetection', 'ConnectReset', 'SetupAck', 'NamingFuzzyWatchSync', 'NamingFuzzyWatchChangeNotify'].map(
    (name) => [`${name}Request`, `${name}Response`],
  ),
);
