// Bench (a): one-core proxies side by side. Closed loop for CPU per request and the highest rate (wrk), open loop for latency.
// Rounds are interleaved, each figure is the median of its rounds, and what counts is the ratio within one run.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../support/processes.ts';
import { freePort, pinned, scratch, which } from './machine.ts';
import { type Contestant, startContestants, startUpstream } from './peers.ts';

interface Row {
  readonly name: string;
  readonly path: string;
  readonly connections: number;
  readonly post?: number;
}

const ROWS: readonly Row[] = [
  { name: 'small body, 1 connection', path: '/', connections: 1 },
  { name: 'small body, 32 connections', path: '/', connections: 32 },
  { name: 'small body, 512 connections', path: '/', connections: 512 },
  { name: 'POST 1 KiB, 32 connections', path: '/', connections: 32, post: 1024 },
  { name: '64 KiB, 32 connections', path: '/k64', connections: 32 },
  { name: '1 MiB, 8 connections', path: '/m1', connections: 8 },
];

export interface ProxyFigure {
  readonly row: string;
  readonly proxy: string;
  readonly cpuUsPerRequest: number;
  readonly requestsPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly failed: number;
  readonly rssMb: number;
}

export interface OpenLoopFigure {
  readonly proxy: string;
  readonly rate: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly failed: number;
}

export interface ProxyBench {
  readonly missing: readonly string[];
  readonly figures: readonly ProxyFigure[];
  readonly openLoop: readonly OpenLoopFigure[];
}

/** `seconds` per measurement, `rounds` per figure; `only` names contestants (none: all). */
export async function benchProxies(options: {
  seconds: number;
  rounds: number;
  only: readonly string[];
  rows: readonly string[];
}): Promise<ProxyBench> {
  if (which('wrk') === null) throw new Error('the bench needs wrk (apt-get install wrk)');
  const folder = scratch();
  const upstreamPort = await freePort();
  const upstream = await startUpstream(folder, 1, upstreamPort);
  const { contestants, missing } = await startContestants(folder, 0, upstreamPort, freePort, options.only);
  try {
    const figures: ProxyFigure[] = [];
    for (const row of ROWS) {
      if (options.rows.length > 0 && !options.rows.some((word) => row.name.includes(word))) continue;
      figures.push(...(await measureRow(folder, row, contestants, options)));
    }
    return { missing, figures, openLoop: await measureOpenLoop(contestants, figures, options) };
  } finally {
    for (const contestant of contestants) await contestant.running.stop();
    await upstream.stop();
  }
}

async function measureRow(
  folder: string,
  row: Row,
  contestants: readonly Contestant[],
  options: { seconds: number; rounds: number },
): Promise<ProxyFigure[]> {
  const rounds = new Map<string, ProxyFigure[]>(contestants.map(({ name }) => [name, []]));
  for (let round = -1; round < options.rounds; round++) {
    for (const contestant of contestants) {
      const figure = await closedLoop(folder, row, contestant, round < 0 ? Math.min(2, options.seconds) : options.seconds);
      if (round >= 0) rounds.get(contestant.name)?.push(figure);
    }
  }
  return contestants.map(({ name }) => {
    const figure = medianFigure(rounds.get(name) ?? []);
    console.error(
      `  ${row.name}: ${name} ${figure.cpuUsPerRequest.toFixed(1)} µs CPU, ${Math.round(figure.requestsPerSecond)}/s, p99 ${figure.p99Ms.toFixed(2)} ms`,
    );
    return figure;
  });
}

async function closedLoop(folder: string, row: Row, contestant: Contestant, seconds: number): Promise<ProxyFigure> {
  const script = join(folder, 'wrk.lua');
  const body = row.post === undefined ? '' : `wrk.method = "POST"\nwrk.body = string.rep("x", ${row.post})\n`;
  writeFileSync(
    script,
    `${body}wrk.headers["Host"] = "${contestant.host}"\ndone = function(s, l, r) io.write(string.format('JSON {"requests":%d,"us":%d,"bad":%d,"p50":%f,"p99":%f}\\n', s.requests, s.duration, s.errors.connect + s.errors.read + s.errors.write + s.errors.status + s.errors.timeout, l:percentile(50) / 1000, l:percentile(99) / 1000)) end\n`,
  );
  const args = [
    '-t1',
    `-c${row.connections}`,
    `-d${seconds}s`,
    '--timeout',
    '10s',
    '-s',
    script,
    `http://127.0.0.1:${contestant.port}${row.path}`,
  ];
  const [command, all] = pinned(1, 'wrk', args);
  const before = contestant.running.cpuSeconds();
  const result = await run(command, all, { capture: true });
  const cpu = contestant.running.cpuSeconds() - before;
  const json = /JSON (\{.*\})/.exec(result.output)?.[1];
  if (json === undefined) throw new Error(`wrk said:\n${result.output}`);
  const said: { requests: number; us: number; bad: number; p50: number; p99: number } = JSON.parse(json);
  return {
    row: row.name,
    proxy: contestant.name,
    cpuUsPerRequest: (cpu * 1e6) / said.requests,
    requestsPerSecond: said.requests / (said.us / 1e6),
    p50Ms: said.p50,
    p99Ms: said.p99,
    failed: said.bad,
    rssMb: contestant.running.rssMb(),
  };
}

async function measureOpenLoop(
  contestants: readonly Contestant[],
  figures: readonly ProxyFigure[],
  options: { seconds: number; rounds: number },
): Promise<OpenLoopFigure[]> {
  const max = figures.find((figure) => figure.proxy === 'weir' && figure.row.startsWith('small body, 32'))?.requestsPerSecond;
  if (max === undefined) return [];
  const rate = Math.floor(max / 2);
  const rounds = new Map<string, OpenLoopFigure[]>();
  for (let round = 0; round < options.rounds; round++) {
    for (const contestant of contestants.filter(({ name }) => name !== 'http-proxy')) {
      const args = ['test/bench/open-loop.ts', contestant.port, contestant.host, '/', rate, 64, options.seconds].map(String);
      const [command, all] = pinned(1, process.execPath, args);
      const result = await run(command, all, { capture: true });
      const said: { p50: number; p99: number; failed: number; answered: number } = JSON.parse(result.output);
      const lost = Math.max(0, rate * options.seconds - said.answered);
      const list = rounds.get(contestant.name) ?? [];
      list.push({ proxy: contestant.name, rate, p50Ms: said.p50, p99Ms: said.p99, failed: said.failed + lost });
      rounds.set(contestant.name, list);
    }
  }
  return [...rounds].map(([proxy, list]) => ({
    proxy,
    rate,
    p50Ms: median(list.map((one) => one.p50Ms)),
    p99Ms: median(list.map((one) => one.p99Ms)),
    failed: list.reduce((sum, one) => sum + one.failed, 0),
  }));
}

/** The middle value; the mean of the two middle ones of an even number. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

function medianFigure(rounds: readonly ProxyFigure[]): ProxyFigure {
  const first = rounds[0];
  if (first === undefined) throw new RangeError('no rounds');
  const of = (pick: (figure: ProxyFigure) => number): number => median(rounds.map(pick));
  return {
    row: first.row,
    proxy: first.proxy,
    cpuUsPerRequest: of((f) => f.cpuUsPerRequest),
    requestsPerSecond: of((f) => f.requestsPerSecond),
    p50Ms: of((f) => f.p50Ms),
    p99Ms: of((f) => f.p99Ms),
    failed: rounds.reduce((sum, f) => sum + f.failed, 0),
    rssMb: of((f) => f.rssMb),
  };
}
