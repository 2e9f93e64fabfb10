// Owns the bytes of a last-good file (R11): frames with a checksum, records of services, and their reading without decoding the
// instances. Pure; last-good.ts does the files. A bad byte must never do more than drop the frame that it stands in.
import { hash } from 'node:crypto';
import { isRecord, parseJson } from '../kernel/decode.ts';
import type { Instance, Locality, RegistryHealth } from '../model/instance.ts';
import { MAX_WEIGHT, NO_METADATA } from '../model/instance.ts';
import type { ServiceId } from '../model/service.ts';
import type { HoldKind } from './shrink-guard.ts';
import type { Contact, SourceWords, Words } from './words.ts';

export const SCHEMA = 1;
const FORMAT = 'weir-last-good';

/** A frame: magic, length of the payload (u32 LE), sha256 of the payload, payload. The first byte of the payload is its type. */
const MAGIC = Buffer.from('WLG\u0001');
const HEAD_BYTES = MAGIC.length + 4 + 32;
const MAX_PAYLOAD = 64 * 1024 * 1024;
/** After so many bad places the rest of a file is given up: no file can make loading quadratic. */
const MAX_BAD = 1_000;
const MAX_HEAD_BYTES = 4 * 1024 * 1024;

/** header · service · tombstone · contacts · end of the base (what the generation was started with is complete). */
export type FrameType = 'H' | 'S' | 'T' | 'C' | 'B';

export interface Header {
  /** Number of the generation. */
  readonly epoch: number;
  /** Wall ms. */
  readonly writtenAt: number;
  /** Newest index given out (M9). */
  readonly index: number;
}

export interface Frame {
  readonly type: FrameType;
  readonly payload: Buffer;
}

/** Bytes of a frame. */
export function frame(type: FrameType, text: string): Buffer {
  const payload = Buffer.from(type + text);
  const bytes = Buffer.allocUnsafe(HEAD_BYTES + payload.length);
  MAGIC.copy(bytes, 0);
  bytes.writeUInt32LE(payload.length, MAGIC.length);
  hash('sha256', payload, 'buffer').copy(bytes, MAGIC.length + 4);
  payload.copy(bytes, HEAD_BYTES);
  return bytes;
}

/** Reads frames and finds the way again after bad bytes. */
export class FrameReader {
  readonly #bytes: Buffer;
  #offset = 0;
  #bad = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  /** Places at which bytes were not what was written. */
  get bad(): number {
    return this.#bad;
  }

  /** Bytes read so far. */
  get offset(): number {
    return this.#offset;
  }

  /** The next good frame, null at the end. */
  next(): Frame | null {
    while (this.#offset < this.#bytes.length) {
      const payload = this.#payloadAt(this.#offset);
      const type = payload === null ? null : frameType(payload[0]);
      if (payload !== null && type !== null) {
        this.#offset += HEAD_BYTES + payload.length;
        return { type, payload: payload.subarray(1) };
      }
      this.#bad++;
      const next = this.#bad > MAX_BAD ? -1 : this.#bytes.indexOf(MAGIC, this.#offset + 1);
      this.#offset = next < 0 ? this.#bytes.length : next;
    }
    return null;
  }

  #payloadAt(offset: number): Buffer | null {
    const bytes = this.#bytes;
    const start = offset + HEAD_BYTES;
    if (start > bytes.length || bytes.compare(MAGIC, 0, MAGIC.length, offset, offset + MAGIC.length) !== 0) return null;
    const length = bytes.readUInt32LE(offset + MAGIC.length);
    if (length === 0 || length > MAX_PAYLOAD || start + length > bytes.length) return null;
    const payload = bytes.subarray(start, start + length);
    const sum = hash('sha256', payload, 'buffer');
    return bytes.compare(sum, 0, sum.length, offset + MAGIC.length + 4, start) === 0 ? payload : null;
  }
}

function frameType(byte: number | undefined): FrameType | null {
  const text = byte === undefined ? '' : String.fromCharCode(byte);
  return text === 'H' || text === 'S' || text === 'T' || text === 'C' || text === 'B' ? text : null;
}

