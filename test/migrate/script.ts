// A seeded random history: providers come, move, change and die on both sides, people take steps in and out of order, registries, the
// store and sidecars fail; then everything heals, the migration is brought to one of its ends, and the checker judges the whole.
// Called by histories.test.ts. The same seed is the same history.
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { WeirError } from '../../src/kernel/errors.ts';
import { type Random, randomBelow, seededRandom } from '../../src/kernel/random.ts';
import type { MigrationDoc, MigrationSpec } from '../../src/migrate/migration.ts';
import type { Step } from '../../src/migrate/phases.ts';
import type { RegistryHealth } from '../../src/model/instance.ts';
import * as claims from './checker.ts';
import type { Dialect, DialectName, Fields, PlainRegistry } from './plain-registry.ts';
import { type Sidecar, World } from './world.ts';

const FROM: readonly DialectName[] = ['embedded', 'keys', 'nodes', 'central', 'bare', 'readOnly', 'weightless', 'crowd'];
const TO: readonly DialectName[] = ['embedded', 'keys', 'nodes', 'central', 'weightless', 'crowd'];
/** How long a hold, a poll and the pace of writes may take before the world is as it should be, ms. */
const SETTLED_MS = 240_000;
/** A view may show an instance that died for this long while its registries are heard: R2's second read and the failing probes, ms. */
const GRACE_MS = 60_000;
/** Longer than any poll. */
const OVERLAP_MS = 5_000;

export interface HistoryResult {
  readonly seed: number;
  readonly world: World;
  readonly log: readonly string[];
}

/** Runs the history of a seed. Throws the checker's error, with the log of what happened before it. */
export async function runHistory(seed: number): Promise<HistoryResult> {
  const history = new History(seed);
  try {
    await history.run();
  } catch (thrown) {
    const said = thrown instanceof Error ? thrown.message : String(thrown);
    const failure = new Error(
      [`history ${seed} (${history.title}): ${said}`, ...history.log.slice(-60), history.standing()].join('\n'),
    );
    failure.stack = `${failure.message}\n${thrown instanceof Error ? thrown.stack : ''}`;
    throw failure;
  } finally {
    await history.world.close();
    if (history.directory !== null) rmSync(history.directory, { recursive: true, force: true });
  }
  return { seed, world: history.world, log: history.log };
}

export class History {
  readonly world: World;
  readonly directory: string | null;
  readonly log: string[] = [];
  readonly spec: MigrationSpec;
  readonly #random: Random;
  readonly #services: readonly string[];
  readonly #deaths = new Map<string, number>();
  readonly #faults = new Set<string>();
  readonly #wipes: { readonly from: number; to: number; readonly alone: ReadonlySet<string> }[] = [];
  readonly #movedAt = new Map<string, number>();
  #leases: { readonly registry: PlainRegistry; readonly service: string; readonly address: string }[] = [];
  readonly #blindTimes: { readonly what: string; readonly from: number; to: number }[] = [];
  #next = 1;

  constructor(seed: number) {
    this.#random = seededRandom(seed * 7919 + 13);
    const from = this.#pick(FROM);
    const to = this.#pick(TO);
    const shared = this.#chance(0.35);
    // Some of the local ones on the real store of files.
    this.directory = !shared && seed % 6 === 0 ? mkdtempSync(join(scratch(), 'weir-histories-')) : null;
    this.world = new World({ seed, from, to, shared, ...(this.directory !== null && { directory: this.directory }) });
    this.#services = Array.from({ length: 1 + this.#below(3) }, (_, n) => `default/s${n}`);
    const { register, keeps } = this.world.from.dialect;
    // Without markers two ways are refused by the plan.
    const twoWay = register && keeps.includes('metadata') && this.#chance(0.25);
    this.spec = this.world.spec({
      direction: twoWay ? 'twoWay' : 'oneWay',
      liveness: this.#liveness(shared),
      limits: {
        grace: `${this.#below(20)}s`,
        deletePercentPerMinute: this.#chance(0.3) ? 20 : 100,
        callsPerSecond: this.#chance(0.2) ? 5 : 50,
      },
      ...(this.#chance(0.3) ? { mapping: { metadata: { drop: ['secret'] } } } : {}),
    });
  }

  #liveness(shared: boolean): MigrationSpec['liveness'] {
    if (this.world.to.dialect.fades && !shared && this.#chance(0.4)) return 'connection';
    return !this.world.to.dialect.fades && !this.world.from.dialect.fades && this.#chance(0.2) ? 'persistent' : 'beat';
  }

  /** Both sides keep markers: else a provider that takes our record's place cannot be told from it. */
  get #markers(): boolean {
    return this.world.registries.every(({ dialect }) => !dialect.register || new Set<string>(dialect.keeps).has('metadata'));
  }

