// Owns the ledger of one migration on this host's disk: a header, then one line a page with a checksum and its number, the newest line of
// a service wins. Called by file-store.ts; must never take a damaged file for a shorter one, nor write to it.
import { createHash } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { Type } from 'typebox';
import { decoder, parseJson } from '../kernel/decode.ts';
import { PRIVATE_MODE, type ReadRefusal, readOwnFile, replaceFile, writeAll } from '../kernel/durable-file.ts';
import type { Log } from '../kernel/log.ts';
import type { ServiceId } from '../model/service.ts';
import { decodePage, encodePage, isEmptyPage, JOURNAL_VERSION, type Read } from './codec.ts';
import { GroupCommit } from './group-commit.ts';
import type { LedgerPage } from './migration.ts';

const MAGIC = 'weir-migration-ledger';
const MAX_BYTES = 1024 * 1024 * 1024;
const MAX_LINE_BYTES = 256 * 1024 * 1024;
/** The file is written anew when it is this much larger than twice what is live, bytes. */
const SLACK_BYTES = 1024 * 1024;
const CHUNK_BYTES = 256 * 1024;
const NEWLINE = 0x0a;

const decodeHeader = decoder(Type.Object({ magic: Type.Literal(MAGIC), version: Type.Number(), id: Type.String() }));

export interface LedgerFileDeps {
  readonly path: string;
  /** The migration. */
  readonly id: string;
  /** Owner that the file must have; null where the system has none. */
  readonly uid: number | null;
  readonly log: Log;
  /** Appends and syncs; tests make it fail half way, as a full disk does. */
  readonly append?: (file: FileHandle, bytes: Uint8Array) => Promise<void>;
}

interface Line {
  readonly page: LedgerPage;
  readonly json: string;
}

interface Live {
  readonly page: LedgerPage;
  /** Of its line, roughly. */
  readonly bytes: number;
}

export class LedgerFile {
  readonly #deps: LedgerFileDeps;
  readonly #commit = new GroupCommit<Line>((lines) => this.#write(lines));
  #live = new Map<ServiceId, Live>();
  #liveBytes = 0;
  /** Null: the next write replaces the file (none is open, or its end is not known). */
  #file: FileHandle | null = null;
  #lines = 0;
  #bytes = 0;
  #closed = false;

  private constructor(deps: LedgerFileDeps) {
    this.#deps = deps;
  }

  /** An empty ledger, durable when it resolves. Throws the system's error. */
  static async create(deps: LedgerFileDeps): Promise<LedgerFile> {
    const ledger = new LedgerFile(deps);
    await ledger.#replace([]);
    return ledger;
  }

  /**
   * Reads the file. A last line without its newline was being appended when weir died: nobody was told that it is durable, it is left out
   * and logged. Anything else that is not as it was written is a reason with the file's path and line; the file stays as it is.
   */
  static async load(deps: LedgerFileDeps): Promise<Read<LedgerFile>> {
    const bytes = await readOwnFile(deps.path, MAX_BYTES, deps.uid);
    if (typeof bytes === 'string') return { ok: false, reason: `${deps.path}: ${refusalText(bytes)}` };
    const ledger = new LedgerFile(deps);
    const fault = ledger.#take(bytes);
    return fault === null ? { ok: true, value: ledger } : { ok: false, reason: fault };
  }

