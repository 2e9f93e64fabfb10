// Owns reading the last-good generations at start (R11): the newest one that can be read, what it lacks from the one before, nothing
// at worst. Called once by app before sources are opened; must never throw and never decode an instance.
import { readdir } from 'node:fs/promises';
import { readOwnFile } from '../kernel/durable-file.ts';
import type { ServiceId } from '../model/service.ts';
import type { Events } from '../telemetry/events.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import {
  FrameReader,
  type Header,
  parseContacts,
  parseHeader,
  parseInstances,
  parseService,
  parseTombstone,
  type StoredWords,
} from './last-good-format.ts';
import type { Contact, RestoredWord } from './words.ts';

/** A file that is bigger is none of ours (200,000 instances with metadata, twice over). */
export const MAX_FILE_BYTES = 512 * 1024 * 1024;

const NAME = /^last-good\.([1-9]\d{0,14})$/;

/** Name of the file of a generation. */
export function generationPath(directory: string, epoch: number): string {
  return `${directory}/last-good.${epoch}`;
}

/** Numbers of the generations in the directory, newest first. */
export async function generations(directory: string): Promise<readonly number[]> {
  const names = await readdir(directory).catch(() => []);
  const numbers = names.flatMap((name) => {
    const found = NAME.exec(name);
    return found === null ? [] : [Number(found[1])];
  });
  return numbers.sort((a, b) => b - a);
}

export interface LoadOptions {
  readonly directory: string;
  readonly wallNow: number;
  /** `state.lastGoodMaxAge`, ms. */
  readonly maxAge: number;
  /** Owner that files must have; null: not asked. */
  readonly uid: number | null;
  readonly metrics: Metrics;
  readonly events: Events;
  readonly maxBytes?: number;
}

/** What was found. `append`: the generation that writing may go on in, null when a new one must be started. */
export interface LoadedLastGood {
  readonly words: readonly RestoredWord[];
  /** Newest index that was given out; 0 without a file. */
  readonly index: number;
  readonly services: number;
  /** Number of the newest generation there is, readable or not; 0 without one. */
  readonly newest: number;
  readonly append: { readonly epoch: number; readonly bytes: number; readonly sizes: ReadonlyMap<ServiceId, number> } | null;
}

interface Generation {
  readonly header: Header;
  readonly index: number;
  readonly services: ReadonlyMap<ServiceId, readonly StoredWords[]>;
  readonly sizes: ReadonlyMap<ServiceId, number>;
  /** Services that it says are gone. */
  readonly gone: ReadonlySet<ServiceId>;
  readonly contacts: ReadonlyMap<string, Contact>;
  readonly bad: number;
  readonly bytes: number;
}

const EMPTY = { words: [], index: 0, services: 0 };

/** Loads what there is. Faults are counted, told as `last_good_fallback`, and never thrown. */
export async function loadLastGood(options: LoadOptions): Promise<LoadedLastGood> {
  const numbers = await generations(options.directory);
  const [newest = 0] = numbers;
  let best: Generation | null = null;
  let complete = false;
  for (const epoch of numbers) {
    const read = await readGeneration(options, epoch);
    if (read === null) continue;
    // A bad record of the newest generation is answered by the one before.
    best = best === null ? read : fillIn(best, read);
    complete = read.bad === 0;
    if (complete) break;
  }
  if (best === null) return { ...EMPTY, newest, append: null };
  const whole = best.header.epoch === newest && best.bad === 0;
  const append = whole ? { epoch: newest, bytes: best.bytes, sizes: best.sizes } : null;
  return { words: wordsOf(best, options), index: best.index, services: best.services.size, newest, append };
}

async function readGeneration(options: LoadOptions, epoch: number): Promise<Generation | null> {
  const path = generationPath(options.directory, epoch);
  const bytes = await readOwnFile(path, options.maxBytes ?? MAX_FILE_BYTES, options.uid).catch(() => 'unreadable' as const);
  const generation = typeof bytes === 'string' ? null : parseGeneration(bytes, epoch);
  const bad = generation?.bad ?? 1;
  if (bad > 0) {
    const why = typeof bytes === 'string' ? bytes : generation === null ? 'header' : 'records';
    options.metrics.counter('weir_last_good_bad_records_total').inc(bad);
    options.events.emit('last_good_fallback', { file: `last-good.${epoch}`, why, bad });
  }
  return generation;
}

