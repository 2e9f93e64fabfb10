// Owns what we have registered on our gRPC connection: the whole set of each service, sent whole at each change, and again on every
// new connection (section 5, rules 1 and 2). Called by adapter.ts and line.ts; must never send a part of a set.
import type { AdapterDeps } from '../../src/adapter/contract.ts';
import { hostPort } from '../../src/kernel/address.ts';
import { reconnectDelay } from '../../src/kernel/backoff.ts';
import { messageOf } from '../../src/kernel/errors.ts';
import { asSourceError, type SourceError } from '../../src/model/snapshot.ts';
import type { Line, LineUser } from './line.ts';
import { type NativeInstance, type NativeName, nativeId } from './mapping.ts';
import type { Session } from './session.ts';

interface Group {
  readonly native: NativeName;
  /** What should be there, by native id. */
  wanted: Map<string, NativeInstance>;
  /** Number of the session on which `sent` stands. */
  sentOn: number;
  sent: ReadonlyMap<string, NativeInstance>;
  /** Ends when the change before the next one has ended. */
  turn: Promise<void>;
  queued: number;
}

const NOTHING: ReadonlyMap<string, NativeInstance> = new Map();

export class Publisher implements LineUser {
  readonly #deps: AdapterDeps;
  readonly #groups = new Map<string, Group>();
  readonly #closed = new AbortController();
  #line: Line | null = null;
  #session: Session | null = null;
  #returning = false;

  constructor(deps: AdapterDeps) {
    this.#deps = deps;
  }

  bind(line: Line): void {
    this.#line = line;
  }

  /** The instance as it was put last; null: not ours. */
  find(native: NativeName, id: string): NativeInstance | null {
    return this.#groups.get(idOf(native))?.wanted.get(id) ?? null;
  }

  /** True where the server took the instance, as it was put last, on the connection that we have now. */
  stands(native: NativeName, id: string): boolean {
    const group = this.#groups.get(idOf(native));
    const wanted = group?.wanted.get(id);
    return wanted !== undefined && group?.sentOn === this.#session?.number && group?.sent.get(id) === wanted;
  }

  /** Upserts; all of one service go in one call. Rejects with SourceError, and then nothing of it is kept. */
  async put(native: NativeName, instances: readonly NativeInstance[], signal: AbortSignal): Promise<void> {
    await this.#change(this.#group(native), new Map(instances.map((one) => [nativeId(one), one])), signal);
  }

  /** Idempotent. Without a connection there is nothing to take away: it went with the connection. */
  async remove(native: NativeName, ids: readonly string[], signal: AbortSignal): Promise<void> {
    const group = this.#groups.get(idOf(native));
    if (group !== undefined) await this.#change(group, new Map(ids.map((id) => [id, null])), signal);
  }

