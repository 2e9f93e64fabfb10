// Histories with real weir processes on real servers: native writers and readers that speak the servers' plain protocols (the JSON
// gateway of etcd, Consul's HTTP API, Polaris' console API, and L5 through Polaris), a script of steps and faults under traffic, and the
// checker over what was read. Called by the live and full tests of migrations.
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { randomBelow, seededRandom } from '../../src/kernel/random.ts';
import type { FaultBench } from '../faults/harness/bench.ts';
import type { Load } from '../faults/harness/load.ts';
import { noneFailed } from '../faults/harness/validators.ts';
import type { WeirProcess } from '../faults/harness/weir-process.ts';
import { startConsul } from '../registries/consul.ts';
import { startPolaris } from '../registries/polaris.ts';
import { startEtcd } from '../registries/start.ts';
import { eventually } from '../support/eventually.ts';
import * as claims from './checker.ts';

export const SERVICE = 'default/hello';

/** One real server, as providers and the checker use it. */
export interface Site {
  readonly id: string;
  /** Its line under `sources:`. */
  readonly source: string;
  readonly speaks: claims.Speaks;
  readonly registers: boolean;
  register(port: number): Promise<void>;
  deregister(port: number): Promise<void>;
  /** Everything that stands under the service now. Rejects while the server is away. */
  read(): Promise<readonly Raw[]>;
  /** kill -9, then up again on its data; `away` runs between. */
  crash(away: () => Promise<void>): Promise<void>;
  /** What `crash` does, where it is something else. */
  readonly fault?: string;
}

/** A record by its own protocol. */
export interface Raw {
  readonly key: string;
  readonly port: number;
  readonly weight: number;
  readonly health: string;
  readonly isolated: boolean;
  readonly metadata: ReadonlyMap<string, string>;
  /** Everything, as the server spells it, but what changes by itself. */
  readonly bytes: string;
}

const ALL: claims.Speaks = { weight: true, health: true, isolated: true, metadata: true };

export async function etcdSite(bench: FaultBench, id: string): Promise<Site> {
  const server = await startEtcd({ version: '3.6' });
  bench.defer(() => server.stop());
  const call = async (method: string, body: object): Promise<Record<string, unknown>> => {
    const answer = await fetch(`http://${server.endpoint}/v3/kv/${method}`, { method: 'POST', body: JSON.stringify(body) });
    if (!answer.ok) throw new Error(`etcd ${method}: ${answer.status}`);
    return Object(await answer.json());
  };
  const base64 = (text: string): string => Buffer.from(text).toString('base64');
  const keyOf = (port: number): string => base64(`/services/hello/native-${port}`);
  return {
    id,
    source: `{id: ${id}, kind: etcd, endpoints: ["http://${server.endpoint}"], layout: grpc, prefix: /services/, allowLoopback: true, timeout: 1s}`,
    speaks: { weight: true, health: false, isolated: false, metadata: true },
    registers: true,
    async register(port) {
      const value = JSON.stringify({ Op: 0, Addr: `127.0.0.1:${port}`, Metadata: { weight: 100, team: 'a' } });
      await call('put', { key: keyOf(port), value: base64(value) });
    },
    async deregister(port) {
      await call('deleterange', { key: keyOf(port) });
    },
    async read() {
      const answer = await call('range', { key: base64('/services/hello/'), range_end: base64('/services/hello0') });
      const kvs: readonly { readonly key: string; readonly value: string }[] = Array.isArray(answer['kvs']) ? answer['kvs'] : [];
      return kvs.map(({ key, value }) => {
        const text = Buffer.from(value, 'base64').toString();
        const { Addr, Metadata = {} } = JSON.parse(text);
        const { weight = 100, ...rest } = Metadata;
        return {
          key: Buffer.from(key, 'base64').toString(),
          port: Number(String(Addr).split(':')[1]),
          weight: Number(weight),
          health: 'healthy',
          isolated: false,
          metadata: new Map(Object.entries(rest).map(([name, one]) => [name, String(one)])),
          bytes: text,
        };
      });
    },
    async crash(away) {
      await server.kill('SIGKILL');
      await away();
      await server.restart();
    },
  };
}

