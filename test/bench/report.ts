// Owns the words of a bench run: ratios against nginx and Envoy, tables for people and for docs/benchmarks.md. Pure.
import type { CatalogFigures } from './catalog.ts';
import type { FiveFigures } from './five-registries.ts';
import type { PickFigure } from './pick.ts';
import type { ProxyBench, ProxyFigure } from './proxies.ts';

/** A Markdown table. */
export function markdownTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

/** One row per (row, proxy) with ratios to nginx of the same row. */
export function proxyTable(bench: ProxyBench): string {
  const nginx = new Map(bench.figures.filter(({ proxy }) => proxy === 'nginx').map((figure) => [figure.row, figure]));
  const rows = bench.figures.map((figure) => {
    const base = nginx.get(figure.row);
    return [
      figure.row,
      figure.proxy,
      figure.cpuUsPerRequest.toFixed(1),
      ratio(figure.cpuUsPerRequest, base?.cpuUsPerRequest),
      String(Math.round(figure.requestsPerSecond)),
      ratio(figure.requestsPerSecond, base?.requestsPerSecond),
      figure.p50Ms.toFixed(2),
      figure.p99Ms.toFixed(2),
      String(figure.failed),
      figure.rssMb.toFixed(0),
    ];
  });
  return markdownTable(
    ['row', 'proxy', 'CPU µs/request', '× nginx', 'requests/s', '× nginx', 'p50 ms', 'p99 ms', 'failed', 'RSS MiB'],
    rows,
  );
}

/** Latency at a constant rate, requests counted from the moment they were due. */
export function openLoopTable(bench: ProxyBench): string {
  const base = bench.openLoop.find(({ proxy }) => proxy === 'nginx');
  const rows = bench.openLoop.map(({ proxy, rate, p50Ms, p99Ms, failed }) => [
    proxy,
    String(rate),
    p50Ms.toFixed(2),
    p99Ms.toFixed(2),
    ratio(p99Ms, base?.p99Ms),
    String(failed),
  ]);
  return markdownTable(['proxy', 'requests/s offered', 'p50 ms', 'p99 ms', 'p99 × nginx', 'failed'], rows);
}

/** The figures that the project promises, each with what was measured; null where a contestant was missing. */
export function verdicts(bench: ProxyBench): readonly {
  readonly promise: string;
  readonly limit: number;
  readonly measured: number | null;
  readonly holds: boolean | null;
}[] {
  const of = (row: string, proxy: string): ProxyFigure | undefined =>
    bench.figures.find((figure) => figure.row.startsWith(row) && figure.proxy === proxy);
  const divide = (a: number | undefined, b: number | undefined): number | null =>
    a === undefined || b === undefined ? null : a / b;
  const small = 'small body, 32';
  const open = (proxy: string): number | undefined => bench.openLoop.find((figure) => figure.proxy === proxy)?.p99Ms;
  const list: readonly (readonly [string, number, number | null, 'most' | 'least'])[] = [
    [
      'CPU per request, small body, 32 connections, × nginx',
      1.7,
      divide(of(small, 'weir')?.cpuUsPerRequest, of(small, 'nginx')?.cpuUsPerRequest),
      'most',
    ],
    [
      'CPU per request, small body, 32 connections, × Envoy',
      0.7,
      divide(of(small, 'weir')?.cpuUsPerRequest, of(small, 'envoy')?.cpuUsPerRequest),
      'most',
    ],
    [
      'requests/s, small body, 32 connections, × nginx',
      0.55,
      divide(of(small, 'weir')?.requestsPerSecond, of(small, 'nginx')?.requestsPerSecond),
      'least',
    ],
    ['p99 at half of our own maximum, open loop, × nginx', 2.5, divide(open('weir'), open('nginx')), 'most'],
    [
      'CPU per request, 1 MiB, × nginx',
      1.0,
      divide(of('1 MiB', 'weir')?.cpuUsPerRequest, of('1 MiB', 'nginx')?.cpuUsPerRequest),
      'most',
    ],
  ];
  return list.map(([promise, limit, measured, kind]) => ({
    promise,
    limit,
    measured,
    holds: measured === null ? null : kind === 'most' ? measured <= limit : measured >= limit,
  }));
}

function ratio(value: number, base: number | undefined): string {
  return base === undefined || base === 0 ? '-' : (value / base).toFixed(2);
}

/** The catalog's cost by size. */
export function catalogTable(figures: readonly CatalogFigures[]): string {
  const small = figures[0];
  const rows = figures.map((figure) => [
    String(figure.services),
    figure.rssMb.toFixed(0),
    figure.loadMs.toFixed(0),
    figure.changeUs.toFixed(1),
    figure.changeCpuUs.toFixed(1),
    ratio(figure.changeCpuUs, small?.changeCpuUs),
    figure.queryUs.toFixed(0),
  ]);
  return markdownTable(['services', 'RSS MiB', 'load ms', 'change µs', 'change CPU µs', '× the smallest', 'query µs'], rows);
}

/** A sidecar on five registries; `names`: whether their services are the same ones. */
export function fiveTable(figures: readonly FiveFigures[]): string {
  const rows = figures.map((figure) => [
    figure.names,
    String(figure.services),
    figure.rssMb.toFixed(0),
    figure.rssAfterMb.toFixed(0),
    (figure.loadMs / 1_000).toFixed(1),
    (figure.backMs / 1_000).toFixed(1),
    figure.backP99Ms.toFixed(0),
    figure.backMaxMs.toFixed(0),
    figure.backWorkP99Ms.toFixed(0),
    figure.backWorkMaxMs.toFixed(0),
    figure.restP99Ms.toFixed(0),
    String(figure.removed),
  ]);
  const after = ['loop delay p99 ms', 'max ms', 'of it our own work p99 ms', 'max ms', 'delay p99 at rest ms', 'removed'];
  return markdownTable(['names', 'services each', 'RSS MiB', 'RSS after MiB', 'load s', 'all live again s', ...after], rows);
}

/** Picks by policy and size. */
export function pickTable(figures: readonly PickFigure[]): string {
  const rows = figures.map((figure) => [figure.policy, String(figure.endpoints), figure.nsPerPick.toFixed(0)]);
  return markdownTable(['policy', 'endpoints', 'ns a pick'], rows);
}