  get title(): string {
    const { from, to, store } = this.world;
    const where = store.shared ? ', fleet' : this.directory === null ? '' : ', files';
    return `${from.dialect.name} -> ${to.dialect.name}, ${this.spec.direction}, ${this.spec.liveness}${where}`;
  }

  async run(): Promise<void> {
    const { world } = this;
    for (const service of this.#services) {
      for (let n = 2 + this.#below(4); n > 0; n--) this.#join(world.from, service);
      for (let n = this.#below(2); n > 0; n--) this.#join(world.to, service);
    }
    if (this.#chance(0.3)) this.#tool();
    await world.sidecar('weir-1');
    if (world.store.shared) await world.sidecar('weir-2');
    await world.run(4_000);
    const baseline = new Set(
      world.to
        .records()
        .filter((one) => one.writer === 'provider')
        .map((one) => `${one.service} ${one.address}`),
    );
    await this.#step('create');
    await this.#step('start');
    for (let n = 16 + this.#below(14); n > 0; n--) {
      await this.#event();
      await world.run(this.#gap());
    }
    await this.#heal();
    await this.#judgeMirror(baseline);
    await this.#end();
    this.#judge();
  }

  /** What the sidecars and the ledger think at the end, for a person who looks for a fault. */
  standing(): string {
    const sidecars = this.world.sidecars.filter(({ caller }) => !caller.dead);
    const workers = sidecars.map(({ caller, migrations }) => `${caller.name}: ${JSON.stringify(migrations.list()[0]?.worker)}`);
    const entries = this.world.store
      .entries('m1')
      .map((one) => `${one.target} ${one.service} ${one.host}:${one.port} ${one.state}`);
    return [...workers, ...entries].join('\n');
  }

  // --- what happens ---

  async #event(): Promise<void> {
    const { world } = this;
    const dice = this.#random();
    const service = this.#pick(this.#services);
    if (dice < 0.1) this.#join(this.#chance(0.7) ? world.from : world.to, service);
    else if (dice < 0.18) this.#dies(service);
    else if (dice < 0.34) this.#moves(service);
    else if (dice < 0.46) this.#changes(service);
    else if (dice < 0.7) await this.#anyStep();
    else await this.#fault();
  }

  #join(registry: PlainRegistry, service: string): void {
    if (!hears(registry)) return;
    const address = `10.0.0.${1 + this.#below(3)}:${8_000 + this.#next++}`;
    this.#say(`${address} registers in ${registry.id} as ${service}`);
    this.world.live(service, address);
    registry.provide(service, address, this.#fields());
  }

  #dies(service: string): void {
    const address = this.#someone(service);
    if (address === null) return;
    this.#say(`${address} of ${service} leaves`);
    for (const registry of this.world.registries) {
      if (hears(registry)) registry.leave(service, address);
      // Its lease ends there, as soon as the registry is back.
      else this.#leases.push({ registry, service, address });
    }
    this.world.die(service, address);
  }

  /** In place or beside, as the registry has it; it stays in both for a while, or for ever. */
  #moves(service: string): void {
    const { from, to } = this.world;
    const address = this.#someone(service);
    if (address === null || !hears(from) || !hears(to) || !this.#markers) return;
    // Whoever moves stands on both sides until everybody can have seen it.
    const now = this.world.clock.now();
    if (now - (this.#movedAt.get(`${service} ${address}`) ?? 0) < OVERLAP_MS) return;
    this.#movedAt.set(`${service} ${address}`, now);
    const here = from.provides(service, address);
    const there = to.provides(service, address);
    if (here !== undefined && there === undefined) {
      this.#say(`${address} of ${service} registers in ${to.id} too`);
      to.provide(service, address, { weight: here.weight, metadata: here.metadata });
    } else if (here !== undefined && there !== undefined) {
      const left = this.#chance(0.7) ? from : to;
      this.#say(`${address} of ${service} leaves ${left.id}`);
      left.leave(service, address);
    } else if (there !== undefined && this.#chance(0.4)) {
      this.#say(`${address} of ${service} goes back to ${from.id}`);
      from.provide(service, address, { weight: there.weight, metadata: there.metadata });
    }
  }

  #changes(service: string): void {
    const address = this.#someone(service);
    if (address === null) return;
    for (const registry of this.world.registries) {
      if (!hears(registry) || registry.provides(service, address) === undefined) continue;
      const fields = this.#fields();
      this.#say(
        `${address} of ${service} changes in ${registry.id}: ${JSON.stringify({ ...fields, metadata: [...(fields.metadata ?? [])] })}`,
      );
      registry.provide(service, address, fields);
      break;
    }
  }

  #tool(): void {
    const service = this.#pick(this.#services);
    const registry = this.#pick(this.world.registries);
    // Without metadata it would be nothing but a native record.
    if (!hears(registry) || !new Set<string>(registry.dialect.keeps).has('metadata')) return;
    const address = `10.9.0.1:${7_000 + this.#next++}`;
    const metadata: [string, string][] = this.#chance(0.5)
      ? [['__sync__', '1']]
      : [
          ['weir-origin', 'elsewhere'],
          ['weir-migration', 'another'],
          ['weir-hops', '1'],
        ];
    this.#say(`${address} of ${service} is another's copy in ${registry.id}`);
    this.world.live(service, address);
    registry.provide(service, address, { metadata: new Map(metadata) }, 'tool');
  }

  async #fault(): Promise<void> {
    const { world } = this;
    const registry = this.#pick(world.registries);
    const { id } = registry;
    const faults: readonly (() => unknown)[] = [
      () => this.#toggle(`${id} is down`, (on) => this.#down(registry, on)),
      () => this.#toggle(`half of the writes to ${id} fail`, (on) => Object.assign(registry, { failShare: on ? 0.5 : 0 })),
      () => this.#toggle(`answers of ${id} are lost`, (on) => Object.assign(registry, { losesAnswers: on })),
      () => this.#toggle(`${id} hangs`, (on) => this.#hang(registry, on)),
      () => this.#cuts(registry),
      () => this.#dataLoss(registry),
      () => this.#killed(),
      () => this.#killed(),
      () => this.#jumps(),
      () => this.#freezes(),
      () => {
        if (this.directory === null) this.#toggle('the store is down', (on) => world.store.setDown(on));
      },
      () => this.#tool(),
      () => this.#copiesLost(registry),
    ];
    await this.#pick(faults)();
  }