export function headerText(header: Header): string {
  return JSON.stringify({ format: FORMAT, schema: SCHEMA, ...header });
}

/** Null for another format or schema. */
export function parseHeader(payload: Buffer): Header | null {
  const value = json(payload);
  if (!isRecord(value) || value['format'] !== FORMAT || value['schema'] !== SCHEMA) return null;
  const { epoch, writtenAt, index } = value;
  return isCount(epoch) && isCount(writtenAt) && isCount(index) ? { epoch, writtenAt, index } : null;
}

/** Contacts, with the newest index given out. */
export function contactsText(contacts: readonly Contact[], index: number): string {
  return JSON.stringify({ index, contacts: contacts.map(({ source, contactAt, except }) => [source, contactAt, except]) });
}

export function parseContacts(payload: Buffer): { index: number; contacts: readonly Contact[] } | null {
  const value = json(payload);
  if (!isRecord(value) || !isCount(value['index']) || !Array.isArray(value['contacts'])) return null;
  const contacts = value['contacts'].flatMap((one: unknown): Contact[] => {
    if (!Array.isArray(one)) return [];
    const [source, contactAt, except]: unknown[] = one;
    if (typeof source !== 'string' || !isCount(contactAt) || !Array.isArray(except)) return [];
    return [{ source, contactAt, except: except.filter((name: unknown) => typeof name === 'string') }];
  });
  return { index: value['index'], contacts };
}

/** One source's part of a service record; instances lie undecoded in `body`. */
export interface StoredWords {
  readonly source: string;
  readonly key: SourceWords['key'];
  readonly presence: SourceWords['presence'];
  readonly epoch: string;
  readonly sourceRevision: string;
  readonly goodAt: number;
  readonly count: number;
  readonly body: Buffer;
}

/** A line of JSON about the words, then the instances of each source: the line alone is read at load. */
export function serviceText(words: Words): string {
  const bodies = words.sources.map(({ present, held }) =>
    JSON.stringify([
      ...present.map((one) => instanceTuple(one, 0)),
      ...held.map((one) => instanceTuple(one.instance, heldCode(one.kind))),
    ]),
  );
  const heads = words.sources.map((one, i) => [
    one.source,
    one.key.namespace,
    one.key.name,
    one.presence === 'present' ? 1 : 0,
    one.epoch,
    one.sourceRevision,
    one.goodAt,
    one.present.length + one.held.length,
    Buffer.byteLength(bodies[i] ?? ''),
  ]);
  return `${JSON.stringify([words.service, heads])}\n${bodies.join('')}`;
}

/** The words of a service record; null when it is none. */
export function parseService(payload: Buffer): { service: ServiceId; words: readonly StoredWords[] } | null {
  const end = payload.indexOf(0x0a);
  const head = end < 0 ? null : json(payload.subarray(0, end));
  if (!Array.isArray(head)) return null;
  const [service, list]: unknown[] = head;
  if (typeof service !== 'string' || !Array.isArray(list)) return null;
  const words: StoredWords[] = [];
  let offset = end + 1;
  for (const one of list) {
    const stored = Array.isArray(one) ? parseHead(one, payload, offset) : null;
    if (stored === null) return null;
    words.push(stored);
    offset += stored.body.length;
  }
  return { service, words };
}

function parseHead(head: readonly unknown[], payload: Buffer, offset: number): StoredWords | null {
  const [source, namespace, name, present, epoch, sourceRevision, goodAt, count, length] = head;
  if (typeof source !== 'string' || typeof namespace !== 'string' || typeof name !== 'string') return null;
  if (typeof epoch !== 'string' || typeof sourceRevision !== 'string' || !isCount(goodAt)) return null;
  if (!isCount(count) || !isCount(length) || offset + length > payload.length) return null;
  const presence = present === 1 ? 'present' : 'absent';
  const body = payload.subarray(offset, offset + length);
  return { source, key: { namespace, name }, presence, epoch, sourceRevision, goodAt, count, body };
}

