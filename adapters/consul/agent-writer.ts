// Owns registration through the local agent (protocol notes, section 5): the agent owns the record and pushes it to the servers, a TTL
// check that the keeper beats says that we live, maintenance says drained. Called by adapter.ts for registrations of this host.
// Must never end a drain in silence, nor turn an unhealthy record healthy by beating.
import { createHash } from 'node:crypto';
import type { RenewResult, Write, WriteMode, WriteReceipt } from '../../src/adapter/contract.ts';
import type { RegistryHealth } from '../../src/model/instance.ts';
import { serviceId } from '../../src/model/service.ts';
import { asSourceError, SourceError } from '../../src/model/snapshot.ts';
import { segment } from './client.ts';
import { ConsulFailure, safeText } from './errors.ts';
import { type Line, scope } from './line.ts';
import { decodeCheck, decodeSelf } from './native.ts';
import { nativeFields, statusOf } from './native-fields.ts';

/** The agent removes what was critical for this long; its own minimum is one minute. */
const REAP_AFTER = '10m';
/** Every so many rounds of beats we look whether the agent still has the services. */
const LOOK_EVERY = 6;
const DRAIN_REASON = 'weir: isolated';
const PREFIX = 'weir: ';

type Status = 'passing' | 'warning' | 'critical';

/** Our id of a registration: unique on the agent's node, where ids are looked up without regard to case. */
export function agentServiceId({ key, instance }: Pick<Write, 'key' | 'instance'>): string {
  const digest = createHash('sha256')
    .update(`${serviceId(key)}\u0000${instance.id}`)
    .digest('hex')
    .slice(0, 8);
  return `weir-${safeText(instance.id, 64)}-${digest}`;
}

export class AgentWriter {
  readonly #line: Line;
  /** By native id: the status to beat with. */
  readonly #statuses = new Map<string, Status>();
  #self: Promise<{ node: string; datacenter: string }> | null = null;
  #rounds = 0;

  constructor(line: Line) {
    this.#line = line;
  }

  async put(writes: readonly Write[], how: WriteMode, signal: AbortSignal): Promise<readonly (WriteReceipt | SourceError)[]> {
    const { node } = await this.#home(signal);
    return settleAll(writes, signal, (write) => this.#putOne(write, node, how.ttl, signal));
  }

  async renew(receipts: readonly WriteReceipt[], signal: AbortSignal): Promise<readonly RenewResult[]> {
    if (receipts.some(({ nativeId }) => !this.#statuses.has(nativeId))) await this.#learn(receipts, signal);
    const there = this.#rounds++ % LOOK_EVERY === LOOK_EVERY - 1 ? await this.#services(signal) : null;
    return settleAll(receipts, signal, (receipt) => this.#beat(receipt, there, signal));
  }

  async setHealth({ nativeId }: WriteReceipt, health: RegistryHealth, signal: AbortSignal): Promise<void> {
    try {
      await this.#update(idOf(nativeId), statusOf(health), signal);
      this.#statuses.set(nativeId, statusOf(health));
    } catch (thrown) {
      if (isGone(thrown)) throw new SourceError('refused', 'consul: the agent does not have this registration any more');
      throw thrown;
    }
  }

  async remove(receipts: readonly WriteReceipt[], signal: AbortSignal): Promise<readonly (true | SourceError)[]> {
    return settleAll(receipts, signal, async ({ nativeId }): Promise<true> => {
      try {
        await this.#put(`/v1/agent/service/deregister/${segment(idOf(nativeId))}`, undefined, signal);
      } catch (thrown) {
        if (!isGone(thrown)) throw thrown;
      }
      this.#statuses.delete(nativeId);
      return true;
    });
  }

  async #putOne(write: Write, node: string, ttl: number, signal: AbortSignal): Promise<WriteReceipt> {
    const { config, count } = this.#line;
    const id = agentServiceId(write);
    const nativeId = `${node}/${id}`;
    const fields = nativeFields(write.instance, config.normalWeight, count);
    const status = statusOf(write.instance.health);
    const body = {
      ID: id,
      Name: write.key.name,
      Tags: fields.tags,
      Address: fields.address,
      Port: fields.port,
      Meta: fields.meta,
      Weights: fields.weights,
      EnableTagOverride: false,
      ...(config.namespace === null ? {} : { Namespace: config.namespace }),
      ...(config.partition === null ? {} : { Partition: config.partition }),
      Check: {
        CheckID: checkId(id),
        Name: 'weir',
        TTL: `${Math.round(ttl)}ms`,
        // Counts only for a new check. A drained record must not be seen passing before its maintenance begins.
        Status: fields.silent ? 'critical' : status,
        DeregisterCriticalServiceAfter: REAP_AFTER,
      },
    };
    const first = write.previous === undefined && !this.#statuses.has(nativeId);
    // It would remove the maintenance check, too: for our first registration only, where a left-over drain is lifted on purpose.
    const query = first ? { 'replace-existing-checks': 'true' } : {};
    await this.#put('/v1/agent/service/register', body, signal, query);
    await this.#maintenance(id, fields.silent, signal);
    await this.#update(id, status, signal);
    this.#statuses.set(nativeId, status);
    return { service: write.key, nativeId, token: `agent:${Math.round(ttl)}` };
  }

  async #beat({ nativeId, token }: WriteReceipt, there: ReadonlySet<string> | null, signal: AbortSignal): Promise<RenewResult> {
    const id = idOf(nativeId);
    const forgotten: RenewResult = { kind: 'forgotten' };
    if (there?.has(id) === false) return forgotten;
    try {
      await this.#update(id, this.#statuses.get(nativeId) ?? 'passing', signal);
    } catch (thrown) {
      if (isGone(thrown)) return forgotten;
      throw thrown;
    }
    return { kind: 'renewed', leaseMs: ttlOf(token) };
  }

  /** After a restart of ours only the agent knows what we said last. */
  async #learn(receipts: readonly WriteReceipt[], signal: AbortSignal): Promise<void> {
    const { body } = await this.#line.client.get('/v1/agent/checks', this.#where(), signal, 'control');
    const statuses = new Map<string, Status>();
    for (const value of typeof body === 'object' && body !== null ? Object.values(body) : []) {
      const check = decodeCheck(value);
      // "TTL expired" is the agent's own word: beating means that this is over.
      if (check?.output.startsWith(PREFIX) === true && isStatus(check.status)) statuses.set(check.checkId, check.status);
    }
    for (const { nativeId } of receipts) {
      if (!this.#statuses.has(nativeId)) this.#statuses.set(nativeId, statuses.get(checkId(idOf(nativeId))) ?? 'passing');
    }
  }

  async #services(signal: AbortSignal): Promise<ReadonlySet<string>> {
    const { body } = await this.#line.client.get('/v1/agent/services', this.#where(), signal, 'control');
    return new Set(typeof body === 'object' && body !== null ? Object.keys(body) : []);
  }

  async #maintenance(id: string, on: boolean, signal: AbortSignal): Promise<void> {
    const query = on ? { enable: 'true', reason: DRAIN_REASON } : { enable: 'false' };
    await this.#put(`/v1/agent/service/maintenance/${segment(id)}`, undefined, signal, query);
  }