  async attached(session: Session): Promise<void> {
    this.#session = session;
    await Promise.allSettled([...this.#groups.values()].map((group) => this.#sendAgain(group)));
    void this.#redo(session);
  }

  lost(): void {
    this.#session = null;
    void this.#return();
  }

  close(): void {
    this.#closed.abort(new Error('the source is closed'));
    this.#groups.clear();
  }

  #group(native: NativeName): Group {
    const id = idOf(native);
    const known = this.#groups.get(id);
    if (known !== undefined) return known;
    const group: Group = { native, wanted: new Map(), sentOn: -1, sent: NOTHING, turn: Promise.resolve(), queued: 0 };
    this.#groups.set(id, group);
    return group;
  }

  /** `null`: it goes. One change at a time for each service, so that a refused one takes no other with it. */
  #change(group: Group, change: ReadonlyMap<string, NativeInstance | null>, signal: AbortSignal): Promise<void> {
    return this.#inTurn(group, async () => {
      const before = new Map(group.wanted);
      for (const [id, one] of change) {
        if (one === null) group.wanted.delete(id);
        else group.wanted.set(id, one);
      }
      if (this.#session === null && [...group.wanted].every(([id, one]) => before.get(id) === one)) return;
      try {
        await this.#send(group, signal);
      } catch (thrown) {
        // What a refused batch held before is still there (seen: a refused batch changes nothing); ours is taken back to it.
        group.wanted = before;
        throw thrown;
      }
    });
  }

  /** The last one that leaves takes the group away where nothing of it is left. */
  #inTurn(group: Group, what: () => Promise<void>): Promise<void> {
    group.queued++;
    const turn = group.turn.then(what).finally(() => {
      group.queued--;
      const there = group.sentOn === this.#session?.number ? group.sent.size : 0;
      if (group.queued === 0 && group.wanted.size === 0 && there === 0) this.#groups.delete(idOf(group.native));
    });
    group.turn = turn.catch(() => {});
    return turn;
  }

  /** What a new connection needs, whoever asked for it before: each record of it is a write of its own accord. */
  #sendAgain(group: Group): Promise<void> {
    return this.#inTurn(group, async () => {
      const records = [...group.wanted.values()];
      const told = (result: string): void => {
        for (const { ip, port } of records) {
          this.#deps.wrote?.({ what: 'redo', service: idOf(group.native), instance: hostPort(ip, port), result });
        }
      };
      try {
        await this.#send(group, NEVER);
        told('ok');
      } catch (thrown) {
        told(messageOf(thrown));
        throw thrown;
      }
    });
  }

  /** Called in turn only. */
  async #send(group: Group, signal: AbortSignal): Promise<void> {
    const line = this.#line;
    if (line === null) return;
    const session = this.#session ?? (await line.enter(signal));
    if (session === null) return;
    const sending = new Map(group.wanted);
    const all = [...sending.values()];
    const there = group.sentOn === session.number ? group.sent : NOTHING;
    // What the server has already is not sent again: it would push to every subscriber.
    if (all.length === there.size && all.every((one) => there.get(nativeId(one)) === one)) return;
    const gone = [...there.values()].filter((one) => !sending.has(nativeId(one)));
    if (session.oneByOne) for (const one of gone) await this.#call(session, group, 'deregisterInstance', one, signal);
    const [only] = all;
    if (all.length > 1) {
      const fields = { ...serviceOf(group), type: 'batchRegisterInstance', instances: all };
      await session.call('BatchInstanceRequest', fields, signal);
    } else if (only !== undefined) await this.#call(session, group, 'registerInstance', only, signal);
    // Takes the whole entry away, whatever instance it names.
    else if (!session.oneByOne)
      for (const one of gone.slice(0, 1)) await this.#call(session, group, 'deregisterInstance', one, signal);
    group.sentOn = session.number;
    group.sent = sending;
  }

  async #call(session: Session, group: Group, type: string, instance: NativeInstance, signal: AbortSignal): Promise<void> {
    await session.call('InstanceRequest', { ...serviceOf(group), type, instance }, signal);
  }

  /** What a busy server did not take on a new connection is sent until it stands: nobody else would notice that it is missing. */
  async #redo(session: Session): Promise<void> {
    const { clock, random, count } = this.#deps;
    try {
      for (let attempt = 1; ; attempt++) {
        const behind = [...this.#groups.values()].filter((group) => !complete(group, session));
        if (behind.length === 0 || session !== this.#session) return;
        count('registration.redo', behind.length);
        await clock.sleep(reconnectDelay(attempt, random), this.#closed.signal);
        if (session !== this.#session) return;
        await Promise.allSettled(behind.map((group) => this.#sendAgain(group)));
      }
    } catch {
      // Closed.
    }
  }

  /** Registrations vanish with their connection: while we hold any, we come back ourselves, as the back-off allows. */
  async #return(): Promise<void> {
    const line = this.#line;
    if (this.#returning || line === null) return;
    this.#returning = true;
    const { clock, random } = this.#deps;
    try {
      for (let attempt = 1; this.#groups.size > 0 && this.#session === null && !this.#closed.signal.aborted; attempt++) {
        try {
          await line.enter(this.#closed.signal);
          break;
        } catch (thrown) {
          this.#closed.signal.throwIfAborted();
          const error: SourceError = asSourceError(thrown);
          await clock.sleep(Math.max(reconnectDelay(attempt, random), error.retryAfterMs ?? 0), this.#closed.signal);
        }
      }
    } catch {
      // Closed.
    } finally {
      this.#returning = false;
    }
  }
}

const NEVER = new AbortController().signal;

function complete({ wanted, sent, sentOn }: Group, session: Session): boolean {
  if (sentOn !== session.number) return wanted.size === 0;
  return wanted.size === sent.size && [...wanted].every(([id, one]) => sent.get(id) === one);
}

function serviceOf({ native }: Group): { readonly serviceName: string; readonly groupName: string } {
  return { serviceName: native.name, groupName: native.group };
}

function idOf({ group, name }: NativeName): string {
  return `${group}@@${name}`;
}
