// Owns `weir check --print-names`: asks each live source for its names and shows native name → our name → names elsewhere.
// Reads only; connects to the configured registries and to nothing else.
import type { AdapterLoader } from '../adapter/contract.ts';
import { Names } from '../catalog/names.ts';
import { withDeadline } from '../kernel/cancel.ts';
import { systemClock } from '../kernel/clock.ts';
import { dialPolicy } from '../kernel/dial.ts';
import { messageOf } from '../kernel/errors.ts';
import { silentLog } from '../kernel/log.ts';
import { systemRandom } from '../kernel/random.ts';
import { compareText, type ServiceKey, serviceId } from '../model/service.ts';
import type { Settings, SourceSettings } from '../settings/settings.ts';
import type { Io } from './io.ts';
import { printable, table } from './table.ts';

/** Prints one table for all sources; a source that cannot be asked is a line on standard error. */
export async function printNames(io: Io, settings: Settings, adapters: AdapterLoader): Promise<void> {
  const names = namesOf(settings);
  const rows: string[][] = [];
  for (const source of settings.sources) {
    try {
      for (const key of await listNames(source, adapters, io.stop)) rows.push(row(names, settings, source.id, key));
    } catch (thrown) {
      io.err(`${printable(`${source.id}: ${messageOf(thrown)}`)}\n`);
    }
  }
  io.out(table([{ head: 'SOURCE' }, { head: 'NATIVE NAME' }, { head: 'OUR NAME' }, { head: 'ELSEWHERE' }], rows));
}

function namesOf(settings: Settings): Names {
  return new Names({
    sources: new Map(settings.sources.map(({ id, asNamespace }) => [id, { as: asNamespace, namespace: 'default' }])),
    rules: settings.names,
  });
}

function row(names: Names, settings: Settings, sourceId: string, key: ServiceKey): string[] {
  const ours = names.toOurs(sourceId, key);
  const elsewhere = settings.sources
    .filter(({ id }) => id !== sourceId)
    .map(({ id }) => ({ id, native: ours === null ? null : names.toNative(id, ours) }))
    .flatMap(({ id, native }) => (native === null ? [] : [`${id}: ${serviceId(native)}`]));
  return [sourceId, serviceId(key), ours ?? '(none: its name is taken by a template)', elsewhere.join(', ')];
}

/** The first whole list of a source, in order. */
async function listNames(source: SourceSettings, adapters: AdapterLoader, stop: AbortSignal): Promise<readonly ServiceKey[]> {
  const factory = await adapters.load(source.kind);
  if (factory === null) throw new RangeError(`kind ${source.kind} is unknown`);
  const adapter = factory.create(source.config, source.options, {
    sourceId: source.id,
    clock: systemClock,
    random: systemRandom,
    dial: dialPolicy(source.dial, () => []),
    log: silentLog,
    count: () => {},
  });
  try {
    const services = adapter.services?.bind(adapter);
    if (services === undefined) throw new RangeError('this kind cannot list its names');
    return await withDeadline(systemClock, source.options.timeout, stop, async (signal) => {
      for await (const { keys } of services(signal)) return [...keys].sort((a, b) => compareText(serviceId(a), serviceId(b)));
      return [];
    });
  } finally {
    await adapter.close();
  }
}
