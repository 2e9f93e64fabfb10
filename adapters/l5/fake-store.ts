// Owns what a fake L5 server knows and what it answers from that: services, aliases, sets, places, other servers, by section 6 of the
// protocol notes. Called by fake.ts and tests only. Must never see a socket.
import { type Random, randomBelow } from '../../src/kernel/random.ts';
import { type FakeAnswer, type FakeIpc, type FakeRequest, type FakeServ, type FakeSid, serverIp } from './fake-wire.ts';
import { parseSid, type SidText, sidOf, sidText } from './sid.ts';

export interface FakeInstance {
  readonly host: string;
  readonly port: number;
  readonly weight: number;
  readonly healthy?: boolean;
  readonly isolated?: boolean;
  readonly setId?: string;
  readonly setWeights?: string;
}

export interface FakeService {
  name: string;
  nearby: boolean;
  /** By `host:port`. */
  readonly instances: Map<string, FakeInstance>;
}

const NO_SET = 'NOSET';

export class FakeL5Store {
  readonly services = new Map<SidText, FakeService>();
  /** SID → SID of the service it points to. */
  readonly aliases = new Map<SidText, SidText>();
  /** Host → area, city, idc. */
  readonly places = new Map<string, readonly [number, number, number]>();
  /** Caller's address (dotted) → set. */
  readonly sets = new Map<string, string>();
  /** Answered although nobody asked (a route table does that). */
  readonly routed: SidText[] = [];
  servers: string[] = [];

  /** Makes the service if there is none. */
  put(sid: SidText, instances: readonly FakeInstance[], about: { name?: string; nearby?: boolean } = {}): void {
    const service = this.services.get(sid) ?? { name: '', nearby: false, instances: new Map() };
    this.services.set(sid, service);
    service.name = about.name ?? service.name;
    service.nearby = about.nearby ?? service.nearby;
    for (const instance of instances) service.instances.set(`${instance.host}:${instance.port}`, instance);
  }

  remove(sid: SidText, address: string): void {
    this.services.get(sid)?.instances.delete(address);
  }

  wipe(): void {
    this.services.clear();
    this.aliases.clear();
  }

  /** The answer to a 100 or 104; null for another command. Entries stand in random order. */
  answer(request: FakeRequest, random: Random): FakeAnswer | null {
    if (request.cmd === 100) return this.#sync(request, random);
    return request.cmd === 104 ? this.#names(request, random) : null;
  }

  #sync(request: FakeRequest, random: Random): FakeAnswer {
    const serv: FakeServ[] = [];
    const sids: FakeSid[] = [];
    const ipc = new Map<number, FakeIpc>();
    const set = this.sets.get(dotted(request.agentIp)) ?? NO_SET;
    const asked = [...request.sids, ...this.routed.map((text) => pair(text))];
    for (const [modId, cmdId] of asked) {
      const service = this.#find(sidText(sidOf(modId, cmdId)));
      const usable = [...(service?.instances.values() ?? [])].filter((one) => one.healthy !== false && one.isolated !== true);
      if (service === undefined || usable.length === 0) continue;
      sids.push({ modId, cmdId, name: service.name, policy: service.nearby ? 1 : 0 });
      for (const instance of usable) {
        const weight = weightFor(instance, set);
        if (weight === 0) continue;
        const ip = serverIp(instance.host);
        serv.push({ modId, cmdId, ip, port: instance.port, weight });
        ipc.set(ip, [ip, ...(this.places.get(instance.host) ?? ([0, 0, 0] as const))]);
      }
    }
    const lists = { serv: shuffled(serv, random), sids: shuffled(sids, random), ipc: shuffled([...ipc.values()], random) };
    return { ...this.#head(request, 101), ...lists, servers: this.servers.map(serverIp) };
  }

  /** Aliases carry no metadata: a name is never found through one. */
  #names(request: FakeRequest, random: Random): FakeAnswer {
    const sids: FakeSid[] = [];
    for (const asked of request.names) {
      for (const [text, { name, nearby }] of this.services) {
        if (name !== '' && name === asked) sids.push({ ...ids(text), name, policy: nearby ? 1 : 0 });
      }
    }
    return { ...this.#head(request, 105), serv: [], sids: shuffled(sids, random), ipc: [], servers: [] };
  }

  #head({ seqno, ip, agentIp, syncFlow }: FakeRequest, cmd: 101 | 105) {
    return { seqno, cmd, result: 100, ip: ip ?? 0, agentIp, syncFlow: (syncFlow + 1) | 0 };
  }

  #find(sid: SidText): FakeService | undefined {
    return this.services.get(this.aliases.get(sid) ?? sid);
  }
}

/** Section 6: the weight for a caller of this set; 0: not for him. */
function weightFor({ weight, setId, setWeights }: FakeInstance, set: string): number {
  if (setId === undefined) return set === NO_SET ? weight : 0;
  if (setId === set) return weight;
  const at = setId.split(',').indexOf(set);
  if (at < 0) return 0;
  const weights = setWeights?.split(',') ?? [];
  if (weights.some((text) => !/^\d+$/.test(text))) return weight;
  const own = weights[at];
  return own === undefined ? weight : Number(own);
}

function shuffled<T>(list: readonly T[], random: Random): T[] {
  const left = [...list];
  const out: T[] = [];
  while (left.length > 0) out.push(...left.splice(randomBelow(random, left.length), 1));
  return out;
}

function pair(text: SidText): readonly [number, number] {
  const { modid, cmdid } = parseSid(text) ?? { modid: 0, cmdid: 0 };
  return [modid | 0, cmdid | 0];
}

function ids(text: SidText): { modId: number; cmdId: number } {
  const [modId, cmdId] = pair(text);
  return { modId, cmdId };
}

function dotted(ip: number): string {
  return [0, 8, 16, 24].map((shift) => (ip >>> shift) & 255).join('.');
}