  #cuts(registry: PlainRegistry): void {
    this.#say(`streams of ${registry.id} are cut`);
    registry.cut();
  }

  #copiesLost(registry: PlainRegistry): void {
    this.#say(`copies in ${registry.id} are lost`);
    registry.lose((record) => record.writer === 'sidecar' && this.#chance(0.7));
  }

  #jumps(): void {
    const ms = (this.#random() - 0.5) * 172_800_000;
    this.#say(`the wall clock jumps by ${Math.round(ms / 1_000)} s`);
    this.world.clock.jumpWall(ms);
  }

  async #freezes(): Promise<void> {
    const frozen = !this.#faults.has('frozen');
    this.#mark('frozen', frozen);
    await this.#sidecar()
      .migrations.freeze(frozen)
      .then(
        () => this.#say(frozen ? 'frozen' : 'thawed'),
        (thrown) => this.#refused('freeze', thrown),
      );
  }

  #down(registry: PlainRegistry, on: boolean): void {
    registry.down = on;
    if (!on) this.#endLeases();
    registry.cut();
  }

  #hang(registry: PlainRegistry, on: boolean): void {
    registry.hung = on;
    if (on) return;
    this.#endLeases();
    registry.cut();
  }

  #endLeases(): void {
    for (const { registry, service, address } of this.#leases) if (hears(registry)) registry.leave(service, address);
    this.#leases = this.#leases.filter(({ registry }) => !hears(registry));
  }

  /** The registry's data is gone; providers find out and register again. */
  async #dataLoss(registry: PlainRegistry): Promise<void> {
    const { world } = this;
    if (!hears(registry)) return;
    const natives = registry.records().filter((one) => one.writer !== 'sidecar');
    this.#say(`${registry.id} loses its data`);
    this.#mark('loss', true);
    // Copies that the mirror puts back at once make the loss of few natives look like a small removal (R2).
    const copied = new Set(registry.records().flatMap(({ service, writer }) => (writer === 'sidecar' ? [service] : [])));
    const alone = natives.filter(({ service }) => copied.has(service)).map(({ service, address }) => `${service} ${address}`);
    const wipe = { from: world.clock.now(), to: Number.POSITIVE_INFINITY, alone: new Set(alone) };
    this.#wipes.push(wipe);
    registry.wipe();
    await world.run(1_000 + this.#below(20_000));
    for (const { service, address, weight, health, isolated, metadata, writer } of natives) {
      if (writer === 'sidecar' || !world.isAlive(address)) continue;
      registry.provide(service, address, { weight, health, isolated, metadata }, writer);
    }
    this.#say(`providers of ${registry.id} have registered again`);
    await world.run(1_000);
    wipe.to = world.clock.now();
    this.#mark('loss', false);
  }

  async #killed(): Promise<void> {
    const { world } = this;
    const old = this.#sidecar();
    this.#say(`${old.caller.name} is killed`);
    old.kill();
    this.#deaths.set(old.caller.name, world.clock.now());
    if (!this.#faults.has('killed')) this.#mark('killed', true);
    await world.run(this.#below(2) === 0 ? 100 : this.#below(15_000));
    await world.sidecar(old.name);
    this.#say(`${old.name} is started again`);
    await world.run(1_000);
    this.#mark('killed', false);
  }

  async #anyStep(): Promise<void> {
    const phase = this.#doc()?.phase ?? 'plan';
    const steps: readonly (Step['kind'] | 'verify' | 'shift0')[] = [
      'start',
      'shift',
      'cutover',
      'rollback',
      'verify',
      'finish',
      'abort',
    ];
    const likely = { plan: 'start', mirror: 'shift', shift: 'shift', cutover: 'rollback' } as const;
    const next = this.#chance(0.6) ? (likely[phase as keyof typeof likely] ?? 'verify') : this.#pick(steps);
    const step = phase === 'shift' && this.#chance(0.4) ? 'cutover' : next;
    // The ends have their own place; here they may only be refused, or the history would be over.
    if (step === 'finish' && phase === 'cutover') return;
    if (step === 'abort' && (phase === 'mirror' || phase === 'shift')) return;
    if (step === 'abort' && phase === 'plan') return;
    await this.#step(step);
  }

  async #step(kind: string, options: { keepCopies?: boolean; force?: boolean; weight?: number } = {}): Promise<boolean> {
    const { world } = this;
    const { migrations } = this.#sidecar();
    const before = this.#views();
    const began = world.clock.now();
    let done = false;
    const weight = options.weight ?? this.#pick([0, 10, 50, 100]);
    const call = async (): Promise<void> => {
      if (kind === 'create') await migrations.create(this.spec);
      else if (kind === 'verify') await migrations.verify('m1');
      else if (kind === 'shift') await migrations.step('m1', { kind: 'shift', weight });
      else if (kind === 'finish') await migrations.step('m1', { kind: 'finish', keepCopies: options.keepCopies ?? false });
      else if (kind === 'abort') await migrations.step('m1', { kind: 'abort', force: options.force ?? false });
      else if (kind === 'collect') await migrations.collect('m1');
      else await migrations.step('m1', { kind: kind as 'start' | 'cutover' | 'rollback' });
    };
    let over = false;
    const calling = call()
      .then(
        () => {
          done = true;
        },
        (thrown: unknown) => this.#refused(kind, thrown),
      )
      .finally(() => {
        over = true;
      });
    void calling;
    await world.until(() => over, 60_000);
    assert.ok(over, `${kind} answers within a minute`);
    if (done) this.#say(`${kind}${kind === 'shift' ? ` ${weight}` : ''}`);
    if (done && kind !== 'finish' && kind !== 'collect' && world.clock.now() === began)
      claims.sameMembers(before, this.#views(), kind);
    if (done && kind === 'rollback') {
      await world.run(2_000);
      for (const { caller, migrations: mine } of world.sidecars) {
        const merge = caller.dead ? null : mine.overlayOf(this.#services[0] ?? '')?.merge;
        const phase = this.#doc()?.phase;
        if (merge && phase === 'mirror')
          assert.deepEqual(merge, { kind: 'prefer', order: ['old', 'new'] }, 'a rollback is effective within 2 s');
        if (merge && phase === 'shift') assert.equal(merge.kind, 'weighted', 'a rollback is effective within 2 s');
      }
    }
    return done;
  }

  // --- the end ---

  async #heal(): Promise<void> {
    const { world } = this;
    this.#say('everything heals');
    for (const registry of world.registries) {
      registry.failShare = 0;
      registry.losesAnswers = false;
      registry.down = false;
      registry.hung = false;
      this.#endLeases();
      registry.cut();
    }
    world.store.setDown(false);
    for (const what of [...this.#faults]) this.#mark(what, false);
    await world.run(40_000);
    await this.#sidecar().migrations.freeze(false);
    await world.until(() => this.#doc() !== null, 60_000);
    if (this.#doc()?.phase === 'plan') assert.ok(await this.#step('start'), 'a sound plan starts once everything is healed');
    await world.run(SETTLED_MS, 5_000);
  }

  async #judgeMirror(baseline: ReadonlySet<string>): Promise<void> {
    const { world } = this;
    const views = this.#views();
    claims.viewsAre(views, world.lives, world.clock.now());
    const { from, to } = world;
    claims.mirrored(this.#records(), {
      from: from.id,
      to: to.id,
      twoWay: this.spec.direction === 'twoWay',
      baseline,
      drop: this.spec.mapping.metadata.drop,
      speaks: { [from.id]: speaks(from.dialect), [to.id]: speaks(to.dialect) },
      registers: { [from.id]: from.dialect.register, [to.id]: to.dialect.register },
    });
    const since = world.clock.now();
    await world.run(400_000, 5_000);
    for (const registry of world.registries) claims.quiet(registry.carried, since);
  }

  async #end(): Promise<void> {
    const { world } = this;
    const phase = this.#doc()?.phase;
    assert.ok(phase === 'mirror' || phase === 'shift' || phase === 'cutover', `still running, not ${phase}`);
    // Without markers nobody can be seen to move, and what fades keeps no copies: there is no finish.
    const endless = world.to.dialect.fades && !this.#markers;
    if (this.#chance(0.5) || endless) {
      if (phase === 'cutover') assert.ok(await this.#step('rollback'), 'a rollback is always allowed');
      const polite = await this.#step('abort');
      if (!polite) assert.ok(await this.#step('abort', { force: true }), 'a forced abort is never refused');
      assert.ok(await world.until(() => this.#doc()?.phase === 'aborted', 120_000), `aborted, not ${this.#doc()?.phase}`);
      claims.nothingLeft(this.#records());
      if (this.directory === null) assert.deepEqual(world.store.entries('m1'), [], 'the ledger is empty');
      assert.ok(await this.#step('collect'));
      return;
    }
    this.#mend();
    await this.world.run(60_000, 5_000);
    await this.#forward();
    const kept = !this.#markers || (this.#chance(0.5) && !world.to.dialect.fades);
    const early = await this.#step('finish', { keepCopies: false });
    if (!early && !kept) await this.#allMove();
    if (!early) assert.ok(await this.#step('finish', { keepCopies: kept }), `finish ${kept ? 'with' : 'without'} copies`);
    await world.run(120_000, 5_000);
    claims.finishedWell(this.#records(), world.from.id, speaks(world.to.dialect));
    if (!kept || early)
      assert.deepEqual(
        this.#records().filter(({ writer }) => writer === 'sidecar'),
        [],
        'no copy is left after a finish without them',
      );
    this.#noneLeftView();
    assert.ok(await this.#step('collect'), 'collect takes what was kept');
    await world.run(5_000);
    claims.nothingLeft(this.#records());
  }

  /** Through verify, shift and cutover by the rules. */
  async #forward(): Promise<void> {
    const { world } = this;
    if (this.#doc()?.phase === 'mirror') {
      assert.ok(await this.#step('verify'));
      const said = this.#sidecar().migrations.lastVerify('m1');
      assert.equal(
        this.#doc()?.lastVerify?.outcome,
        'ok',
        `a quiet mirror verifies: ${JSON.stringify(said?.services.filter(({ outcome }) => outcome !== 'ok'))}`,
      );
    }
    if (this.#doc()?.phase !== 'cutover') {
      assert.ok(await this.#step('shift', { weight: 100 }), 'shift');
      await world.run(5_000);
      assert.ok(await this.#step('verify'));
      assert.ok(await this.#step('cutover'), 'cutover');
    }
    await world.run(5_000);
  }

  /** Nobody is isolated or ill any more: what a target has no word for is withheld, and would be lost by a finish. */
  #mend(): void {
    for (const registry of this.world.registries)
      for (const { service, address, writer } of registry.records())
        if (writer === 'provider') registry.provide(service, address, { health: 'healthy', isolated: false });
  }

  /** Every provider of `from` registers in `to` and, after a while, leaves `from`. */
  async #allMove(): Promise<void> {
    const { from, to } = this.world;
    assert.ok(this.#markers);
    this.#say('every provider moves');
    for (const record of from.records()) {
      if (record.writer !== 'provider') continue;
      to.provide(record.service, record.address, record);
    }
    await this.world.run(30_000);
    if (this.#chance(0.5))
      for (const record of from.records()) if (record.writer === 'provider') from.leave(record.service, record.address);
    await this.world.run(SETTLED_MS, 5_000);
  }

  #noneLeftView(): void {
    const { world } = this;
    const now = world.clock.now();
    for (const view of this.#views()) {
      const seen = new Set(view.instances.map(({ address }) => address));
      const alive = world.lives.filter((one) => one.service === view.service && one.since <= now && one.until === null);
      const there = world.to.records(view.service).map(({ address }) => address);
      for (const { address } of alive)
        assert.ok(!there.includes(address) || seen.has(address), `${address} is in the view after finish`);
    }
  }

  #judge(): void {
    const { world } = this;
    const running = world.views.filter(
      ({ phase }) => phase !== null && phase !== 'finished' && phase !== 'aborted' && phase !== 'aborting',
    );
    const blind = (at: number): boolean => this.#blindTimes.some(({ from, to }) => at >= from && at <= to + 30_000);
    claims.noneLost(running, world.lives, (view, address) => {
      if (blind(view.at) && blind(view.startedAt)) return true;
      return this.#wipes.some(
        (one) => view.at >= one.from && view.at <= one.to + 30_000 && one.alone.has(`${view.service} ${address}`),
      );
    });
    claims.noneInvented(running, world.lives, GRACE_MS, (at) => this.#audibleSince(at));
    const changes = world.registries.flatMap((one) => one.changes);
    const carried = world.registries.flatMap((one) => one.carried);
    claims.nativesUntouched(changes, new Set(['m1']));
    claims.copiesHaveOrigins(changes, world.lives, GRACE_MS + SETTLED_MS, (at) => this.#audibleSince(at));
    claims.deadWriteNothing(changes, this.#deaths, 0);
    claims.everyWriteAudited(carried, world.audit, this.#deaths);
  }

  // --- small parts ---

  /** The end of the last time before `at` in which something was away. */
  #audibleSince(at: number): number {
    let since = Number.NEGATIVE_INFINITY;
    for (const { from, to } of this.#blindTimes) {
      if (from <= at) since = Math.max(since, Math.min(to, at));
    }
    return since;
  }

  #toggle(what: string, set: (on: boolean) => unknown): void {
    const on = !this.#faults.has(what);
    this.#say(on ? what : `no more: ${what}`);
    set(on);
    this.#mark(what, on);
  }

  #mark(what: string, on: boolean): void {
    const now = this.world.clock.now();
    const away = ['loss', 'killed'].includes(what) || /is down|hangs/.test(what);
    if (on) {
      this.#faults.add(what);
      if (away) this.#blindTimes.push({ what, from: now, to: Number.POSITIVE_INFINITY });
    } else if (this.#faults.delete(what)) {
      for (const time of this.#blindTimes) if (time.what === what) time.to = Math.min(time.to, now);
    }
  }

  #refused(kind: string, thrown: unknown): void {
    if (!(thrown instanceof Error)) throw thrown;
    if (thrown instanceof WeirError && thrown.code === 'INTERNAL') throw thrown;
    this.#say(`${kind} is refused: ${thrown.message}`);
  }

  #someone(service: string): string | null {
    const alive = this.world.lives.filter(
      (one) => one.service === service && one.until === null && !one.address.startsWith('10.9.'),
    );
    return alive.length === 0 ? null : this.#pick(alive).address;
  }

  #fields(): Fields {
    const health: RegistryHealth = this.#chance(0.15) ? 'unhealthy' : 'healthy';
    return {
      weight: this.#pick([0, 1, 50, 100, 100, 100, 200]),
      health,
      isolated: this.#chance(0.1),
      metadata: new Map([['zone', this.#pick(['a', 'b'])], ...(this.#chance(0.2) ? [['secret', 'x'] as const] : [])]),
    };
  }

  #sidecar(): Sidecar {
    const alive = this.world.sidecars.filter(({ caller }) => !caller.dead);
    return alive[this.#below(alive.length)] ?? assert.fail('no sidecar is alive');
  }

  #doc(): MigrationDoc | null {
    const alive = this.world.sidecars.filter(({ caller }) => !caller.dead);
    return alive[0]?.migrations.list().find(({ id }) => id === 'm1')?.doc ?? null;
  }

  #views(): claims.ViewRead[] {
    return this.world.sidecars
      .filter(({ caller }) => !caller.dead)
      .flatMap((one) => this.#services.map((service) => one.view(service)));
  }

  #records(): claims.Standing[] {
    return this.world.registries.flatMap((registry) =>
      registry.records().map((record) => ({ registry: registry.id, ...record })),
    );
  }

  #gap(): number {
    const dice = this.#random();
    if (dice < 0.5) return 100 + this.#below(2_000);
    return dice < 0.85 ? 5_000 + this.#below(20_000) : 40_000 + this.#below(60_000);
  }

  #say(what: string): void {
    this.log.push(
      `${String(this.world.clock.now()).padStart(8)} ${this.#doc()?.phase ?? '-'} ${this.#doc()?.weight ?? 0}: ${what}`,
    );
  }

  #pick<T>(list: readonly T[]): T {
    const one = list[this.#below(list.length)];
    if (one === undefined) throw new Error('nothing to pick from');
    return one;
  }

  #below(n: number): number {
    return randomBelow(this.#random, n);
  }

  #chance(share: number): boolean {
    return this.#random() < share;
  }
}

/** In memory where the system has such a place: a history syncs some hundred times. */
function scratch(): string {
  return existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
}

/** Whether anybody can write there now. */
function hears({ down, hung }: PlainRegistry): boolean {
  return !down && !hung;
}

function speaks({ keeps }: Dialect): claims.Speaks {
  const has = new Set<string>(keeps);
  return { weight: has.has('weight'), health: has.has('health'), isolated: has.has('isolated'), metadata: has.has('metadata') };
}