  async #update(id: string, status: Status, signal: AbortSignal): Promise<void> {
    const body = { Status: status, Output: `${PREFIX}${status}` };
    await this.#put(`/v1/agent/check/update/${segment(checkId(id))}`, body, signal);
  }

  async #put(path: string, body: unknown, signal: AbortSignal, query: Readonly<Record<string, string>> = {}): Promise<void> {
    await this.#line.client.put(path, { ...this.#where(), ...query }, body, signal);
  }

  /** Agent calls know no `dc`. */
  #where(): Readonly<Record<string, string | null>> {
    return { ...scope(this.#line), dc: null };
  }

  /** The agent's node and datacenter, asked once. */
  async #home(signal: AbortSignal): Promise<{ node: string; datacenter: string }> {
    const { config, client } = this.#line;
    if (config.node !== null) return { node: config.node, datacenter: config.datacenter ?? '' };
    this.#self ??= this.#readSelf();
    const self = await this.#self;
    signal.throwIfAborted();
    if (config.datacenter !== null && config.datacenter !== self.datacenter) {
      const where = `the agent at ${client.origin} belongs to ${self.datacenter}`;
      throw new SourceError('refused', `consul: ${where}, not to ${config.datacenter}: register at an agent of that datacenter`);
    }
    return self;
  }

  async #readSelf(): Promise<{ node: string; datacenter: string }> {
    try {
      const never = new AbortController().signal;
      const self = decodeSelf((await this.#line.client.get('/v1/agent/self', {}, never, 'control')).body);
      if (self === null) throw new SourceError('malformed', `consul ${this.#line.client.origin}: /v1/agent/self has no NodeName`);
      return self;
    } catch (thrown) {
      this.#self = null;
      if (thrown instanceof ConsulFailure && thrown.status === 403) {
        throw new SourceError('denied', `${thrown.message}: give the token agent:read, or set node to the agent's node name`);
      }
      throw thrown;
    }
  }
}

/** Runs `one` for each; what fails is an answer, an abort is thrown. */
export async function settleAll<A, B>(
  all: readonly A[],
  signal: AbortSignal,
  one: (item: A) => Promise<B>,
): Promise<(B | SourceError)[]> {
  const results = await Promise.all(all.map((item) => one(item).catch(asSourceError)));
  signal.throwIfAborted();
  return results;
}

function checkId(id: string): string {
  return `service:${id}`;
}

/** The service id in `<node>/<service id>`; node names hold no slash. */
export function idOf(nativeId: string): string {
  return nativeId.slice(nativeId.indexOf('/') + 1);
}

function ttlOf(token: string | undefined): number {
  const ttl = Number(token?.startsWith('agent:') === true ? token.slice(6) : Number.NaN);
  return Number.isFinite(ttl) && ttl > 0 ? ttl : 15_000;
}

function isStatus(text: string): text is Status {
  return text === 'passing' || text === 'warning' || text === 'critical';
}

function isGone(thrown: unknown): boolean {
  return thrown instanceof ConsulFailure && thrown.status === 404 && /^Unknown (service|check) ID/.test(thrown.text);
}