/** Reads the frames of a generation; null when its header is bad. */
export function parseGeneration(bytes: Buffer, epoch: number): Generation | null {
  const reader = new FrameReader(bytes);
  const first = reader.next();
  const header = first?.type === 'H' && reader.bad === 0 ? parseHeader(first.payload) : null;
  if (header === null || header.epoch !== epoch) return null;
  const services = new Map<ServiceId, readonly StoredWords[]>();
  const sizes = new Map<ServiceId, number>();
  const gone = new Set<ServiceId>();
  const contacts = new Map<string, Contact>();
  let { index } = header;
  let unreadable = 0;
  let baseEnded = false;
  for (let at = reader.offset, next = reader.next(); next !== null; at = reader.offset, next = reader.next()) {
    const { type, payload } = next;
    const parsed = type === 'S' ? parseService(payload) : null;
    const contact = type === 'C' ? parseContacts(payload) : null;
    const dead = type === 'T' ? parseTombstone(payload) : null;
    if (parsed !== null) {
      services.set(parsed.service, parsed.words);
      sizes.set(parsed.service, reader.offset - at);
      gone.delete(parsed.service);
    } else if (contact !== null) {
      index = Math.max(index, contact.index);
      for (const one of contact.contacts) contacts.set(one.source, one);
    } else if (dead !== null) {
      services.delete(dead);
      sizes.delete(dead);
      gone.add(dead);
    } else if (type === 'B') baseEnded = true;
    else unreadable++;
  }
  const bad = reader.bad + unreadable + (baseEnded ? 0 : 1);
  return { header, index, services, sizes, gone, contacts, bad, bytes: bytes.length };
}

const FRAMES_PER_PAUSE = 32;

/** True when every frame is as it was written. Reads in slices: `pause` gives the loop back when it is time. */
export async function isWhole(bytes: Buffer, epoch: number, pause: () => Promise<void> | undefined): Promise<boolean> {
  const reader = new FrameReader(bytes);
  const first = reader.next();
  if (first?.type !== 'H' || parseHeader(first.payload)?.epoch !== epoch) return false;
  let baseEnded = false;
  let read = 0;
  for (let next = reader.next(); next !== null; next = reader.next()) {
    if (next.type === 'B') baseEnded = true;
    if (++read % FRAMES_PER_PAUSE === 0) await pause();
  }
  return baseEnded && reader.bad === 0;
}

/** What the newer generation neither has nor says is gone comes from the older one. */
function fillIn(newer: Generation, older: Generation): Generation {
  const services = new Map(newer.services);
  for (const [service, words] of older.services) {
    if (!services.has(service) && !newer.gone.has(service)) services.set(service, words);
  }
  const contacts = new Map([...older.contacts, ...newer.contacts]);
  return { ...newer, services, contacts, index: Math.max(newer.index, older.index) };
}

function wordsOf(generation: Generation, { wallNow, maxAge }: LoadOptions): RestoredWord[] {
  const except = new Map([...generation.contacts].map(([source, contact]) => [source, new Set(contact.except)]));
  const keep = compact(generation);
  const words: RestoredWord[] = [];
  for (const [service, stored] of generation.services) {
    for (const { body, ...word } of stored) {
      const contact = generation.contacts.get(word.source);
      const current = contact !== undefined && except.get(word.source)?.has(service) !== true;
      const goodAt = current ? Math.max(word.goodAt, contact.contactAt) : word.goodAt;
      const bytes = keep(body);
      words.push({ ...word, goodAt, suspect: wallNow - goodAt > maxAge, decode: () => parseInstances(bytes) });
    }
  }
  return words;
}

/** Undecoded words keep the file's bytes alive: when much of it is dead, the live part is copied out of it. */
function compact(generation: Generation): (body: Buffer) => Buffer {
  let live = 0;
  for (const stored of generation.services.values()) for (const { body } of stored) live += body.length;
  if (live * 1.3 > generation.bytes) return (body) => body;
  const room = Buffer.allocUnsafeSlow(live);
  let at = 0;
  return (body) => {
    const copy = room.subarray(at, at + body.length);
    body.copy(copy);
    at += body.length;
    return copy;
  };
}
