// Owns the last overlay of every migration on this host's disk, so that a sidecar that starts while the shared store is lost reads as it
// did before. Called by app and by migrations.ts (OverlayMemory); must never keep a start from going on.
import { rename } from 'node:fs/promises';
import { Type } from 'typebox';
import { decoder, faultText, parseJson } from '../kernel/decode.ts';
import { readOwnFile, replaceFile } from '../kernel/durable-file.ts';
import { messageOf } from '../kernel/errors.ts';
import type { Log } from '../kernel/log.ts';
import { JOURNAL_VERSION, type Read, versionFault } from './codec.ts';
import { GroupCommit } from './group-commit.ts';
import type { Phase } from './migration.ts';
import type { OverlayEntry } from './overlay.ts';

const MAX_BYTES = 16 * 1024 * 1024;

const STRICT = { additionalProperties: false } as const;

const decodeFile = decoder(
  Type.Object(
    {
      version: Type.Literal(JOURNAL_VERSION),
      overlays: Type.Array(
        Type.Object(
          {
            id: Type.String(),
            from: Type.String(),
            to: Type.String(),
            services: Type.Array(Type.String()),
            phase: Type.Unsafe<Phase>({
              type: 'string',
              enum: ['plan', 'mirror', 'shift', 'cutover', 'finished', 'aborting', 'aborted'],
            }),
            weight: Type.Number({ minimum: 0, maximum: 100 }),
            sticky: Type.Union([Type.String(), Type.Null()]),
          },
          STRICT,
        ),
      ),
    },
    STRICT,
  ),
);

export interface OverlayFileDeps {
  /** Beside the folder of migrations, not in it: a migration may be called `overlay`. */
  readonly path: string;
  /** Owner that the file must have; null where the system has none. */
  readonly uid: number | null;
  readonly log: Log;
}

export class OverlayFile {
  readonly #deps: OverlayFileDeps;
  readonly #commit = new GroupCommit<readonly OverlayEntry[]>((lists) => this.#write(lists.at(-1) ?? []));
  /** What the file holds; null: not known. */
  #text: string | null = null;

  constructor(deps: OverlayFileDeps) {
    this.#deps = deps;
  }

  /** A file that is missing is an empty list; one that cannot be read is put aside and logged. Never rejects. */
  async load(): Promise<readonly OverlayEntry[]> {
    const { path, uid, log } = this.#deps;
    const bytes = await readOwnFile(path, MAX_BYTES, uid).catch(messageOf);
    if (bytes === 'missing') return [];
    const read = typeof bytes === 'string' ? unread(bytes) : readFile(bytes);
    if (read.ok) {
      this.#text = textOf(read.value);
      return read.value;
    }
    const aside = `${path}.refused`;
    await rename(path, aside).catch(() => undefined);
    const until = 'until the migration store is read no migration changes what is read';
    log.error({ path, aside }, `${path}: ${read.reason}; it was put aside, and ${until}`);
    return [];
  }

  /** Resolves once the list is on the disk; of those that wait the newest is written. Rejects with the system's error. */
  save(entries: readonly OverlayEntry[]): Promise<void> {
    return this.#commit.add([entries]);
  }

  async #write(entries: readonly OverlayEntry[]): Promise<void> {
    const text = textOf(entries);
    if (text === this.#text) return;
    this.#text = null;
    await replaceFile(this.#deps.path, [Buffer.from(text)]);
    this.#text = text;
  }
}

function unread(why: string): Read<never> {
  return { ok: false, reason: why };
}

function readFile(bytes: Buffer): Read<readonly OverlayEntry[]> {
  const parsed = parseJson(bytes, { maxBytes: MAX_BYTES });
  if (!parsed.ok) return { ok: false, reason: 'no JSON' };
  const version = versionFault(parsed.value);
  if (version !== null) return { ok: false, reason: version };
  const decoded = decodeFile(parsed.value);
  return decoded.ok
    ? { ok: true, value: decoded.value.overlays }
    : { ok: false, reason: decoded.faults.slice(0, 3).map(faultText).join('; ') };
}

function textOf(overlays: readonly OverlayEntry[]): string {
  return `${JSON.stringify({ version: JOURNAL_VERSION, overlays })}\n`;
}
