// Owns `weir migrate …`: orders, steps and verify of migrations through a running sidecar. Called by program.ts.
// What is allowed when is the sidecar's word; this prints it.
import { readFile } from 'node:fs/promises';
import { setTimeout } from 'node:timers/promises';
import { type Static, type TSchema, Type } from 'typebox';
import { faultText } from '../kernel/decode.ts';
import { messageOf } from '../kernel/errors.ts';
import { decodeSpec, specJson } from '../migrate/spec.ts';
import { configFaultText } from '../settings/config-fault.ts';
import { parseYaml } from '../settings/yaml.ts';
import { numberArgument } from './arguments.ts';
import { ApiClient, type ApiOptions, apiPath } from './client.ts';
import { EXIT_DRIFT, EXIT_OK, EXIT_UNSAFE, type Io, usageFailure } from './io.ts';
import { ageText, line, table } from './table.ts';

/** Both registries are read and every copy is probed: that takes its time, ms. */
const VERIFY_MS = 600_000;
const PROGRESS_MS = 500;
/** So many looks without a copy more, while something is waited for, and `start` waits no longer. */
const MAX_IDLE_LOOKS = 10;
const BAR = 30;
/** So many lines of one kind are shown to people; `--json` has all. */
const MAX_LINES = 20;

const Texts = Type.Array(Type.String());
const Nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()]);
const Copies = Type.Record(Type.String(), Type.Record(Type.String(), Type.Number()));
const Figures = Type.Object({
  requests: Type.Number(),
  failed: Type.Number(),
  errorRate: Nullable(Type.Number()),
  p50Ms: Nullable(Type.Number()),
  p99Ms: Nullable(Type.Number()),
});
const Summary = Type.Object({
  outcome: Type.String(),
  at: Type.Number(),
  services: Type.Number(),
  missing: Type.Number(),
  extra: Type.Number(),
  differing: Type.Number(),
  unreachable: Type.Number(),
});

const Migration = Type.Object({
  id: Type.String(),
  from: Type.String(),
  to: Type.String(),
  phase: Type.String(),
  weight: Type.Number(),
  error: Type.Optional(Type.String()),
  frozen: Type.Optional(Type.Boolean()),
  counts: Type.Object({ services: Type.Number(), copies: Copies }),
  stopped: Type.Optional(Type.Object({ at: Type.Number(), reason: Type.String() })),
  lastVerify: Type.Optional(Summary),
  writer: Type.Optional(
    Type.Object({
      owner: Type.Boolean(),
      settled: Type.Boolean(),
      services: Type.Number(),
      queued: Type.Number(),
      waiting: Texts,
    }),
  ),
  sides: Type.Optional(Type.Object({ windowMs: Type.Number(), from: Figures, to: Figures })),
  fleet: Type.Optional(Type.Object({ shared: Type.Boolean(), sidecars: Texts, behind: Texts })),
});
type Migration = Static<typeof Migration>;

const Plan = Type.Object({
  services: Type.Array(
    Type.Object({
      service: Type.String(),
      as: Nullable(Type.String()),
      write: Texts,
      skipped: Texts,
      losses: Texts,
      conflicts: Texts,
      unmapped: Nullable(Type.String()),
      subscribers: Nullable(Texts),
    }),
  ),
  errors: Texts,
  warnings: Texts,
});

const Diff = Type.Object({ address: Type.String(), field: Type.String(), from: Type.String(), to: Type.String() });
const Verified = Type.Object({
  service: Type.String(),
  outcome: Type.String(),
  missing: Texts,
  extra: Texts,
  differing: Type.Array(Diff),
  health: Type.Array(Diff),
  unreachable: Type.Array(Type.Object({ address: Type.String(), reason: Type.String() })),
  error: Nullable(Type.String()),
});
const VerifyAnswer = Type.Object({
  result: Nullable(Type.Object({ outcome: Type.String(), summary: Summary, services: Type.Array(Verified) })),
});

/** `weir migrate plan`. */
export async function plan(io: Io, id: string, options: ApiOptions & { readonly file?: string }): Promise<void> {
  const client = new ApiClient(options, io);
  if (options.file !== undefined) await client.ask(Migration, 'POST', '/v1/migrations', await order(options.file, id));
  const answer = await client.ask(Plan, 'GET', pathOf(id, 'plan'), undefined, VERIFY_MS);
  if (options.json === true) return json(io, answer);
  const rows = answer.services.map(({ service, as, write, skipped, losses, conflicts, subscribers }) => [
    service,
    as ?? '-',
    String(write.length),
    String(skipped.length),
    String(conflicts.length),
    losses.join('; '),
    subscribers === null ? '?' : String(subscribers.length),
  ]);
  const columns = [
    { head: 'SERVICE' },
    { head: 'IN THE TARGET' },
    { head: 'COPIES', right: true },
    { head: 'SKIPPED', right: true },
    { head: 'CONFLICTS', right: true },
    { head: 'LOSSES' },
    { head: 'SUBSCRIBERS', right: true },
  ];
  io.out(table(columns, rows));
  const said = answer.services.flatMap(({ service, skipped, conflicts }) =>
    [...skipped, ...conflicts].map((text) => `${service}: ${text}`),
  );
  list(io, 'note', [...said, ...answer.warnings]);
  list(io, 'error', answer.errors);
  io.out(line(answer.errors.length > 0 ? 'It cannot be started as it is.' : `Nothing is written yet: weir migrate start ${id}`));
}

