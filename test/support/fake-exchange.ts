// An Exchange between a fake downstream connection, a fake cluster and fake upstream connections, on a clock that a test moves.
import type { AttemptOutcome, NoPick, PickCluster, PickedEndpoint } from '../../src/cluster/pick-interface.ts';
import type {
  BodyKind,
  DownstreamConnection,
  FieldName,
  RequestHead,
  ResponseHead,
  Trailers,
  UpstreamConnection,
  UpstreamFailure,
  UpstreamUser,
} from '../../src/http1/exchange.ts';
import { internName } from '../../src/http1/fields.ts';
import { Pool, type PoolTicket } from '../../src/http1/pool.ts';
import type { Clock, Timer } from '../../src/kernel/clock.ts';
import { silentLog } from '../../src/kernel/log.ts';
import { TimerWheel } from '../../src/kernel/timer-wheel.ts';
import { type ClusterPolicy, DEFAULT_CLUSTER_POLICY } from '../../src/model/policy.ts';
import { AccessLog } from '../../src/proxy/access-log.ts';
import { Exchange } from '../../src/proxy/exchange.ts';
import { OverloadGate } from '../../src/proxy/overload.ts';
import type { NoCluster, ProxyContext } from '../../src/proxy/proxy-context.ts';
import { DEFAULT_METHODS } from '../../src/proxy/request-filter.ts';
import { Router } from '../../src/proxy/route.ts';
import { ServiceSlot } from '../../src/proxy/service-slot.ts';
import { Counter, Metrics } from '../../src/telemetry/metrics.ts';
import { FakeClock } from './fake-clock.ts';

/** A fake clock whose loop can stall: time passes and no timer fires until the next advance. */
export class StallingClock implements Clock {
  readonly inner = new FakeClock();
  #offset = 0;

  now(): number {
    return this.inner.now() + this.#offset;
  }

  wallNow(): number {
    return this.inner.wallNow() + this.#offset;
  }

  setTimer(ms: number, fn: () => void): Timer {
    return this.inner.setTimer(ms, fn);
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return this.inner.sleep(ms, signal);
  }

  stall(ms: number): void {
    this.#offset += ms;
  }

  advance(ms: number): void {
    this.inner.advanceSync(ms);
  }
}

/** What the client saw. */
export class FakeDown implements DownstreamConnection {
  readonly remoteAddress = '127.0.0.1';
  readonly remotePort = 1;
  readonly localPort = 2;
  closing = false;
  readonly replies: { status: number; head: string; body: string; whole: boolean; ended: boolean }[] = [];
  readonly interim: string[] = [];
  destroyed = false;
  paused = false;
  continued = 0;
  lifted = false;
  tunnel = '';
  tunnelEnded = false;

  get last() {
    return this.replies.at(-1);
  }

  reply(head: string, body: string | Buffer | null): void {
    this.replies.push({ status: Number(head.slice(9, 12)), head, body: body?.toString() ?? '', whole: true, ended: true });
  }

  replyHead(head: string): boolean {
    this.replies.push({ status: Number(head.slice(9, 12)), head, body: '', whole: false, ended: false });
    return true;
  }

  replyBody(view: Buffer, done: () => void): boolean {
    const { last } = this;
    if (last !== undefined) last.body += view.toString();
    done();
    return true;
  }

  replyEnd(_trailers?: Trailers): void {
    const { last } = this;
    if (last !== undefined) last.ended = true;
  }

  informational(head: string): void {
    this.interim.push(head);
  }

  continue100(): void {
    this.continued++;
  }

  liftRequestTimeout(): void {
    this.lifted = true;
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
  }

  upgrade(head: string): void {
    this.tunnel = head;
  }

  upgradedWrite(_view: Buffer, done: () => void): boolean {
    done();
    return true;
  }

  upgradedEnd(): void {
    this.tunnelEnded = true;
  }

  destroy(): void {
    this.destroyed = true;
  }
}

/** One attempt's connection: what was sent on it, and how it goes on. */
export class FakeConnection implements UpstreamConnection {
  reused = false;
  sent = '';
  ended = false;
  abandoned = false;
  /** What `write` answers. */
  takes = true;
  readonly user: UpstreamUser;

  constructor(user: UpstreamUser) {
    this.user = user;
  }

  send(head: string, body: Buffer | null, more: boolean): void {
    this.sent = head + (body?.toString('latin1') ?? '');
    this.ended = !more;
  }

  write(view: Buffer, done: () => void): boolean {
    this.sent += view.toString('latin1');
    done();
    return this.takes;
  }

  endBody(tail: string): void {
    this.sent += tail;
    this.ended = true;
  }

  hold(): void {}
  release(): void {}

  upgradedWrite(_view: Buffer, done: () => void): boolean {
    done();
    return true;
  }

  upgradedEnd(): void {}

  abandon(): void {
    this.abandoned = true;
  }
}

/** connect: at once · queue: waits until `open` · a failure: at once. */
type Mode = 'connect' | 'queue' | UpstreamFailure;

export class FakePool extends Pool {
  mode: Mode = 'connect';
  readonly connections: FakeConnection[] = [];
  waiting: UpstreamUser | null = null;
  cancelled = 0;

  override acquire(user: UpstreamUser): PoolTicket | null {
    if (this.mode === 'connect') this.#connect(user);
    else if (this.mode === 'queue') {
      this.waiting = user;
      return {
        cancel: () => {
          this.waiting = null;
          this.cancelled++;
        },
      };
    } else user.failed(this.mode);
    return null;
  }

  open(): void {
    const user = this.waiting;
    this.waiting = null;
    if (user !== null) this.#connect(user);
  }

