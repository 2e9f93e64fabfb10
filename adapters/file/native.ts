// Owns the shape of a services file and its decoding: text → services with plain records, or every fault with line and column.
// Called by mirror.ts; pure. Must never throw for bad input.
import { type Static, Type } from 'typebox';
import { type Document, isMap, isNode, isScalar, LineCounter, type Node, type Pair, parseDocument } from 'yaml';
import { decoder, type Fault, faultText } from '../../src/kernel/decode.ts';
import { parseServiceId, type ServiceKey } from '../../src/model/service.ts';

const text = Type.String({ minLength: 1, maxLength: 255 });

const recordSchema = Type.Object(
  {
    host: text,
    port: Type.Integer({ minimum: 1, maximum: 65_535 }),
    id: Type.Optional(text),
    transport: Type.Optional(Type.Union([Type.Literal('tcp'), Type.Literal('udp')])),
    weight: Type.Optional(Type.Number({ minimum: 0 })),
    isolated: Type.Optional(Type.Boolean()),
    protocol: Type.Optional(text),
    version: Type.Optional(text),
    locality: Type.Optional(
      Type.Object(
        { region: Type.Optional(text), zone: Type.Optional(text), campus: Type.Optional(text) },
        { additionalProperties: false },
      ),
    ),
    metadata: Type.Optional(Type.Record(Type.String(), Type.Union([Type.String(), Type.Number(), Type.Boolean()]))),
  },
  { additionalProperties: false },
);

const decodeService = decoder(Type.Object({ instances: Type.Array(recordSchema) }, { additionalProperties: false }));

/** One instance as the file writes it. */
export type FileRecord = Static<typeof recordSchema>;

export interface FileService {
  readonly key: ServiceKey;
  readonly records: readonly FileRecord[];
}

/** Faults are lines `12:5 path: expected … got …`, in the order of the file. */
export type FileContent =
  | { readonly ok: true; readonly services: readonly FileService[] }
  | { readonly ok: false; readonly faults: readonly string[] };

const MAX_FAULTS = 20;

/** Decodes the text of a whole file; an empty file has no services. */
export function parseServicesFile(source: string): FileContent {
  const lines = new LineCounter();
  const document = parseDocument(source, { lineCounter: lines, prettyErrors: false, customTags: [] });
  const reader = new Reader(document, lines);
  const troubles = [...document.errors, ...document.warnings.filter(({ code }) => code === 'TAG_RESOLVE_FAILED')];
  for (const error of troubles) reader.fault(error.pos[0], error.message);
  const services = troubles.length > 0 ? [] : reader.services();
  return reader.faults.length > 0 ? { ok: false, faults: reader.faults } : { ok: true, services };
}

class Reader {
  readonly faults: string[] = [];
  readonly #document: Document.Parsed;
  readonly #lines: LineCounter;

  constructor(document: Document.Parsed, lines: LineCounter) {
    this.#document = document;
    this.#lines = lines;
  }

  fault(offset: number, message: string): void {
    if (this.faults.length >= MAX_FAULTS) return;
    const { line, col } = this.#lines.linePos(offset);
    this.faults.push(`${line}:${col} ${message}`);
  }

  services(): FileService[] {
    const root = this.#document.contents;
    if (root === null || (isScalar(root) && root.value === null)) return [];
    const found: FileService[] = [];
    for (const pair of this.#pairs(root, '')) {
      if (keyText(pair) === 'services') for (const service of this.#pairs(pair.value, 'services')) this.#service(service, found);
      else this.fault(offsetOf(pair.key), `${keyText(pair)}: expected no such key, only services`);
    }
    return found;
  }

  #pairs(node: unknown, path: string): readonly Pair[] {
    if (isMap(node)) return node.items;
    if (!(isScalar(node) && node.value === null)) this.fault(offsetOf(node), `${path || '(file)'}: expected a map`);
    return [];
  }

  #service(pair: Pair, found: FileService[]): void {
    const name = keyText(pair);
    const path = `services[${JSON.stringify(name)}]`;
    const key = parseServiceId(name);
    if (key === null) {
      this.fault(offsetOf(pair.key), `${path}: expected a name namespace/name`);
      return;
    }
    const node = isNode(pair.value) ? pair.value : null;
    const decoded = decodeService(this.#value(node));
    if (decoded.ok) found.push({ key, records: decoded.value.instances });
    else
      for (const fault of decoded.faults)
        this.fault(this.#place(node, fault, pair.key), faultText({ ...fault, path: join(path, fault.path) }));
  }

  /** The plain value; what cannot become one (an alias bomb) is reported as a fault of the schema. */
  #value(node: Node | null): unknown {
    try {
      return node?.toJS(this.#document, { maxAliasCount: 100 });
    } catch {
      return undefined;
    }
  }

  /** Where the fault stands: the deepest node of its path that exists. */
  #place(node: Node | null, fault: Fault, fallback: unknown): number {
    let current: unknown = node ?? fallback;
    for (const part of pathParts(fault.path)) {
      const next: unknown =
        isNode(current) && 'get' in current && typeof current.get === 'function' ? current.get(part, true) : undefined;
      if (!isNode(next)) break;
      current = next;
    }
    return offsetOf(current);
  }
}

function keyText(pair: Pair): string {
  return isScalar(pair.key) ? String(pair.key.value) : '';
}

function offsetOf(node: unknown): number {
  return isNode(node) ? (node.range?.[0] ?? 0) : 0;
}

function join(path: string, rest: string): string {
  return rest === '' || rest.startsWith('[') ? path + rest : `${path}.${rest}`;
}

/** `instances[0].metadata["a b"]` → its keys. */
function pathParts(path: string): (string | number)[] {
  const parts: (string | number)[] = [];
  for (const [, name, index, quoted] of path.matchAll(/\.?([A-Za-z_][\w-]*)|\[(\d+)\]|\[("(?:[^"\\]|\\.)*")\]/g)) {
    if (name !== undefined) parts.push(name);
    else if (index !== undefined) parts.push(Number(index));
    else if (quoted !== undefined) parts.push(String(JSON.parse(quoted)));
  }
  return parts;
}