/** `weir migrate status`. */
export async function status(io: Io, id: string | undefined, options: ApiOptions): Promise<void> {
  const client = new ApiClient(options, io);
  if (id !== undefined) return show(io, await client.ask(Migration, 'GET', pathOf(id)), options);
  const answer = await client.ask(Type.Object({ migrations: Type.Array(Migration) }), 'GET', '/v1/migrations');
  if (options.json === true) return json(io, answer);
  const rows = answer.migrations.map((one) => [
    one.id,
    one.from,
    one.to,
    phaseText(one),
    String(one.counts.services),
    copiesText(one),
    one.lastVerify?.outcome ?? '-',
    one.writer?.waiting[0] ?? one.error ?? '',
  ]);
  const columns = [
    { head: 'MIGRATION' },
    { head: 'FROM' },
    { head: 'TO' },
    { head: 'PHASE' },
    { head: 'SERVICES', right: true },
    { head: 'COPIES' },
    { head: 'VERIFY' },
    { head: 'WAITS FOR' },
  ];
  io.out(table(columns, rows));
}

/** `weir migrate start`: shows progress until the first copies are written. */
export async function start(io: Io, id: string, options: ApiOptions & { readonly wait?: boolean }): Promise<void> {
  const client = new ApiClient(options, io);
  let now = await client.ask(Migration, 'POST', pathOf(id, 'start'), {}, VERIFY_MS);
  if (options.wait !== false && options.json !== true) {
    let last = '';
    let idle = 0;
    while (!io.stop.aborted && now.phase === 'mirror' && now.writer?.settled !== true && idle < MAX_IDLE_LOOKS) {
      last = progress(io, now, last);
      await setTimeout(PROGRESS_MS, undefined, { signal: io.stop }).catch(() => undefined);
      const before = JSON.stringify(now.counts);
      now = await client.ask(Migration, 'GET', pathOf(id));
      const stands = JSON.stringify(now.counts) === before && (now.writer?.waiting.length ?? 0) > 0;
      idle = stands ? idle + 1 : 0;
    }
    progress(io, now, last);
    if (io.terminal) io.out('\n');
    if (idle === MAX_IDLE_LOOKS) io.out(line('Not everything is written yet; the sidecar goes on by itself.'));
  }
  show(io, now, options);
}

/** `weir migrate verify`; answers the exit code. */
export async function verify(io: Io, id: string, options: ApiOptions & { readonly last?: boolean }): Promise<number> {
  const client = new ApiClient(options, io);
  const method = options.last === true ? 'GET' : 'POST';
  const { result } = await client.ask(VerifyAnswer, method, pathOf(id, 'verify'), method === 'GET' ? undefined : {}, VERIFY_MS);
  if (options.json === true) json(io, result);
  else if (result === null) io.out('No verify has run on this sidecar yet.\n');
  else {
    const { missing, extra, differing, unreachable, services } = result.summary;
    for (const one of result.services.filter(({ outcome }) => outcome !== 'ok').slice(0, MAX_LINES)) {
      io.out(line(`${one.outcome}  ${one.service}`));
      if (one.error !== null) io.out(line(`  cannot be said: ${one.error}`));
      for (const address of one.missing) io.out(line(`  missing      ${address}`));
      for (const what of one.extra) io.out(line(`  extra        ${what}`));
      for (const { address, field, from, to } of [...one.health, ...one.differing]) {
        io.out(line(`  differs      ${address} ${field}: ${from} → ${to}`));
      }
      for (const { address, reason } of one.unreachable) io.out(line(`  unreachable  ${address}: ${reason}`));
    }
    io.out(
      line(
        `${result.outcome}: ${services} services, ${missing} missing, ${extra} extra, ${differing} differing, ${unreachable} unreachable`,
      ),
    );
  }
  if (result?.outcome === 'unsafe') return EXIT_UNSAFE;
  return result?.outcome === 'drift' ? EXIT_DRIFT : EXIT_OK;
}

/** `weir migrate shift`. */
export async function shift(io: Io, id: string, options: ApiOptions & { readonly weight: string }): Promise<void> {
  await step(io, id, 'shift', { weight: numberArgument('--weight', options.weight, 0, 100) }, options);
}

/** Any other step. */
export async function step(io: Io, id: string, what: string, body: object, options: ApiOptions): Promise<void> {
  show(io, await new ApiClient(options, io).ask(Migration, 'POST', pathOf(id, what), body, VERIFY_MS), options);
}

