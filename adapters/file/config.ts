// Owns the configuration keys of kind `file`. Called by index.ts; must never hold a key that every source takes.
import { type Static, Type } from 'typebox';

export const fileConfig = Type.Object(
  {
    /** The YAML (or JSON) file; relative paths are taken from the directory of the process. */
    path: Type.String({ minLength: 1 }),
  },
  { additionalProperties: false },
);

export type FileConfig = Static<typeof fileConfig>;

/** Editors write in several steps: a change is read once nothing has moved for this long, ms (R12). */
export const DEBOUNCE_MS = 200;
/** Change notices get lost on some file systems: the file's state is asked for this often, ms. */
export const RECHECK_MS = 5_000;
/** 200,000 instances need about 20 MB of YAML. */
export const MAX_BYTES = 64 * 1024 * 1024;