/** The instances of a stored word. What is no instance is left out. */
export function parseInstances(body: Buffer): Pick<SourceWords, 'present' | 'held'> {
  const list = json(body, MAX_PAYLOAD);
  const present: Instance[] = [];
  const held: { instance: Instance; kind: HoldKind }[] = [];
  for (const tuple of Array.isArray(list) ? list : []) {
    if (!Array.isArray(tuple)) continue;
    const instance = parseInstance(tuple);
    if (instance === null) continue;
    if (tuple[HELD] === 1 || tuple[HELD] === 2) held.push({ instance, kind: tuple[HELD] === 1 ? 'service' : 'sourceWide' });
    else present.push(instance);
  }
  return { present, held };
}

export function parseTombstone(payload: Buffer): ServiceId | null {
  const value = json(payload);
  return typeof value === 'string' ? value : null;
}

const HEALTH: readonly RegistryHealth[] = ['unknown', 'healthy', 'unhealthy'];
const HELD = 7;

function heldCode(kind: HoldKind): number {
  return kind === 'service' ? 1 : 2;
}

/** [id, host, port, udp, weight, health, isolated, held, protocol, version, locality, metadata], cut where nothing more follows. */
function instanceTuple(one: Instance, held: number): unknown[] {
  const { region = '', zone = '', campus = '' } = one.locality ?? {};
  const tuple: unknown[] = [
    one.id,
    one.host,
    one.port,
    one.transport === 'udp' ? 1 : 0,
    one.weight,
    HEALTH.indexOf(one.health),
    one.isolated ? 1 : 0,
    held,
    one.protocol ?? '',
    one.version ?? '',
    one.locality === undefined ? 0 : [region, zone, campus],
    one.metadata.size === 0 ? 0 : [...one.metadata].flat(),
  ];
  while (tuple.length > HELD && (tuple.at(-1) === 0 || tuple.at(-1) === '')) tuple.pop();
  return tuple;
}

function parseInstance(tuple: readonly unknown[]): Instance | null {
  const [id, host, port, udp, weight, health, isolated, , protocol, version, locality, metadata] = tuple;
  if (typeof id !== 'string' || typeof host !== 'string' || !isCount(port) || !isCount(weight) || weight > MAX_WEIGHT)
    return null;
  const where = parseLocality(locality);
  return {
    id,
    host,
    port,
    transport: udp === 1 ? 'udp' : 'tcp',
    weight,
    health: (typeof health === 'number' ? HEALTH[health] : undefined) ?? 'unknown',
    isolated: isolated === 1,
    ...(typeof protocol === 'string' && protocol !== '' ? { protocol } : {}),
    ...(typeof version === 'string' && version !== '' ? { version } : {}),
    ...(where === null ? {} : { locality: where }),
    metadata: parseMetadata(metadata),
  };
}

function parseLocality(value: unknown): Locality | null {
  if (!Array.isArray(value)) return null;
  const [region, zone, campus]: unknown[] = value;
  return {
    ...(typeof region === 'string' && region !== '' ? { region } : {}),
    ...(typeof zone === 'string' && zone !== '' ? { zone } : {}),
    ...(typeof campus === 'string' && campus !== '' ? { campus } : {}),
  };
}

function parseMetadata(value: unknown): ReadonlyMap<string, string> {
  if (!Array.isArray(value)) return NO_METADATA;
  const metadata = new Map<string, string>();
  for (let i = 0; i + 1 < value.length; i += 2) {
    const [key, text]: unknown[] = [value[i], value[i + 1]];
    if (typeof key === 'string' && typeof text === 'string') metadata.set(key, text);
  }
  return metadata;
}

function json(bytes: Buffer, maxBytes = MAX_HEAD_BYTES): unknown {
  const decoded = parseJson(bytes, { maxBytes, maxDepth: 8 });
  return decoded.ok ? decoded.value : null;
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