/** `weir migrate freeze`. */
export async function freeze(io: Io, options: ApiOptions & { readonly off?: boolean }): Promise<void> {
  const Answer = Type.Object({ migrations: Type.Array(Migration) });
  const frozen = options.off !== true;
  const answer = await new ApiClient(options, io).ask(Answer, 'POST', '/v1/migrations/freeze', { frozen });
  if (options.json === true) return json(io, answer);
  io.out(line(`${frozen ? 'No migration writes any more' : 'Migrations write again'}: ${answer.migrations.length} known`));
}

async function order(file: string, id: string): Promise<Record<string, unknown>> {
  const bytes = await readFile(file).catch((thrown: unknown) => {
    throw usageFailure(`${file}: ${messageOf(thrown)}`);
  });
  const parsed = parseYaml(bytes, file);
  if (!parsed.ok) throw usageFailure(parsed.faults.map(configFaultText).join('\n'));
  const decoded = decodeSpec(parsed.file.value);
  if (!decoded.ok)
    throw usageFailure(`${file} is not an order:${decoded.faults.map((fault) => `\n  ${faultText(fault)}`).join('')}`);
  if (decoded.spec.id !== id) throw usageFailure(`${file} orders the migration ${decoded.spec.id}, not ${id}`);
  return specJson(decoded.spec);
}

function show(io: Io, one: Migration, options: ApiOptions): void {
  if (options.json === true) return json(io, one);
  io.out(line(`${one.id}: ${one.from} → ${one.to}, ${phaseText(one)}`));
  if (one.error !== undefined) io.out(line(`  broken: ${one.error}`));
  if (one.counts.services > 0) io.out(line(`  ${one.counts.services} services; copies: ${copiesText(one)}`));
  if (one.stopped !== undefined) io.out(line(`  stopped: ${one.stopped.reason}`));
  if (one.sides !== undefined) {
    const { windowMs, from, to } = one.sides;
    io.out(line(`  traffic of the last ${ageText(windowMs)}:`));
    for (const [name, side] of [[one.from, from] as const, [one.to, to] as const]) {
      io.out(
        line(
          `    ${name}: ${side.requests} requests, ${side.failed} failed, p50 ${msText(side.p50Ms)}, p99 ${msText(side.p99Ms)}`,
        ),
      );
    }
  }
  if (one.lastVerify !== undefined) {
    const { outcome, missing, extra, differing } = one.lastVerify;
    io.out(line(`  verify: ${outcome} (${missing} missing, ${extra} extra, ${differing} differing)`));
  }
  for (const what of one.writer?.waiting ?? []) io.out(line(`  waits for ${what}`));
  if (one.fleet !== undefined && one.fleet.behind.length > 0) io.out(line(`  behind: ${one.fleet.behind.join(', ')}`));
}

function phaseText({ phase, weight, frozen }: Migration): string {
  const read = phase === 'shift' ? ` ${weight} %` : '';
  return `${phase}${read}${frozen === true ? ', frozen' : ''}`;
}

function copiesText({ counts }: Pick<Migration, 'counts'>): string {
  const sides = Object.entries(counts.copies).map(([source, states]) => {
    const parts = Object.entries(states).filter(([, count]) => count > 0);
    return `${source} ${parts.map(([state, count]) => `${count} ${state}`).join(' ')}`;
  });
  return sides.length === 0 ? 'none' : sides.join(', ');
}

/** Draws over itself on a terminal; elsewhere one line for every tenth. Answers what was said last. */
function progress(io: Io, { writer, counts }: Migration, last: string): string {
  const written = Object.values(counts.copies).reduce((sum, states) => sum + (states['written'] ?? 0), 0);
  const total = written + (writer?.queued ?? 0);
  const done = writer?.settled === true ? 1 : Math.min(0.99, total === 0 ? 0 : written / total);
  const copies = copiesText({ counts });
  if (io.terminal) {
    const filled = Math.round(done * BAR);
    io.out(`\r[${'#'.repeat(filled)}${'.'.repeat(BAR - filled)}] ${Math.floor(done * 100)} %  ${copies}\u001b[K`);
    return '';
  }
  const said = `${Math.floor(done * 10) * 10} %`;
  if (said !== last) io.out(line(`${said}; copies: ${copies}`));
  return said;
}

function list(io: Io, head: string, texts: readonly string[]): void {
  for (const text of texts.slice(0, MAX_LINES)) io.out(line(`${head}: ${text}`));
  if (texts.length > MAX_LINES) io.out(line(`${head}: ${texts.length - MAX_LINES} more (--json has all)`));
}

function msText(ms: number | null): string {
  return ms === null ? '-' : `${ms} ms`;
}

function json(io: Io, value: unknown): void {
  io.out(`${JSON.stringify(value, null, 2)}\n`);
}

function pathOf(id: string, step?: string): string {
  return `/v1${step === undefined ? apiPath('migrations', id) : apiPath('migrations', id, step)}`;
}
