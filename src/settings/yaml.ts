// Owns the way from bytes to plain data with positions: UTF-8, YAML 1.2 core schema, caps, no tags, no duplicates, no alias bombs.
// Called by load.ts; must never throw for bad input, and must refuse a bomb before it costs time or memory.
import { Composer, type Document, isAlias, isMap, isScalar, isSeq, Lexer, LineCounter, type Node, Parser } from 'yaml';
import { type ConfigFault, type Path, pathText } from './config-fault.ts';

const MAX_BYTES = 1_048_576;
const MAX_DEPTH = 32;
const MAX_ALIASES = 100;

/** Where a value (or its key) stands; the nearest ancestor that exists when the path does not. */
export interface YamlFile {
  readonly value: unknown;
  position(path: Path, onKey: boolean): { readonly line: number; readonly col: number };
}

export type ParsedYaml =
  | { readonly ok: true; readonly file: YamlFile }
  | { readonly ok: false; readonly faults: readonly ConfigFault[] };

/** Parses the bytes of the config file called `name`. An empty file is an empty configuration. */
export function parseYaml(bytes: Uint8Array, name: string): ParsedYaml {
  const refuse = (expected: string, got: string, line = 1, col = 1, path = ''): ParsedYaml => ({
    ok: false,
    faults: [{ file: name, line, col, path, expected, got }],
  });
  if (bytes.byteLength > MAX_BYTES) return refuse('a file of at most 1 MiB', `${bytes.byteLength} bytes`);
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return refuse('valid UTF-8', 'other bytes');
  }
  if (flowDepth(text) > MAX_DEPTH) return refuse(`nesting of at most ${MAX_DEPTH}`, 'deeper nesting');
  const lines = new LineCounter();
  const tokens = [...new Parser(lines.addNewLine).parse(text)];
  if (tokenDepth(tokens) > MAX_DEPTH) return refuse(`nesting of at most ${MAX_DEPTH}`, 'deeper nesting');
  const composer = new Composer({ lineCounter: lines, schema: 'core', version: '1.2', uniqueKeys: true, prettyErrors: false });
  const documents = [...composer.compose(tokens, true, text.length)];
  const second = documents[1];
  if (second !== undefined) {
    const at = lines.linePos(second.range[0]);
    return refuse('one YAML document', 'more than one', at.line, at.col);
  }
  const document = documents[0];
  if (document === undefined) return { ok: true, file: { value: {}, position: () => ({ line: 1, col: 1 }) } };
  const faults = documentFaults(document, name, lines);
  if (faults.length > 0) return { ok: false, faults };
  try {
    const value: unknown = document.toJS({ maxAliasCount: MAX_ALIASES }) ?? {};
    return { ok: true, file: { value, position: (path, onKey) => positionOf(document, lines, path, onKey) } };
  } catch {
    return refuse(`at most ${MAX_ALIASES} uses of aliases`, 'more (an alias bomb)');
  }
}

/** Syntax errors, unknown or custom tags, aliases that contain themselves, keys that are no text. */
function documentFaults(document: Document.Parsed, name: string, lines: LineCounter): ConfigFault[] {
  const faults: ConfigFault[] = [];
  const add = (offset: number, expected: string, got: string, path = ''): void => {
    const at = lines.linePos(offset);
    faults.push({ file: name, line: Math.max(1, at.line), col: Math.max(1, at.col), path, expected, got });
  };
  for (const error of document.errors) {
    if (error.code === 'DUPLICATE_KEY') add(error.pos[0], 'each key once', 'a key that stands here twice');
    else add(error.pos[0], 'YAML', `${error.message.split('\n')[0]}`);
  }
  for (const warning of document.warnings) {
    if (warning.code === 'TAG_RESOLVE_FAILED') continue;
    add(warning.pos[0], 'YAML without warnings', warning.message.split('\n')[0] ?? '');
  }
  if (faults.length === 0) nodeFaults(document, add);
  return faults.slice(0, 100);
}

