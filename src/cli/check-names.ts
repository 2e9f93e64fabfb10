// Owns `weir check --print-names`: asks each live source for its names and shows native name → our name → names elsewhere, what a write
// would be called in each source, and every unmapped name as a fault. Reads only; connects to the configured registries and nothing else.
import type { Adapter, AdapterLoader } from '../adapter/contract.ts';
import { withDeadline } from '../kernel/cancel.ts';
import { systemClock } from '../kernel/clock.ts';
import { dialPolicy } from '../kernel/dial.ts';
import { messageOf } from '../kernel/errors.ts';
import { silentLog } from '../kernel/log.ts';
import { systemRandom } from '../kernel/random.ts';
import { compareText, type ServiceKey, serviceId } from '../model/service.ts';
import type { ServiceList } from '../model/snapshot.ts';
import { configFaultText } from '../settings/config-fault.ts';
import type { LoadedSettings } from '../settings/load.ts';
import type { SourceSettings } from '../settings/settings.ts';
import { CommandFailure, EXIT_FAILED, EXIT_USAGE, type Io } from './io.ts';
import { type NamesReport, namesReport, type SourceNamesSeen, UNMAPPED } from './names-report.ts';
import { printable, table } from './table.ts';

/**
 * Prints one table of what is read and one of what writes are called. Throws CommandFailure: exit 2 with a line
 * `file:line:col path: …` for each name that has no place, exit 1 when a source gave no list.
 */
export async function printNames(io: Io, loaded: LoadedSettings, adapters: AdapterLoader): Promise<void> {
  const { settings, place } = loaded;
  const silent: string[] = [];
  const seen = await Promise.all(
    settings.sources.map((source) =>
      look(source, adapters, io.stop, (text, lost) => {
        io.err(`${printable(`${source.id}: ${text}`)}\n`);
        if (lost) silent.push(source.id);
      }),
    ),
  );
  const report = namesReport(settings, seen);
  printReport(io, report);
  if (report.faults.length > 0) {
    throw new CommandFailure(
      EXIT_USAGE,
      place(report.faults)
        .map((fault) => printable(configFaultText(fault)))
        .join('\n'),
    );
  }
  if (silent.length > 0) throw new CommandFailure(EXIT_FAILED, `the names of ${silent.join(', ')} are not known`);
}

function printReport(io: Io, { reads, writes }: NamesReport): void {
  const readColumns = [{ head: 'SOURCE' }, { head: 'NATIVE NAME' }, { head: 'OUR NAME' }, { head: 'ELSEWHERE' }];
  io.out(
    table(
      readColumns,
      reads.map(({ source, native, ours, elsewhere }) => [source, native, ours, elsewhere.join(', ')]),
    ),
  );
  const targets = [...(writes[0]?.natives.keys() ?? [])];
  if (targets.length === 0) return;
  const writeColumns = [{ head: 'REGISTERING' }, ...targets.map((id) => ({ head: `IN ${printable(id)}` }))];
  const rows = writes.map(({ ours, natives }) => [ours, ...targets.map((id) => natives.get(id) ?? UNMAPPED)]);
  io.out(`\n${table(writeColumns, rows)}`);
}

type Tell = (text: string, lost: boolean) => void;

/** A source with its names; what went wrong is told, and then there are none. */
async function look(source: SourceSettings, adapters: AdapterLoader, stop: AbortSignal, tell: Tell): Promise<SourceNamesSeen> {
  let adapter: Adapter | null = null;
  try {
    adapter = await open(source, adapters);
    const { capabilities, namespaces } = adapter;
    const about = { settings: source, canRegister: capabilities.register, ...(namespaces === undefined ? {} : { namespaces }) };
    return { ...about, keys: await keysOf(adapter, source, stop, tell) };
  } catch (thrown) {
    tell(messageOf(thrown), true);
    return { settings: source, canRegister: false, keys: null };
  } finally {
    await adapter?.close();
  }
}

async function open(source: SourceSettings, adapters: AdapterLoader): Promise<Adapter> {
  const factory = await adapters.load(source.kind);
  if (factory === null) throw new RangeError(`kind ${source.kind} is unknown`);
  return factory.create(source.config, source.options, {
    sourceId: source.id,
    clock: systemClock,
    random: systemRandom,
    dial: dialPolicy(source.dial, () => []),
    log: silentLog,
    count: () => {},
  });
}

async function keysOf(
  adapter: Adapter,
  source: SourceSettings,
  stop: AbortSignal,
  tell: Tell,
): Promise<readonly ServiceKey[] | null> {
  if (adapter.services === undefined || !adapter.capabilities.list) {
    tell('this source cannot list its names: only names that are asked for are mapped', false);
    return null;
  }
  try {
    const list = await firstList(adapter, source, stop);
    if (!list.complete || list.failed.length > 0) tell('the list of names is not complete', true);
    return list.keys.toSorted((a, b) => compareText(serviceId(a), serviceId(b)));
  } catch (thrown) {
    tell(messageOf(thrown), true);
    return null;
  }
}

async function firstList(adapter: Adapter, source: SourceSettings, stop: AbortSignal): Promise<ServiceList> {
  return await withDeadline(systemClock, source.options.timeout, stop, async (signal) => {
    for await (const list of adapter.services?.(signal) ?? []) return list;
    throw new RangeError('no list of names came');
  });
}
