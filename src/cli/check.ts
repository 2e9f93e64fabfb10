// Owns `weir check -c weir.yaml`: every fault with its place (exit 2); --print shows the effective configuration, --print-names the names.
import { adapterLoader } from '../app/loader.ts';
import { surroundings } from '../app/process-facts.ts';
import { messageOf } from '../kernel/errors.ts';
import { configFaultText } from '../settings/config-fault.ts';
import { readConfigFile } from '../settings/file-source.ts';
import { type LoadedSettings, SettingsLoader } from '../settings/load.ts';
import { effectiveText } from '../settings/print.ts';
import { printNames } from './check-names.ts';
import { CommandFailure, EXIT_USAGE, type Io } from './io.ts';
import { printable } from './table.ts';

export interface CheckOptions {
  readonly config?: string;
  readonly print?: boolean;
  readonly printNames?: boolean;
}

/** Runs the command. */
export async function check(io: Io, options: CheckOptions): Promise<void> {
  const loaded = await loadConfig(io, options.config ?? 'weir.yaml');
  for (const warning of loaded.warnings) io.err(`${printable(`warning: ${configFaultText(warning)}`)}\n`);
  if (options.print === true) io.out(effectiveText(loaded.effective));
  if (options.printNames === true) await printNames(io, loaded, adapterLoader());
  if (options.print !== true && options.printNames !== true) io.out(`${printable(options.config ?? 'weir.yaml')}: no faults\n`);
}

/** Throws CommandFailure (exit 2) with one line per fault. */
async function loadConfig(io: Io, file: string): Promise<LoadedSettings> {
  let bytes: Uint8Array;
  try {
    bytes = await readConfigFile(file);
  } catch (thrown) {
    throw new CommandFailure(EXIT_USAGE, `CONFIG_UNREADABLE: ${printable(file)}: ${messageOf(thrown)}`);
  }
  const around = { ...surroundings(), env: (name: string) => io.env.get(name) };
  const loaded = await new SettingsLoader(adapterLoader(), around).load(bytes, file);
  if (loaded.ok) return loaded;
  throw new CommandFailure(EXIT_USAGE, loaded.faults.map((fault) => printable(configFaultText(fault))).join('\n'));
}