  /** All pages as they are on the disk. */
  pages(): ReadonlyMap<ServiceId, LedgerPage> {
    return new Map([...this.#live].map(([service, { page }]) => [service, page]));
  }

  /** Replaces pages; resolves once they are on the disk. An empty page is deleted. Throws RangeError for a page that JSON cannot hold. */
  async save(pages: readonly LedgerPage[]): Promise<void> {
    if (this.#closed) throw new Error(`the ledger of ${this.#deps.id} is closed`);
    if (pages.length > 0) await this.#commit.add(pages.map((page) => ({ page, json: JSON.stringify(encodePage(page)) })));
  }

  /** Waits for what is being written. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#commit.idle();
    await this.#file?.close();
    this.#file = null;
  }

  async #write(lines: readonly Line[]): Promise<void> {
    const newest = [...new Map(lines.map((line) => [line.page.service, line])).values()];
    const text = Buffer.from(newest.map(({ json }, n) => sealed(this.#lines + n, json)).join(''));
    const file = this.#file;
    if (file === null || this.#bytes + text.length > 2 * this.#liveBytes + SLACK_BYTES) return this.#replace(newest);
    // Until it is synced nobody knows where the file ends.
    this.#file = null;
    try {
      await (this.#deps.append ?? appendSynced)(file, text);
    } catch (thrown) {
      await file.close().catch(() => undefined);
      throw thrown;
    }
    this.#file = file;
    this.#lines += newest.length;
    this.#bytes += text.length;
    for (const { page, json } of newest) this.#put(page, json.length);
  }

  /** Writes what is live, changed by `lines`, as a new file and goes on appending to that. */
  async #replace(lines: readonly Line[]): Promise<void> {
    const { path, id } = this.#deps;
    const pages = new Map([...this.#live].map(([service, { page }]) => [service, page]));
    for (const { page } of lines) {
      pages.delete(page.service);
      if (!isEmptyPage(page)) pages.set(page.service, page);
    }
    const before = this.#file;
    this.#file = null;
    await before?.close();
    const sizes = new Map<ServiceId, number>();
    let total = 0;
    function* chunks(): Generator<Uint8Array> {
      let waiting = sealed(0, JSON.stringify({ magic: MAGIC, version: JOURNAL_VERSION, id }));
      let number = 1;
      const flush = (): Uint8Array => {
        const chunk = Buffer.from(waiting);
        total += chunk.length;
        waiting = '';
        return chunk;
      };
      for (const [service, page] of pages) {
        const json = JSON.stringify(encodePage(page));
        sizes.set(service, json.length);
        waiting += sealed(number++, json);
        if (waiting.length >= CHUNK_BYTES) yield flush();
      }
      yield flush();
    }
    await replaceFile(path, chunks());
    this.#live = new Map();
    this.#liveBytes = 0;
    for (const [service, page] of pages) this.#put(page, sizes.get(service) ?? 0);
    this.#lines = pages.size + 1;
    this.#bytes = total;
    this.#file = await open(path, 'a', PRIVATE_MODE);
  }

  #put(page: LedgerPage, bytes: number): void {
    this.#liveBytes -= this.#live.get(page.service)?.bytes ?? 0;
    this.#live.delete(page.service);
    if (isEmptyPage(page)) return;
    this.#live.set(page.service, { page, bytes });
    this.#liveBytes += bytes;
  }

  /** Takes the lines of a file in; a fault with its place, or null. */
  #take(bytes: Buffer): string | null {
    const { path, log } = this.#deps;
    let number = 0;
    for (let start = 0; start < bytes.length || number === 0; number++) {
      const end = bytes.indexOf(NEWLINE, start);
      if (end < 0 && number > 0) {
        log.warn(
          { path, line: number + 1, bytes: bytes.length - start },
          'a line that was being appended at the last end is left out',
        );
        return null;
      }
      const fault = end < 0 ? 'no header' : this.#takeLine(bytes.toString('utf8', start, end), number);
      if (fault !== null) return `${path}:${number + 1}: ${fault}`;
      start = end + 1;
    }
    return null;
  }

  #takeLine(line: string, number: number): string | null {
    const value = unsealed(line, number);
    if (number === 0) return this.#headerFault(value);
    if (value === undefined) return 'the line is damaged or lines before it are missing (checksum)';
    const read = decodePage(value);
    if (!read.ok) return read.reason;
    this.#put(read.value, line.length);
    return null;
  }

  #headerFault(value: unknown): string | null {
    const header = decodeHeader(value);
    if (!header.ok) return 'no header';
    const { version, id } = header.value;
    if (version !== JOURNAL_VERSION) return `journal of version ${version}, this weir reads ${JOURNAL_VERSION}`;
    return id === this.#deps.id ? null : `the ledger of the migration ${id}`;
  }
}

async function appendSynced(file: FileHandle, bytes: Uint8Array): Promise<void> {
  await writeAll(file, bytes);
  await file.sync();
}

/** Words for a file that must not be read. */
export function refusalText(refusal: ReadRefusal): string {
  const words: Readonly<Record<ReadRefusal, string>> = {
    missing: 'the file is missing',
    symlink: 'the file is a symbolic link',
    notAFile: 'that is no regular file',
    owner: 'the file belongs to another user',
    tooBig: 'the file is too large',
  };
  return words[refusal];
}

/** `checksum number json\n`; the number tells when whole lines are missing. */
function sealed(number: number, json: string): string {
  return `${checksum(`${number} ${json}`)} ${number} ${json}\n`;
}

function unsealed(line: string, number: number): unknown {
  const body = line.slice(17);
  const start = `${number} `;
  if (line[16] !== ' ' || !body.startsWith(start) || line.slice(0, 16) !== checksum(body)) return undefined;
  const parsed = parseJson(body.slice(start.length), { maxBytes: MAX_LINE_BYTES });
  return parsed.ok ? parsed.value : undefined;
}

/** Tells damage, not malice. */
export function checksum(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}
