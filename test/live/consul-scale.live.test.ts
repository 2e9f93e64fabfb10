// What following many services of a real Consul costs and how fast a change arrives. The figures are printed; the bounds are asserted.
import assert from 'node:assert/strict';
import { describe, type TestContext } from 'node:test';
import { sampleInstance } from '../conformance/adapter.ts';
import { startConsul } from '../registries/consul.ts';
import { eventually } from '../support/eventually.ts';
import { startFaultProxy } from '../support/fault-proxy.ts';
import { assertFigure } from '../support/figure.ts';
import { makeCertificates } from './consul-certificates.ts';
import { itLive, makeAdapter, PLAIN, Raw, Rig, withCleanup } from './consul-support.ts';

async function fill(raw: Raw, services: number): Promise<void> {
  for (let at = 0; at < services; at += 20) {
    const group = Array.from({ length: Math.min(20, services - at) }, (_, n) => at + n);
    await Promise.all(group.map((n) => raw.register(`svc-${n}`, sampleInstance(1, { host: `198.51.100.${(n % 200) + 1}` }))));
  }
}

/** Time from a write's return to the view, ms, for `changes` services one after another, `gapMs` apart. */
async function latencies(rig: Rig, raw: Raw, services: number, changes: number, gapMs: number): Promise<number[]> {
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
    await new Promise((resolve) => setTimeout(resolve, gapMs));
  }
  return took.sort((a, b) => a - b);
}

function percentile(sorted: readonly number[], part: number): number {
  return sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * part) - 1)] ?? Number.NaN;
}

interface Load {
  readonly services: number;
  readonly tls: boolean;
  readonly changes: number;
  readonly gapMs: number;
  /** p99 from change to view, ms. */
  readonly bound: number;
  readonly connections: number;
  readonly idleMs: number;
}

async function follow(t: TestContext, { services, tls, changes, gapMs, bound, connections, idleMs }: Load): Promise<void> {
  await withCleanup(async (defer) => {
    const certificates = tls ? await makeCertificates() : null;
    defer(() => certificates?.remove());
    const server = await startConsul(certificates === null ? {} : { tls: certificates });
    defer(() => server.stop());
    const proxy = await startFaultProxy(server.endpoint);
    defer(() => proxy.close());
    const raw = new Raw(server.plainAddress);
    await fill(raw, services);
    const options = certificates === null ? PLAIN : { ...PLAIN, tls: { ca: certificates.ca } };
    const rig = new Rig(makeAdapter(`${tls ? 'https' : 'http'}://${proxy.endpoint}`, options));
    defer(() => rig.close());
    const began = performance.now();
    const whole = (): boolean =>
      rig.catalog.size === services &&
      Array.from({ length: services }, (_, n) => n).every((n) => rig.addresses(`svc-${n}`).length > 0);
    await eventually(whole, 60_000, 100);
    t.diagnostic(`${services} services: all heard after ${Math.round(performance.now() - began)} ms, ${proxy.open} connections`);
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    assert.ok(proxy.open <= connections, `${proxy.open} connections`);
    const cpu = process.cpuUsage();
    await new Promise((resolve) => setTimeout(resolve, idleMs));
    const { user, system } = process.cpuUsage(cpu);
    const share = ((user + system) / 1_000 / idleMs) * 100;
    assertFigure(t, `${services} services idle for ${idleMs / 1_000} s`, share, 3, '% of one core');
    const took = await latencies(rig, raw, services, changes, gapMs);
    t.diagnostic(`${services} services: change to view p50 ${percentile(took, 0.5).toFixed(1)} ms of ${changes}`);
    assertFigure(t, `${services} services: change to view, p99`, percentile(took, 0.99), bound, 'ms');
  });
}

// What is watched by a query of its own may be asked twice at once; the others are swept twice a second while changes come.
// Idle times hold a whole wait of every query, and that of 1,000 a whole sweep.
describe('many services of a real Consul', () => {
  itLive('100 watched: a change is in the view within 100 ms (p99), over at most 112 connections', 120_000, (t) =>
    follow(t, { services: 100, tls: false, changes: 60, gapMs: 30, bound: 100, connections: 112, idleMs: 25_000 }),
  );
  itLive('500 watched over TLS: a change is in the view within 100 ms (p99), over at most 5 connections', 120_000, (t) =>
    follow(t, { services: 500, tls: true, changes: 60, gapMs: 30, bound: 100, connections: 5, idleMs: 25_000 }),
  );
  itLive('1,000 watched: a change is in the view within 1 s (p99), idle costs little', 180_000, (t) =>
    follow(t, { services: 1_000, tls: false, changes: 60, gapMs: 150, bound: 1_000, connections: 112, idleMs: 66_000 }),
  );
});
