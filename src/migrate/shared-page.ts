// Owns the form of a ledger in a shared store: one value a page, and for large pages a head with parts by entry. Pure.
// Called by shared-ledger.ts; must never make a page out of parts that do not belong together.
import { createHash } from 'node:crypto';
import { Type } from 'typebox';
import type { StateEntry } from '../adapter/state-store.ts';
import { decoder, faultText, parseJson } from '../kernel/decode.ts';
import { WeirError } from '../kernel/errors.ts';
import type { ServiceId } from '../model/service.ts';
import { SourceError } from '../model/snapshot.ts';
import { decodePage, encodePage, JOURNAL_VERSION, versionFault } from './codec.ts';
import type { LedgerEntry, LedgerPage } from './migration.ts';
import { keyPart } from './shared-keys.ts';

/** Largest value that is written, bytes: etcd takes 1.5 MiB in a request, Consul 512 KiB in a transaction, in base64. */
export const MAX_VALUE_BYTES = 256 * 1024;
const MAX_PARTS = 4_096;
const MAX_READ_BYTES = 4 * 1024 * 1024;

/** `generation` null: the page stands whole in its head. */
export interface Shape {
  readonly generation: string | null;
  readonly parts: number;
}

export const WHOLE: Shape = { generation: null, parts: 0 };

const decodeValue = decoder(
  Type.Object(
    {
      version: Type.Literal(JOURNAL_VERSION),
      /** Which ownership wrote it: tells our own lost answers from another owner's writes. */
      writer: Type.String(),
      generation: Type.Union([Type.String(), Type.Null()]),
      parts: Type.Integer({ minimum: 0, maximum: MAX_PARTS }),
      page: Type.Unknown(),
    },
    { additionalProperties: false },
  ),
);

export interface ReadLedger {
  readonly pages: ReadonlyMap<ServiceId, LedgerPage>;
  readonly shapes: ReadonlyMap<ServiceId, Shape>;
  /** Parts that no head names: of a write that was cut short. */
  readonly strays: readonly StateEntry[];
}

/** Reads the entries below `prefix`, all of one moment. Throws WeirError MIGRATION_JOURNAL that names the key. */
export function readLedger(id: string, prefix: string, entries: readonly StateEntry[]): ReadLedger {
  const parts = new Map<string, StateEntry>();
  const heads: StateEntry[] = [];
  for (const entry of entries) {
    if (entry.key.includes('/', prefix.length)) parts.set(entry.key, entry);
    else heads.push(entry);
  }
  const pages = new Map<ServiceId, LedgerPage>();
  const shapes = new Map<ServiceId, Shape>();
  for (const head of heads) {
    const { page, generation, parts: count } = readValue(id, head);
    if (prefix + keyPart(page.service) !== head.key) throw damage(id, head.key, `the page of the service ${page.service}`);
    const found = [...page.entries];
    for (let n = 0; n < count; n++) {
      const key = partKey(head.key, generation, n);
      const part = parts.get(key);
      if (part === undefined) throw damage(id, head.key, `part ${n + 1} of ${count} is missing`);
      parts.delete(key);
      for (const entry of readValue(id, part).page.entries) found.push(entry);
    }
    pages.set(page.service, { ...page, entries: found });
    shapes.set(page.service, { generation, parts: count });
  }
  return { pages, shapes, strays: [...parts.values()] };
}

export function partKey(head: string, generation: string | null, n: number): string {
  return `${head}/${generation ?? ''}/${n}`;
}

/** What a page is written as: the head last, since it names the parts. */
export interface Plan {
  readonly shape: Shape;
  readonly parts: readonly (readonly [key: string, value: string])[];
  readonly head: string;
}

/**
 * Keeps the shape of before while the page fits it, so that a change of one entry rewrites one value. `nextGeneration` names new parts.
 * Throws SourceError `limit` for a page beyond every split, RangeError for one that JSON cannot hold.
 */
export function planPage(page: LedgerPage, key: string, before: Shape, writer: string, nextGeneration: () => string): Plan {
  const whole = valueText(writer, WHOLE, page);
  const size = Buffer.byteLength(whole);
  // A page that was split comes together again well below the limit only, so that it does not change its shape back and forth.
  if (size <= (before.parts === 0 ? MAX_VALUE_BYTES : MAX_VALUE_BYTES / 2)) return { shape: WHOLE, parts: [], head: whole };
  for (let parts = before.parts === 0 ? 2 : before.parts; parts <= MAX_PARTS; parts *= 2) {
    const buckets = split(page, parts).map((bucket) => valueText(writer, WHOLE, bucket));
    if (buckets.some((text) => Buffer.byteLength(text) > MAX_VALUE_BYTES)) continue;
    const shape = parts === before.parts ? before : { generation: nextGeneration(), parts };
    return {
      shape,
      parts: buckets.map((text, n) => [partKey(key, shape.generation, n), text] as const),
      head: valueText(writer, shape, { ...page, entries: [] }),
    };
  }
  throw new SourceError('limit', `the ledger page of ${page.service} does not fit the shared store (${size} bytes)`);
}

/** An entry stays in its part for as long as the number of parts does. */
function split(page: LedgerPage, parts: number): LedgerPage[] {
  const buckets: LedgerEntry[][] = Array.from({ length: parts }, () => []);
  for (const entry of page.entries) {
    const name = JSON.stringify([entry.target, entry.key, entry.host, entry.port, entry.transport]);
    buckets[createHash('sha256').update(name).digest().readUInt32BE() % parts]?.push(entry);
  }
  return buckets.map((entries) => ({ service: page.service, baseline: null, entries }));
}

function valueText(writer: string, { generation, parts }: Shape, page: LedgerPage): string {
  return JSON.stringify({ version: JOURNAL_VERSION, writer, generation, parts, page: encodePage(page) });
}

function readValue(id: string, { key, value }: StateEntry): Shape & { readonly page: LedgerPage } {
  const parsed = parseJson(value, { maxBytes: MAX_READ_BYTES });
  if (!parsed.ok) throw damage(id, key, 'no JSON');
  const version = versionFault(parsed.value);
  if (version !== null) throw damage(id, key, version);
  const decoded = decodeValue(parsed.value);
  if (!decoded.ok) throw damage(id, key, decoded.faults.slice(0, 3).map(faultText).join('; '));
  const page = decodePage(decoded.value.page);
  if (!page.ok) throw damage(id, key, page.reason);
  const { generation, parts } = decoded.value;
  return { generation, parts, page: page.value };
}

function damage(id: string, key: string, why: string): WeirError {
  return new WeirError('MIGRATION_JOURNAL', `shared store, key ${key}: ${why}`, { details: { migration: id, key } });
}
