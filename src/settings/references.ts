// Owns `${ENV}` and `${file:path}`: where they are allowed (secrets and addresses, by the schema's marks) and what they become.
// Called by load.ts before the schema check; must never let a resolved secret into a fault.
import { isAbsolute, resolve } from 'node:path';
import type { TSchema } from 'typebox';
import { isRecord } from '../kernel/decode.ts';
import { messageOf } from '../kernel/errors.ts';
import type { Path, PathFault } from './config-fault.ts';
import { marksOf } from './marks.ts';
import { childSchema, itemSchema } from './schema-walk.ts';

/** What references are looked up in. */
export interface Surroundings {
  /** Value of an environment variable. */
  env(name: string): string | undefined;
  /** Whole content of a file; rejects when it cannot be read or is larger than `maxBytes`. */
  readFile(path: string, maxBytes: number): Promise<Uint8Array>;
  /** This host's name: default of `id`. */
  readonly hostName: string;
  /** Default of `state.dir`. */
  readonly stateDir: string;
}

const REFERENCE = /\$\{([^{}]*)\}/g;
const MAX_FILE_BYTES = 65_536;

export interface Resolved {
  readonly value: unknown;
  readonly faults: readonly PathFault[];
  /** Absolute names of the files that were read: a change of theirs is a change of the configuration. */
  readonly files: readonly string[];
}

/** Resolves every reference in `value`, a copy; `baseDir` is the directory of the config file. */
export async function resolveReferences(
  schema: TSchema,
  value: unknown,
  baseDir: string,
  around: Surroundings,
): Promise<Resolved> {
  const faults: PathFault[] = [];
  const files = new Set<string>();
  const read = async (path: Path, name: string): Promise<string> => {
    const file = isAbsolute(name) ? name : resolve(baseDir, name);
    files.add(file);
    try {
      return new TextDecoder('utf-8', { fatal: true }).decode(await around.readFile(file, MAX_FILE_BYTES)).replace(/\r?\n$/, '');
    } catch (thrown) {
      faults.push({ path, expected: `a readable text file of at most 64 KiB at ${file}`, got: messageOf(thrown).slice(0, 200) });
      return '';
    }
  };
  const one = async (path: Path, inner: string): Promise<string> => {
    if (inner.startsWith('file:')) return read(path, inner.slice('file:'.length));
    const found = /^[A-Za-z_][A-Za-z0-9_]*$/.test(inner) ? around.env(inner) : undefined;
    if (found !== undefined) return found;
    const isName = /^[A-Za-z_][A-Za-z0-9_]*$/.test(inner);
    faults.push({
      path,
      expected: isName ? `the environment variable ${inner} to be set` : `\${NAME} of an environment variable or \${file:path}`,
      got: isName ? 'no such variable' : JSON.stringify(`\${${inner}}`),
    });
    return '';
  };
  const text = async (node: TSchema | null, value: string, path: Path): Promise<string> => {
    const found = [...value.matchAll(REFERENCE)];
    // What the schema does not know is refused by the schema.
    if (found.length === 0 || node === null) return value;
    const marks = marksOf(node);
    if (!(marks.secret || marks.address)) {
      faults.push({
        path,
        expected: `plain text: \${…} stands only in secrets and addresses`,
        got: JSON.stringify(value.slice(0, 60)),
      });
      return value;
    }
    let result = '';
    let from = 0;
    for (const match of found) {
      result += value.slice(from, match.index) + (await one(path, match[1] ?? ''));
      from = match.index + match[0].length;
    }
    return result + value.slice(from);
  };
  const walk = async (node: TSchema | null, value: unknown, path: Path): Promise<unknown> => {
    if (typeof value === 'string') return text(node, value, path);
    if (Array.isArray(value)) {
      const items = node === null ? null : itemSchema(node);
      const result: unknown[] = [];
      for (const [i, item] of value.entries()) result.push(await walk(items, item, [...path, i]));
      return result;
    }
    if (!isRecord(value)) return value;
    const entries: [string, unknown][] = [];
    for (const [key, inner] of Object.entries(value)) {
      entries.push([key, await walk(node === null ? null : childSchema(node, value, key), inner, [...path, key])]);
    }
    return Object.fromEntries(entries);
  };
  const result = await walk(schema, value, []);
  return { value: result, faults, files: [...files] };
}
