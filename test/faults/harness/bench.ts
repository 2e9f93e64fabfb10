// What most fault tests stand on: a folder, upstream processes, a weir process, a load and a reader of the catalog, all ended in the
// reverse order, with the seed printed on failure. Called by the fault tests.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { eventually } from '../../support/eventually.ts';
import type { Outcome } from './client.ts';
import { Load, type LoadOptions } from './load.ts';
import { executions, startUpstream, type UpstreamProcess } from './upstream-process.ts';
import {
  atMostOnce,
  type CatalogRead,
  exactlyOneOutcome,
  nothingInvented,
  nothingWrongDelivered,
  revisionsMonotonic,
} from './validators.ts';
import { type StartOptions, startWeir, type WeirProcess } from './weir-process.ts';

/** Name of the service that is loaded, in the words of kinds file and etcd. */
export const SERVICE = 'default/hello';
export const HEAD = 'api: {listen: "127.0.0.1:0"}\nproxy: {listen: "127.0.0.1:0"}\n';

/** A seed of its own for each run, or WEIR_SEED to repeat one. */
export const SEED = Number(process.env['WEIR_SEED'] ?? Math.floor(Math.random() * 1e6));

export class FaultBench {
  readonly directory: string;
  readonly seed = SEED;
  readonly upstreams: UpstreamProcess[] = [];
  readonly #ends: (() => unknown)[] = [];

  constructor() {
    this.directory = mkdtempSync(join(tmpdir(), 'weir-faults-'));
    this.defer(() => rmSync(this.directory, { recursive: true, force: true }));
  }

  /** Undone at the end, last first. */
  defer(end: () => unknown): void {
    this.#ends.push(end);
  }

  async close(): Promise<void> {
    for (const end of this.#ends.reverse()) await end();
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  write(name: string, text: string): string {
    writeFileSync(this.path(name), text);
    return this.path(name);
  }

  async upstream(name = `u${this.upstreams.length}`): Promise<UpstreamProcess> {
    const upstream = await startUpstream(name, this.directory);
    this.upstreams.push(upstream);
    this.defer(() => upstream.kill());
    return upstream;
  }

  /** `n` upstreams. */
  async farm(n: number): Promise<readonly UpstreamProcess[]> {
    return Promise.all(Array.from({ length: n }, (_, i) => this.upstream(`u${i}`)));
  }

  /** Writes a services file with these upstreams as `default/hello`. */
  services(upstreams: readonly { readonly port: number }[], file = 'services.yaml', service = SERVICE): string {
    return this.write(file, servicesYaml(upstreams, service));
  }

  /** Writes weir.yaml: ports, state and what is given. */
  config(rest: string, name = 'weir.yaml'): string {
    return this.write(name, `${HEAD}state: {dir: ${this.path('state')}}\n${rest}`);
  }

  async weir(configPath: string, options: StartOptions = {}): Promise<WeirProcess> {
    const weir = await startWeir(configPath, options);
    this.defer(() => weir.kill());
    return weir;
  }

  /** The service is there with so many instances. */
  async ready(weir: WeirProcess, instances: number, service = SERVICE): Promise<void> {
    await eventually(
      async () => {
        const view = await weir.service(service);
        const seen = view.instances.map(({ id, held, verdict }) => `${id}${held ? ' held' : ''} ${verdict}`);
        assert.equal(seen.length, instances, `${seen.join(', ')} of ${JSON.stringify(view.sources)}`);
      },
      10_000,
      25,
    );
  }

  /** So many instances of the service are held. */
  async held(weir: WeirProcess, n: number, withinMs = 10_000, service = SERVICE): Promise<void> {
    const count = async (): Promise<number> => (await weir.service(service)).instances.filter(({ held }) => held).length;
    await eventually(async () => assert.equal(await count(), n), withinMs, 25);
  }

  load(weir: { readonly proxyPort: number }, options: Partial<LoadOptions> = {}): Load {
    const load = new Load({ port: weir.proxyPort, service: SERVICE, rate: 200, seed: this.seed, ...options });
    this.defer(() => load.stop());
    return load;
  }

  /** Reads the view of the service every few ms until it is stopped. A read that is no 200 is a failure of the test. */
  watchCatalog(weir: WeirProcess, service = SERVICE, everyMs = 50): { readonly stop: () => Promise<readonly CatalogRead[]> } {
    const reads: CatalogRead[] = [];
    let stopped = false;
    const running = (async () => {
      while (!stopped) {
        const at = performance.now();
        const view = await weir.service(service);
        const addresses = view.instances.map(({ host, port }) => `${host}:${port}`).sort();
        const held = view.instances.filter((one) => one.held).length;
        reads.push({ at, revision: view.revision, addresses, held, stale: view.stale });
        await sleep(everyMs);
      }
    })();
    running.catch(() => {});
    return {
      async stop() {
        stopped = true;
        await running;
        revisionsMonotonic(reads);
        return reads;
      },
    };
  }

  /** Ends the load and checks what is true under every fault; says what became of the requests. */
  async finish(load: Load): Promise<readonly Outcome[]> {
    const outcomes = await load.stop();
    const executed = executions(this.upstreams);
    exactlyOneOutcome(outcomes, load.issued);
    nothingWrongDelivered(outcomes);
    nothingInvented(outcomes, executed);
    atMostOnce(outcomes, executed);
    return outcomes;
  }
}

/** The text of a services file. */
export function servicesYaml(upstreams: readonly { readonly port: number }[], service = SERVICE): string {
  const instances = upstreams.map(({ port }) => `{host: 127.0.0.1, port: ${port}}`);
  return `services: {${service}: {instances: [${instances.join(', ')}]}}\n`;
}

/** Runs a test on a bench; a failure names the seed, and whatever happens no process of the bench outlives it. */
export async function onBench(body: (bench: FaultBench) => Promise<void>, withinMs = 180_000): Promise<void> {
  const bench = new FaultBench();
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done within ${withinMs} ms`)), withinMs);
  });
  try {
    await Promise.race([body(bench), late]);
  } catch (thrown) {
    if (thrown instanceof Error) thrown.message = `[WEIR_SEED=${bench.seed}] ${thrown.message}`;
    throw thrown;
  } finally {
    clearTimeout(timer);
    await bench.close();
  }
}

export { sleep };
