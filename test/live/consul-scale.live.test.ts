// What following many services of a real Consul costs and how fast a change arrives. The figures are printed; the bounds are asserted.
import assert from 'node:assert/strict';
import { describe, type TestContext } from 'node:test';
import { sampleInstance } from '../conformance/adapter.ts';
import { type ConsulServer, startConsul } from '../registries/consul.ts';
import { eventually } from '../support/eventually.ts';
import { startFaultProxy } from '../support/fault-proxy.ts';
import { itLive, makeAdapter, PLAIN, Raw, Rig, withCleanup } from './consul-support.ts';

async function fill(raw: Raw, services: number): Promise<void> {
  for (let at = 0; at < services; at += 20) {
    const group = Array.from({ length: Math.min(20, services - at) }, (_, n) => at + n);
    await Promise.all(group.map((n) => raw.register(`svc-${n}`, sampleInstance(1, { host: `198.51.100.${(n % 200) + 1}` }))));
  }
}

/** Time from a write's return to the view, ms, for `changes` services one after another. */
async function latencies(rig: Rig, raw: Raw, services: number, changes: number): Promise<number[]> {
  const took: number[] = [];
  for (let n = 0; n < changes; n++) {
    const name = `svc-${(n * 37) % services}`;
    const wanted = sampleInstance(2, { host: '198.51.100.250', port: 9_000 + n });
    const arrived = new Promise<number>((resolve) => {
      const off = rig.catalog.subscribe((service, view) => {
        if (service !== `default/${name}` || view?.instances.some(({ port }) => port === wanted.port) !== true) return;
        off();
        resolve(performance.now());
      });
    });
    const sent = performance.now();
    await raw.register(name, wanted);
    took.push((await arrived) - sent);
    // The firehose may ask once a second: what comes closer together than that is another measurement.
    await new Promise((resolve) => setTimeout(resolve, 1_100));
  }
  return took.sort((a, b) => a - b);
}

function percentile(sorted: readonly number[], part: number): number {
  return sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * part) - 1)] ?? Number.NaN;
}

async function follow(t: TestContext, services: number, changes: number, bound: number): Promise<void> {
  await withCleanup(async (defer) => {
    const server: ConsulServer = await startConsul();
    defer(() => server.stop());
    const proxy = await startFaultProxy(server.endpoint);
    defer(() => proxy.close());
    const raw = new Raw(server.address);
    await fill(raw, services);
    const rig = new Rig(makeAdapter(`http://${proxy.endpoint}`, PLAIN));
    defer(() => rig.close());
    const began = performance.now();
    const whole = (): boolean =>
      rig.catalog.size === services &&
      Array.from({ length: services }, (_, n) => n).every((n) => rig.addresses(`svc-${n}`).length > 0);
    await eventually(whole, 60_000, 100);
    t.diagnostic(`${services} services: all heard after ${Math.round(performance.now() - began)} ms, ${proxy.open} connections`);
    assert.ok(proxy.open <= 112, `${proxy.open} connections`);
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    const cpu = process.cpuUsage();
    const idleMs = 20_000;
    await new Promise((resolve) => setTimeout(resolve, idleMs));
    const { user, system } = process.cpuUsage(cpu);
    const share = ((user + system) / 1_000 / idleMs) * 100;
    t.diagnostic(
      `${services} services idle for ${idleMs / 1_000} s: ${share.toFixed(2)} % of one core, ${Math.round(process.memoryUsage().rss / 1e6)} MB RSS`,
    );
    assert.ok(share < 10, `${share} % of one core`);
    const took = await latencies(rig, raw, services, changes);
    const p99 = percentile(took, 0.99);
    t.diagnostic(
      `${services} services: change to view p50 ${percentile(took, 0.5).toFixed(1)} ms, p99 ${p99.toFixed(1)} ms of ${changes}`,
    );
    assert.ok(p99 <= bound, `p99 ${p99} ms`);
  });
}

describe('many services of a real Consul', () => {
  itLive('100 watched: a change is in the view within 100 ms (p99), over at most 112 connections', 180_000, (t) =>
    follow(t, 100, 60, 100),
  );
  itLive('1,000 watched: a change is in the view within 1 s (p99), idle costs little', 240_000, (t) =>
    follow(t, 1_000, 50, 1_000),
  );
});
