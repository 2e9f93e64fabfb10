// Whatever happens to both registries, the store, the network and us: natives are never touched, no address has two copies, and once all
// is quiet every native is seen on both sides that should see it and the ledger names exactly the copies that stand.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FakeStore, instance, keyOf, Rig, type Site } from '../../test/support/mirror-rig.ts';
import { readMarker } from '../catalog/copies.ts';
import { type Random, randomBelow, seededRandom } from '../kernel/random.ts';
import type { Instance } from '../model/instance.ts';
import { SourceError } from '../model/snapshot.ts';
import type { Mirror } from './mirror.ts';

const SERVICES = ['default/x', 'default/y', 'default/z'];
const PORTS = 6;
const STEPS = 60;

class Story {
  readonly rig: Rig;
  readonly #random: Random;
  readonly #natives = new Map<Site, Map<string, Instance>>();
  #mirror: Mirror;
  #epoch = 1;

  constructor(seed: number, direction: 'oneWay' | 'twoWay', lag: number) {
    this.rig = new Rig({ direction, limits: { deletePercentPerMinute: 100, grace: 2_000 } });
    this.#random = seededRandom(seed);
    for (const site of this.#sites) this.#natives.set(site, new Map());
    for (const site of this.#sites) site.lag = lag;
    this.#mirror = this.rig.mirror();
  }

  get #sites(): readonly [Site, Site] {
    return [this.rig.a, this.rig.b];
  }

  natives(site: Site): Map<string, Instance> {
    return this.#natives.get(site) ?? assert.fail();
  }

  async step(): Promise<void> {
    const site = this.#sites[randomBelow(this.#random, 2)] ?? assert.fail();
    const service = SERVICES[randomBelow(this.#random, SERVICES.length)] ?? assert.fail();
    const port = 1 + randomBelow(this.#random, PORTS);
    const what = randomBelow(this.#random, 12);
    if (what <= 3) this.#register(site, service, port);
    else if (what <= 5) this.#deregister(site, service, port);
    else if (what === 6) site.down = site.down === null ? new SourceError('lost', 'no route') : null;
    else if (what === 7) site.loseAnswers = !site.loseAnswers;
    else if (what === 8) this.rig.setLive(site, !site.live);
    else if (what === 9) await this.#restart();
    else if (what === 10) this.rig.store.down = this.rig.store.down === null ? new SourceError('lost', 'disk') : null;
    else this.rig.frozen = !this.rig.frozen;
    await this.rig.clock.advance([0, 30, 700, 6_000][randomBelow(this.#random, 4)] ?? 0);
    this.untouched();
  }

  async quiet(): Promise<void> {
    for (const site of this.#sites) {
      site.down = null;
      site.loseAnswers = false;
      this.rig.setLive(site, true);
    }
    this.rig.store.down = null;
    this.rig.frozen = false;
    await this.rig.clock.advance(420_000);
    this.untouched();
    const writes = (): number =>
      this.#sites.reduce((sum, { calls }) => sum + calls.filter(({ what }) => what !== 'renew' && what !== 'read').length, 0);
    const before = writes();
    await this.rig.clock.advance(310_000);
    assert.equal(writes(), before, 'once all is quiet nothing is written any more');
  }

  /** Natives stand as their providers wrote them, and no address has two records. */
  untouched(): void {
    for (const site of this.#sites) {
      for (const service of SERVICES) {
        const records = site.records(service);
        const found = new Set(records.map(({ port }) => port));
        assert.equal(found.size, records.length, `${site.id} ${service}: two records of one address`);
        const natives = records.filter(({ metadata }) => readMarker(metadata) === null);
        const wanted = [...this.natives(site)].filter(([key]) => key.startsWith(`${service} `)).map(([, one]) => one);
        assert.deepEqual(natives.toSorted(byPort), wanted.toSorted(byPort), `${site.id} ${service}: natives`);
      }
    }
  }

  async drain(): Promise<void> {
    const ended = this.#mirror.drain();
    await this.rig.clock.advance(60_000);
    await ended;
    for (const site of this.#sites) for (const service of SERVICES) assert.deepEqual(site.copies(service), []);
    assert.deepEqual(this.rig.store.entries(), []);
    this.untouched();
  }

  async close(): Promise<void> {
    await this.rig.close();
  }

  #register(site: Site, service: string, port: number): void {
    const weight = randomBelow(this.#random, 3) * 50;
    const health = randomBelow(this.#random, 3) === 0 ? ('unhealthy' as const) : ('healthy' as const);
    const one = instance(port, { weight, health });
    this.natives(site).set(`${service} ${port}`, one);
    site.native(service, one);
  }

  #deregister(site: Site, service: string, port: number): void {
    if (!this.natives(site).delete(`${service} ${port}`)) return;
    site.hold.registry.remove(keyOf(service), `n-${port}`);
  }

  async #restart(): Promise<void> {
    await this.#mirror.close();
    if (randomBelow(this.#random, 2) === 0) this.#epoch++;
    this.#mirror = this.rig.mirror({ epoch: this.#epoch });
  }
}

function byPort(x: Instance, y: Instance): number {
  return x.port - y.port;
}

const seen = (site: Site, service: string): [number, number, string][] =>
  site
    .records(service)
    .map(({ port, weight, health }): [number, number, string] => [port, weight, health])
    .sort(([x], [y]) => x - y);

describe('a mirror through faults', () => {
  for (const seed of Array.from({ length: 12 }, (_, n) => n + 1)) {
    const lag = seed % 3 === 0 ? 0 : 300 * (seed % 3);
    it(`one way, story ${seed}: the target has all that the origin has, the ledger what stands`, {
      timeout: 60_000,
    }, async () => {
      const story = new Story(seed, 'oneWay', lag);
      for (let n = 0; n < STEPS; n++) await story.step();
      await story.quiet();
      const { a, b } = story.rig;
      for (const service of SERVICES) {
        for (const [key, native] of story.natives(a)) {
          if (!key.startsWith(`${service} `) || story.natives(b).has(key)) continue;
          assert.ok(
            seen(b, service).some(
              ([port, weight, health]) => port === native.port && weight === native.weight && health === native.health,
            ),
            `${key} of a in b`,
          );
        }
        for (const { port } of b.copies(service))
          assert.ok(story.natives(a).has(`${service} ${port}`), `${service} ${port}: a copy without origin`);
        for (const { port } of a.copies(service))
          assert.ok(story.natives(b).has(`${service} ${port}`), `${service} ${port}: a return copy without origin`);
      }
      ledgerMatches(story.rig);
      await story.drain();
      await story.close();
    });

    it(`two ways, story ${seed}: both have the same`, { timeout: 60_000 }, async () => {
      const story = new Story(seed, 'twoWay', lag);
      for (let n = 0; n < STEPS; n++) await story.step();
      await story.quiet();
      const { a, b } = story.rig;
      for (const service of SERVICES) {
        assert.deepEqual(
          seen(a, service).map(([port]) => port),
          seen(b, service).map(([port]) => port),
        );
      }
      ledgerMatches(story.rig);
      await story.drain();
      await story.close();
    });
  }
});

function ledgerMatches({ a, b, store }: Rig): void {
  assert.ok(store instanceof FakeStore);
  const known = store.entries().map(({ target, service, port, state }) => `${target} ${service} ${port} ${state}`);
  const standing = [a, b].flatMap((site) =>
    SERVICES.flatMap((service) => site.copies(service).map(({ port }) => `${site.id} ${service} ${port} written`)),
  );
  assert.deepEqual(known.sort(), standing.sort());
}
