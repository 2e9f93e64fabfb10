// Owns `weir schema`: conf/schema.json, made from the one schema of the configuration; `--check` tells whether a file is up to date.
import { readFile, writeFile } from 'node:fs/promises';
import type { AdapterFactory } from '../adapter/contract.ts';
import { adapterLoader } from '../app/loader.ts';
import { messageOf } from '../kernel/errors.ts';
import { jsonSchema } from '../settings/schema.ts';
import { CommandFailure, EXIT_FAILED, type Io, usageFailure } from './io.ts';

export interface SchemaOptions {
  /** Writes to this file instead of standard output. */
  readonly out?: string;
  /** Compares with this file (exit 1 when it differs). */
  readonly check?: string;
}

/** Runs the command. */
export async function schema(io: Io, options: SchemaOptions): Promise<void> {
  if (options.out !== undefined && options.check !== undefined) throw usageFailure('--out and --check exclude each other');
  const text = `${JSON.stringify(jsonSchema(await allFactories()), null, 2)}\n`;
  if (options.check !== undefined) await compare(options.check, text);
  else if (options.out === undefined) io.out(text);
  else await writeFile(options.out, text);
}

async function allFactories(): Promise<AdapterFactory[]> {
  const loader = adapterLoader();
  const factories = await Promise.all(loader.kinds.map((kind) => loader.load(kind)));
  return factories.filter((factory) => factory !== null);
}

async function compare(file: string, text: string): Promise<void> {
  let found: string;
  try {
    found = await readFile(file, 'utf8');
  } catch (thrown) {
    throw new CommandFailure(EXIT_FAILED, `${file} cannot be read: ${messageOf(thrown)}`);
  }
  if (found !== text) throw new CommandFailure(EXIT_FAILED, `${file} is out of date: run npm run generate`);
}