  get last(): FakeConnection {
    const connection = this.connections.at(-1);
    if (connection === undefined) throw new Error('nothing was sent');
    return connection;
  }

  #connect(user: UpstreamUser): void {
    const connection = new FakeConnection(user);
    this.connections.push(connection);
    user.connected(connection);
  }
}

/** Counts what it was told; picks its endpoints in turn. */
export class FakeCluster implements PickCluster {
  readonly service = 'demo/hello';
  policy: ClusterPolicy;
  panic = false;
  noPick: NoPick = 'NO_HEALTHY_UPSTREAM';
  readonly pool: FakePool;
  readonly outcomes: AttemptOutcome[] = [];
  readonly tried: number[] = [];
  started = 0;
  finished = 0;
  picks = 0;
  firsts = 0;
  granted = 0;
  retriesEnded = 0;
  grants = true;
  admits = true;
  empty = false;
  readonly #picked: PickedEndpoint[] = [];

  constructor(pool: FakePool, policy: Partial<ClusterPolicy>) {
    this.pool = pool;
    this.policy = { ...DEFAULT_CLUSTER_POLICY, ...policy };
  }

  startRequest(): boolean {
    if (this.admits) this.started++;
    return this.admits;
  }

  endRequest(): void {
    this.finished++;
  }

  countFirstAttempt(): void {
    this.firsts++;
  }

  tryRetry(): boolean {
    if (this.grants) this.granted++;
    return this.grants;
  }

  endRetry(): void {
    this.retriesEnded++;
  }

  readonly stickyHeader = null;
  readonly drawnSide = -1;
  countSide(): void {}
  pick(tried: readonly PickedEndpoint[] | null): PickedEndpoint | null {
    this.tried.push(tried?.length ?? 0);
    if (this.empty) return null;
    const port = ++this.picks;
    const endpoint = { host: '10.0.0.1', port, address: `10.0.0.1:${port}`, pool: this.pool };
    this.#picked.push(endpoint);
    return endpoint;
  }

  end(endpoint: PickedEndpoint, outcome: AttemptOutcome): void {
    const at = this.#picked.indexOf(endpoint);
    if (at < 0) throw new Error(`${endpoint.address} was ended twice, or never picked`);
    this.#picked.splice(at, 1);
    this.outcomes.push(outcome);
  }
}

/** Everything around one exchange. */
export class ExchangeRig {
  readonly clock = new StallingClock();
  readonly wheel = new TimerWheel(this.clock, 20);
  readonly gate = new OverloadGate();
  readonly down = new FakeDown();
  readonly pool: FakePool;
  readonly cluster: FakeCluster;
  readonly exchange: Exchange;
  /** What the catalog says; null: the cluster. */
  catalog: NoCluster | 'pending' | null = null;
  waiter: ((answer: ServiceSlot | NoCluster) => void) | null = null;
  readonly slot: ServiceSlot;
  random = 0.5;

  constructor(policy: Partial<ClusterPolicy> = {}) {
    this.pool = new FakePool({ host: '10.0.0.1', port: 1, wheel: this.wheel });
    this.cluster = new FakeCluster(this.pool, policy);
    this.slot = new ServiceSlot(this.cluster, new Metrics());
    const filter = { pseudonym: 'weir-me', methods: new Set(DEFAULT_METHODS), direction: 'outbound', main: true } as const;
    const listener = { facts: { filter, service: null, isTrusted: () => false } };
    this.exchange = new Exchange(this.#context(), listener, this.down, () => {});
  }

  /** A request without a body, or with `body` as the codec hands over what came in one read. */
  request(method = 'GET', body: string | null = null, ...fields: string[]): void {
    this.begin(method, body === null ? 'none' : 'length', body === null ? -1 : body.length, ...fields);
    if (body !== null && body !== '' && this.exchange.busy) this.exchange.body(Buffer.from(body));
    if (this.exchange.busy) this.exchange.requestEnd(null);
  }

  /** The head alone. */
  begin(method: string, kind: BodyKind, length: number, ...fields: string[]): void {
    this.exchange.request(requestHead(method, fields), kind, length);
  }

  get upstream(): FakeConnection {
    return this.pool.last;
  }

  respond(status: number, body: string | null = 'ok', ...fields: string[]): void {
    this.upstream.user.responseWhole(responseHead(status, fields), body === null ? null : Buffer.from(body));
  }

  fail(failure: Partial<UpstreamFailure>): void {
    this.upstream.user.failed({ class: 'no-response', cause: 'reset', message: 'x', reused: false, ...failure });
  }

  #context(): ProxyContext {
    const counter = new Counter();
    return {
      clock: this.clock,
      wheel: this.wheel,
      random: () => this.random,
      log: silentLog,
      gate: this.gate,
      router: new Router(),
      accessLog: new AccessLog(null, this.clock, counter),
      dropped: { twins: counter, identity: counter, named: counter },
      newId: () => 'id',
      countLocalReply: () => {},
      find: () => this.catalog ?? this.slot,
      wait: (_service, waiter) => {
        this.waiter = waiter;
        return () => {
          this.waiter = null;
        };
      },
    };
  }
}

function split(fields: readonly string[]): { names: FieldName[]; values: string[] } {
  const names: FieldName[] = [];
  const values: string[] = [];
  for (const field of fields) {
    const colon = field.indexOf(':');
    names.push(internName(field.slice(0, colon)));
    values.push(field.slice(colon + 1).trim());
  }
  return { names, values };
}

export function requestHead(method: string, fields: readonly string[] = []): RequestHead {
  return { method, target: '/', minor: 1, ...split(['Host: hello.demo.weir', ...fields]) };
}

export function responseHead(status: number, fields: readonly string[] = []): ResponseHead {
  return { status, reason: 'X', minor: 1, ...split(fields) };
}