type AddFault = (offset: number, expected: string, got: string, path?: string) => void;

function nodeFaults(document: Document.Parsed, add: AddFault): void {
  const open = new Set<unknown>();
  const visit = (node: unknown, path: Path): void => {
    if (isAlias(node)) {
      const target = node.resolve(document);
      if (target === undefined) add(node.range?.[0] ?? 0, 'the name of an anchor above', `*${node.source}`, pathText(path));
      else if (open.has(target)) add(node.range?.[0] ?? 0, 'no alias that contains itself', `*${node.source}`, pathText(path));
      return;
    }
    if (!isMap(node) && !isSeq(node) && !isScalar(node)) return;
    if (node.tag !== undefined) add(node.range?.[0] ?? 0, 'no tags', node.tag, pathText(path));
    open.add(node);
    if (isMap(node)) {
      for (const pair of node.items) {
        const key = isScalar(pair.key) ? pair.key.value : undefined;
        const place =
          isScalar(pair.key) || isMap(pair.key) || isSeq(pair.key) || isAlias(pair.key) ? pair.key.range?.[0] : undefined;
        if (typeof key !== 'string' && typeof key !== 'number')
          add(place ?? node.range?.[0] ?? 0, 'text as a key', 'something else', pathText(path));
        else visit(pair.value, [...path, String(key)]);
      }
    } else if (isSeq(node)) {
      for (const [i, item] of node.items.entries()) visit(item, [...path, i]);
    }
    open.delete(node);
  };
  visit(document.contents, []);
}

function positionOf(document: Document.Parsed, lines: LineCounter, path: Path, onKey: boolean): { line: number; col: number } {
  let node: unknown = document.contents;
  let offset = isNode(node) ? (node.range?.[0] ?? 0) : 0;
  for (const [i, part] of path.entries()) {
    if (isAlias(node)) node = node.resolve(document);
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === String(part));
      if (pair === undefined) break;
      const last = i === path.length - 1;
      const place = last && onKey ? pair.key : (pair.value ?? pair.key);
      if (isNode(place)) offset = place.range?.[0] ?? offset;
      node = pair.value;
    } else if (isSeq(node) && typeof part === 'number') {
      node = node.items[part];
      if (isNode(node)) offset = node.range?.[0] ?? offset;
    } else break;
  }
  const { line, col } = lines.linePos(offset);
  return { line: Math.max(1, line), col: Math.max(1, col) };
}

function isNode(value: unknown): value is Node {
  return isMap(value) || isSeq(value) || isScalar(value) || isAlias(value);
}

/** Depth of [ and { by tokens alone: a million brackets must not reach the recursive composer. */
function flowDepth(text: string): number {
  let depth = 0;
  let deepest = 0;
  for (const lexeme of new Lexer().lex(text)) {
    if (lexeme === '[' || lexeme === '{') deepest = Math.max(deepest, ++depth);
    else if (lexeme === ']' || lexeme === '}') depth--;
    if (deepest > MAX_DEPTH) break;
  }
  return deepest;
}

/** Depth of the syntax tree, walked without recursion. */
function tokenDepth(tokens: readonly unknown[]): number {
  const work: { readonly token: unknown; readonly depth: number }[] = tokens.map((token) => ({ token, depth: 0 }));
  let deepest = 0;
  for (let next = work.pop(); next !== undefined; next = work.pop()) {
    const { token, depth } = next;
    if (typeof token !== 'object' || token === null) continue;
    if ('items' in token && Array.isArray(token.items)) {
      deepest = Math.max(deepest, depth + 1);
      if (deepest > MAX_DEPTH) break;
      for (const item of token.items) {
        if (typeof item !== 'object' || item === null) continue;
        if ('key' in item) work.push({ token: item.key, depth: depth + 1 });
        if ('value' in item) work.push({ token: item.value, depth: depth + 1 });
      }
    } else if ('value' in token && 'type' in token && token.type === 'document') work.push({ token: token.value, depth });
  }
  return deepest;
}