export async function consulSite(bench: FaultBench, id: string): Promise<Site> {
  const server = await startConsul({ data: true });
  bench.defer(() => server.stop());
  return consulAt(id, server.address, server.address, async (away) => {
    await server.kill('SIGKILL');
    await away();
    await server.restart();
  });
}

/** A Consul, real or fake: `address` for providers and the checker, `via` for the sidecar. */
export function consulAt(id: string, address: string, via: string, crash: Site['crash']): Site {
  const call = async (method: string, path: string, body?: object): Promise<unknown> => {
    const answer = await fetch(`${address}/v1${path}`, {
      method,
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    if (!answer.ok) throw new Error(`consul ${path}: ${answer.status} ${await answer.text()}`);
    return answer.json();
  };
  const idOf = (port: number): string => `hello-${port}`;
  return {
    id,
    source: `{id: ${id}, kind: consul, address: "${via}", allowLoopback: true, timeout: 2s}`,
    speaks: ALL,
    registers: true,
    async register(port) {
      const Service = { ID: idOf(port), Service: 'hello', Address: '127.0.0.1', Port: port, Meta: { team: 'a' } };
      const Check = { Node: 'native', CheckID: `check:${idOf(port)}`, Name: 'native', Status: 'passing', ServiceID: idOf(port) };
      await call('PUT', '/catalog/register', { Node: 'native', Address: '192.0.2.250', Service, Check });
    },
    async deregister(port) {
      await call('PUT', '/catalog/deregister', { Node: 'native', ServiceID: idOf(port) });
    },
    async read() {
      const answer = await call('GET', '/health/service/hello?consistent');
      const rows: readonly ConsulRow[] = Array.isArray(answer) ? answer : [];
      return rows.map(({ Node, Service, Checks }) => {
        const states = Checks.filter(({ ServiceID }) => ServiceID === Service.ID).map(({ Status }) => Status);
        const { Meta, Weights, Port, Address, ID, Tags } = Service;
        return {
          key: `${Node.Node}/${ID}`,
          port: Port,
          weight: 100 * Weights.Passing,
          health: states.includes('critical') ? 'unhealthy' : 'healthy',
          isolated: false,
          metadata: new Map(Object.entries(Meta ?? {})),
          bytes: JSON.stringify([Node.Node, ID, Address, Port, Tags, Object.entries(Meta ?? {}).sort(), Weights]),
        };
      });
    },
    crash,
  };
}

interface ConsulRow {
  readonly Node: { readonly Node: string };
  readonly Service: {
    readonly ID: string;
    readonly Address: string;
    readonly Port: number;
    readonly Tags: readonly string[] | null;
    readonly Meta: Readonly<Record<string, string>> | null;
    readonly Weights: { readonly Passing: number };
  };
  readonly Checks: readonly { readonly ServiceID: string; readonly Status: string }[];
}

/** `sid`: it is read as CL5, where the service is known by that id. */
export async function polarisSite(
  bench: FaultBench,
  id: string,
  sid: string | null = null,
): Promise<Site & { readonly l5: string; aliases(): Promise<readonly string[]> }> {
  const server = await startPolaris();
  bench.defer(() => server.stop());
  const name = sid ?? 'hello';
  const service = { service: name, namespace: 'default' };
  const fine = new Set([200_000, 200_001, 200_002, 400_201]);
  const call = async (method: string, path: string, body?: unknown): Promise<Record<string, unknown>> => {
    const answer = await server.console(method, path, body, 'any');
    if (!fine.has(Number(answer['code']))) throw new Error(`polaris ${path}: ${JSON.stringify(answer).slice(0, 300)}`);
    return answer;
  };
  if (sid !== null) await call('POST', '/naming/v1/services', [{ name, namespace: 'default', owners: 'polaris' }]);
  const list = (value: unknown): readonly PolarisRow[] => (Array.isArray(value) ? value : []);
  const grpc = `{id: ${id}, kind: polaris, servers: ["${server.grpc}", "http://${server.http}"], namespace: default, auth: {token: "${server.token}"}, allowLoopback: true, timeout: 2s}`;
  const l5 = `{id: ${id}, kind: l5, servers: ["${server.l5}"], sids: ["${name}"], allowLoopback: true, timeout: 1s}`;
  return {
    id,
    source: sid === null ? grpc : l5,
    speaks: sid === null ? ALL : { weight: true, health: true, isolated: false, metadata: false },
    registers: sid === null,
    l5: server.l5,
    async register(port) {
      if (sid === null) await call('POST', '/naming/v1/services', [{ name, namespace: 'default', owners: 'polaris' }]);
      const record = { ...service, host: '127.0.0.1', port, weight: 100, healthy: true, isolate: false, metadata: { team: 'a' } };
      await call('POST', '/naming/v1/instances', [record]);
      // A record that stood there already, a copy of ours say, is not changed by the call above.
      await call('PUT', '/naming/v1/instances', [record]);
    },
    async deregister(port) {
      const record = { ...service, host: '127.0.0.1', port };
      // On its file store the server shows no removal of a record that is older than others: it is touched first.
      await call('PUT', '/naming/v1/instances', [
        { ...record, weight: 99, healthy: true, isolate: false, metadata: { team: 'a' } },
      ]);
      await call('POST', '/naming/v1/instances/delete', [record]);
    },
    async read() {
      const answer = await call('GET', `/naming/v1/instances?${new URLSearchParams({ ...service, limit: '100' })}`);
      return list(answer['instances']).map(({ id: key, port, weight, healthy, isolate, metadata }) => ({
        key,
        port,
        weight,
        health: healthy ? 'healthy' : 'unhealthy',
        isolated: isolate,
        metadata: new Map(Object.entries(metadata ?? {}).filter(([one]) => !one.startsWith('internal-'))),
        bytes: JSON.stringify([key, port, weight, healthy, isolate, Object.entries(metadata ?? {}).sort()]),
      }));
    },
    async crash(away) {
      await server.kill('SIGKILL');
      await away();
      await server.restart();
    },
    async aliases() {
      const answer = await call(
        'GET',
        `/naming/v1/service/aliases?${new URLSearchParams({ service: name, namespace: 'default' })}`,
      );
      return list(answer['aliases']).map(({ alias }) => alias);
    },
  };
}

interface PolarisRow {
  readonly id: string;
  readonly port: number;
  readonly weight: number;
  readonly healthy: boolean;
  readonly isolate: boolean;
  readonly metadata: Readonly<Record<string, string>> | null;
  readonly alias: string;
}

export interface LiveOptions {
  readonly seed: number;
  readonly twoWay?: boolean;
  readonly end: 'abort' | 'keep' | 'move';
  /** More of weir.yaml. */
  readonly config?: string;
  /** Providers; default: five processes. */
  readonly upstreams?: readonly { readonly port: number }[];
  /** By this much shorter are the script's pauses; default 1. */
  readonly pace?: number;
}

export interface LiveFigures {
  requests: number;
  failed: number;
  rollbackMs: number[];
  samples: number;
  faults: string[];
}

/** One history, judged. */
export async function liveHistory(bench: FaultBench, from: Site, to: Site, options: LiveOptions): Promise<LiveFigures> {
  const history = new LiveHistory(bench, from, to, options);
  try {
    await history.run();
  } catch (thrown) {
    const said = thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
    throw new Error(`seed ${options.seed}: ${said}\n${history.log.join('\n')}\n${history.auditLog().join('\n')}`);
  } finally {
    await history.stop();
  }
  return history.figures;
}

class LiveHistory {
  readonly figures: LiveFigures = { requests: 0, failed: 0, rollbackMs: [], samples: 0, faults: [] };
  readonly log: string[] = [];
  readonly #bench: FaultBench;
  readonly #from: Site;
  readonly #to: Site;
  readonly #options: LiveOptions;
  readonly #random: () => number;
  readonly #lives: claims.Life[] = [];
  /** The same from the moment at which a register was sent: it may be seen before its answer. */
  readonly #offers: claims.Life[] = [];
  readonly #views: claims.ViewRead[] = [];
  /** Natives by site: what the server said of each when it was registered. */
  readonly #natives = new Map<string, Map<number, string | null>>();
  readonly #leaving = new Set<string>();
  readonly #copiesSeen = new Set<string>();
  readonly #began = performance.now();
  #upstreams: readonly { readonly port: number }[] = [];
  #weir: WeirProcess | null = null;
  #config = '';
  #lifeBegan = 0;
  #lives_ = 0;
  #load: Load | null = null;
  #output = '';
  #stopped = false;
  #sampling: Promise<void> = Promise.resolve();
  #fault: unknown = null;

  constructor(bench: FaultBench, from: Site, to: Site, options: LiveOptions) {
    this.#bench = bench;
    this.#from = from;
    this.#to = to;
    this.#options = options;
    this.#random = seededRandom(options.seed);
    for (const site of [from, to]) this.#natives.set(site.id, new Map());
  }

  async run(): Promise<void> {
    const bench = this.#bench;
    this.#upstreams = this.#options.upstreams ?? (await bench.farm(5));
    for (const n of [0, 1, 2]) await this.#joins(this.#from, n);
    // One that stands in `to` from the start: it gets no return copy.
    await this.#joins(this.#to, 3);
    this.#config = bench.config(`sources:\n  - ${this.#from.source}\n  - ${this.#to.source}\n${this.#options.config ?? ''}`);
    await this.#start();
    await this.#seesAll();
    this.#sampling = this.#sample();
    this.#traffic();
    await this.#step('create');
    await this.#step('start');
    await this.#mirrored('the first mirror');
    for (const act of this.#acts()) {
      await act();
      await this.#pause(200 + randomBelow(this.#random, 400));
    }
    await this.#mirrored('the mirror after all faults');
    await this.#end();
    await this.#judge();
  }

  /** Lines of all lives of weir. */
  auditLog(): readonly string[] {
    return `${this.#output}${this.#weir?.output() ?? ''}`.split('\n').filter((line) => line.includes('"audit":true'));
  }

  /** Nothing of it runs on. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#load?.stop();
    await this.#sampling;
  }

  // --- the script ---

  /** Forward and back, with the faults of this seed between. */
  #acts(): (() => Promise<unknown>)[] {
    const faults = [() => this.#killWeir(), () => this.#crash(this.#to), () => this.#moves(0), () => this.#joins(this.#from, 4)];
    if (this.#random() < 0.5) faults.push(() => this.#crash(this.#from));
    const path = [
      () => this.#shift(10),
      () => this.#shift(50),
      () => this.#rollback(),
      () => this.#shift(100),
      () => this.#cutover(),
      () => this.#rollback(),
      () => this.#cutover(),
    ];
    const acts: (() => Promise<unknown>)[] = [...path];
    for (const fault of faults) acts.splice(1 + randomBelow(this.#random, acts.length - 1), 0, fault);
    return acts;
  }

  async #shift(weight: number): Promise<void> {
    await this.#gated(() => this.#step('shift', { weight }));
  }

  async #cutover(): Promise<void> {
    await this.#gated(() => this.#step('cutover'));
  }

  /** What wants an `ok` of verify: asked for until it is one, as a person would. */
  async #gated(step: () => Promise<unknown>): Promise<void> {
    await eventually(
      async () => {
        const { result } = Object(await this.#post('verify'));
        assert.notEqual(result.outcome, 'unsafe', JSON.stringify(result.services));
        await step().catch((thrown: unknown) => assert.fail(`${thrown}: ${JSON.stringify(result.services)}`));
      },
      // A registry that was away for a minute is tried again half a minute later.
      60_000,
      300,
    );
  }

  async #rollback(): Promise<void> {
    const before = await this.#policy();
    const at = performance.now();
    await this.#step('rollback');
    await eventually(async () => assert.notEqual(await this.#policy(), before), 5_000, 10);
    this.figures.rollbackMs.push(performance.now() - at);
  }

  async #joins(site: Site, n: number): Promise<void> {
    const { port } = this.#upstream(n);
    this.#say(`u${n} registers in ${site.id}`);
    const life = { service: SERVICE, address: `127.0.0.1:${port}`, until: null };
    this.#offers.push({ ...life, since: this.#now() });
    await this.#registers(site, port);
    this.#lives.push({ ...life, since: this.#now() });
  }

  /** u<n> registers in `to` beside or over its copy, and leaves `from` once the view has both. */
  async #moves(n: number): Promise<void> {
    const { port } = this.#upstream(n);
    this.#say(`u${n} registers in ${this.#to.id} too`);
    await this.#registers(this.#to, port);
    await this.#pause(3_000);
    this.#say(`u${n} leaves ${this.#from.id}`);
    // It may be shown, and touched, until the server has forgotten it.
    this.#leaving.add(`${this.#from.id} ${port}`);
    await this.#from.deregister(port);
  }

  async #registers(site: Site, port: number): Promise<void> {
    this.#natives.get(site.id)?.set(port, null);
    await eventually(() => site.register(port), 10_000, 200);
  }

  async #crash(site: Site): Promise<void> {
    const fault = `${site.fault ?? 'kill -9'} of ${site.id}`;
    this.#say(fault);
    this.figures.faults.push(fault);
    await site.crash(() => this.#pause(500 + randomBelow(this.#random, 2_500)));
    this.#say(`${site.id} is up again`);
  }

  async #killWeir(): Promise<void> {
    await this.#endTraffic();
    this.#say('kill -9 of weir');
    this.figures.faults.push('kill -9 of weir');
    this.#output += this.#weir?.output() ?? '';
    const old = this.#weir;
    this.#weir = null;
    await old?.kill();
    await this.#pause(randomBelow(this.#random, 1_500));
    await this.#start();
    await this.#seesAll();
    this.#traffic();
    this.#say('weir is started again');
  }

  async #end(): Promise<void> {
    const { end } = this.#options;
    if (end === 'abort') {
      await this.#step('rollback');
      await eventually(() => this.#step('abort', { force: true }), 10_000, 300);
      await eventually(async () => assert.equal(await this.#phase(), 'aborted'), 20_000, 100);
      this.#say('aborted');
      // Polaris shows what it did up to a second later.
      await eventually(async () => claims.nothingLeft(await this.#records()), 5_000, 200);
      return;
    }
    if (end === 'move') {
      for (const n of [0, 1, 2, 4])
        if (this.#natives.get(this.#from.id)?.has(this.#upstream(n).port))
          await this.#registers(this.#to, this.#upstream(n).port);
    }
    await eventually(() => this.#step('finish', { keepCopies: end === 'keep' }), 30_000, 500);
    await eventually(
      async () => {
        const records = await this.#records();
        claims.finishedWell(records, this.#from.id, this.#to.speaks);
        if (end === 'move') claims.nothingLeft(records);
      },
      20_000,
      200,
    );
    await sleep(1_000);
  }

  // --- judging ---

  async #judge(): Promise<void> {
    await this.#endTraffic();
    this.#stopped = true;
    await this.#sampling;
    if (this.#fault !== null) throw this.#fault;
    this.figures.samples = this.#views.length;
    claims.noneLost(this.#views, this.#lives);
    claims.noneInvented(this.#views, this.#offers, 0, () => Number.NEGATIVE_INFINITY);
    assert.ok(
      this.figures.rollbackMs.every((ms) => ms <= 2_000),
      `rollbacks took ${this.figures.rollbackMs.map(Math.round)} ms`,
    );
    this.#judgeAudit();
  }

  /** Every address of a copy that was ever seen has its line; whoever is said to be written was seen. */
  #judgeAudit(): void {
    const audit: readonly Partial<claims.AuditSeen>[] = this.auditLog().map((line) => JSON.parse(line));
    const said = new Set(audit.filter(({ what }) => what === 'put').map(({ registry, instance }) => `${registry} ${instance}`));
    const unsaid = [...this.#copiesSeen].filter((copy) => !said.has(copy));
    assert.deepEqual(unsaid, [], 'copies without a line in the audit log');
    const unseen = audit
      .filter(({ what, result }) => what === 'put' && result === 'ok')
      .map(({ registry, instance }) => `${registry} ${instance}`)
      .filter((copy) => !this.#copiesSeen.has(copy));
    assert.deepEqual(unseen, [], 'lines of copies that nobody saw');
    assert.ok(audit.every(({ migration }) => migration === 'm1'));
  }

  /** A mirror that is at rest, by the registries' own word. */
  async #mirrored(what: string): Promise<void> {
    const { twoWay = false } = this.#options;
    const [from, to] = [this.#from, this.#to];
    await eventually(
      async () =>
        claims.mirrored(await this.#records(), {
          from: from.id,
          to: to.id,
          twoWay,
          baseline: new Set([`${SERVICE} 127.0.0.1:${this.#upstream(3).port}`]),
          speaks: { [from.id]: from.speaks, [to.id]: to.speaks },
          registers: { [from.id]: from.registers, [to.id]: to.registers },
        }),
      60_000,
      250,
    ).catch((thrown: unknown) => assert.fail(`${what}: ${thrown instanceof Error ? thrown.message : thrown}`));
    this.#say(`${what} is whole`);
  }

  async #records(): Promise<readonly claims.Standing[]> {
    const found: claims.Standing[] = [];
    for (const site of [this.#from, this.#to]) for (const raw of await site.read()) found.push(this.#standing(site, raw));
    return found;
  }

  /** Whose record it is, by the script: a native address that carries no marker; every other one is ours. */
  #standing(site: Site, { key, port, ...rest }: Raw): claims.Standing {
    const marked = rest.metadata.has('weir-origin') || rest.metadata.has('weir-kept');
    const native = this.#natives.get(site.id)?.has(port) === true && !marked;
    return {
      registry: site.id,
      service: SERVICE,
      address: `127.0.0.1:${port}`,
      key,
      writer: native ? 'provider' : 'sidecar',
      ...rest,
    };
  }

  /** Reads both registries and the view again and again. A native that is not as it was registered is a failure. */
  async #sample(): Promise<void> {
    while (!this.#stopped) {
      try {
        for (const site of [this.#from, this.#to]) await this.#look(site);
        await this.#lookAtView();
      } catch (thrown) {
        this.#fault ??= thrown;
        return;
      }
      await sleep(100);
    }
  }

  async #look(site: Site): Promise<void> {
    const raws = await site.read().catch(() => null);
    for (const raw of raws ?? []) {
      const { writer, address } = this.#standing(site, raw);
      const natives = this.#natives.get(site.id);
      if (writer === 'sidecar') this.#copiesSeen.add(`${site.id} ${address}`);
      else if (!this.#leaving.has(`${site.id} ${raw.port}`)) {
        const known = natives?.get(raw.port) ?? null;
        if (known === null) natives?.set(raw.port, raw.bytes);
        else assert.equal(raw.bytes, known, `the native record of ${address} in ${site.id} was changed`);
      }
    }
  }

  async #lookAtView(): Promise<void> {
    const weir = this.#weir;
    const startedAt = this.#lifeBegan;
    const at = this.#now();
    const view = await weir?.service(SERVICE).catch(() => null);
    if (view === undefined || view === null || weir !== this.#weir || weir === null) return;
    const instances = view.instances.map(({ host, port, weight, held }) => ({
      ...{ address: `${host}:${port}`, weight, held },
      ...{ health: 'unknown', isolated: false, groups: null },
    }));
    const sidecar = `weir#${this.#lives_}`;
    this.#views.push({
      at,
      sidecar,
      startedAt,
      service: SERVICE,
      phase: null,
      weight: 0,
      merge: '',
      shares: null,
      sticky: null,
      instances,
    });
  }

  // --- weir and traffic ---

  async #start(): Promise<void> {
    this.#lives_++;
    this.#lifeBegan = this.#now();
    this.#weir = await this.#bench.weir(this.#config);
  }

  async #seesAll(): Promise<void> {
    const want = this.#lives.map(({ address }) => address).sort();
    await eventually(
      async () => {
        const view = await this.#running().service(SERVICE);
        const seen = view.instances.map(({ host, port }) => `${host}:${port}`).sort();
        assert.deepEqual(
          seen,
          want,
          `the view: ${JSON.stringify(view.sources)}; sources: ${JSON.stringify(await this.#running().get('/v1/sources'))}`,
        );
      },
      30_000,
      50,
    );
  }

  #traffic(): void {
    this.#load = this.#bench.load(this.#running(), { rate: 100, service: SERVICE });
  }

  async #endTraffic(): Promise<void> {
    const load = this.#load;
    this.#load = null;
    if (load === null) return;
    const outcomes = await load.stop();
    this.figures.requests += outcomes.length;
    this.figures.failed += outcomes.filter(({ verdict }) => verdict !== 'ok').length;
    noneFailed(outcomes);
  }

  async #step(kind: string, body: object = {}): Promise<void> {
    if (kind === 'create') await this.#create();
    else await this.#post(kind, body);
    this.#say(`${kind} ${JSON.stringify(body)}`);
  }

  async #create(): Promise<void> {
    const { twoWay = false } = this.#options;
    const order = {
      ...{ id: 'm1', from: this.#from.id, to: this.#to.id, services: [SERVICE], direction: twoWay ? 'twoWay' : 'oneWay' },
      ...{ gates: { soak: '0s' }, limits: { grace: '1s', deletePercentPerMinute: 100 } },
    };
    const answer = await this.#running().send('POST', '/v1/migrations', order);
    assert.equal(answer.status, 200, await answer.text());
  }

  async #post(kind: string, body: object = {}): Promise<unknown> {
    const answer = await this.#running().send('POST', `/v1/migrations/m1/${kind}`, body);
    const text = await answer.text();
    assert.equal(answer.status, 200, `${kind}: ${text}`);
    return JSON.parse(text);
  }

  async #phase(): Promise<string> {
    return (await this.#running().get<{ readonly phase: string }>('/v1/migrations/m1')).phase;
  }

  async #policy(): Promise<string> {
    const { merge } = await this.#running().get<{ readonly merge: unknown }>(`/v1/services/${SERVICE}/explain`);
    return JSON.stringify(merge);
  }

  #running(): WeirProcess {
    return this.#weir ?? assert.fail('weir does not run');
  }

  #pause(ms: number): Promise<void> {
    return sleep(ms * (this.#options.pace ?? 1));
  }

  #upstream(n: number): { readonly port: number } {
    return this.#upstreams[n] ?? assert.fail(`no upstream ${n}`);
  }

  #now(): number {
    return performance.now() - this.#began;
  }

  #say(what: string): void {
    this.log.push(`${Math.round(this.#now())} ${what}`);
  }
}
