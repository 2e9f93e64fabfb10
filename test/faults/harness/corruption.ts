// Every way in which a last-good file may be spoiled between two runs, seeded. Called by the C4 tests.
import { chownSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { frame } from '../../../src/catalog/last-good-format.ts';
import { type Random, randomBelow } from '../../../src/kernel/random.ts';

const MAGIC = Buffer.from('WLG\u0001');

/** Offsets at which a frame begins, and the end of the file. */
function boundaries(bytes: Buffer): Set<number> {
  const found = new Set<number>([bytes.length]);
  for (let at = bytes.indexOf(MAGIC); at >= 0; at = bytes.indexOf(MAGIC, at + 1)) found.add(at);
  return found;
}

/** A place inside a frame: a file that ends between two appends is a whole, older one. */
function inside(random: Random, bytes: Buffer): number {
  const edges = boundaries(bytes);
  for (;;) {
    const at = randomBelow(random, bytes.length);
    if (!edges.has(at)) return at;
  }
}

function withHeader(bytes: Buffer, text: string): Buffer {
  const rest = bytes.indexOf(MAGIC, 1);
  return Buffer.concat([frame('H', text), bytes.subarray(rest)]);
}

export interface Corruption {
  readonly name: string;
  /** True where only root can do it. */
  readonly root?: boolean;
  /** Spoils the file at `path`; `bytes` is what it held. */
  readonly spoil: (path: string, bytes: Buffer, random: Random) => void;
}

/** The kinds of C4. */
export const CORRUPTIONS: readonly Corruption[] = [
  { name: 'truncated', spoil: (path, bytes, random) => truncateSync(path, inside(random, bytes)) },
  {
    name: 'bit flip',
    spoil(path, bytes, random) {
      const copy = Buffer.from(bytes);
      const at = randomBelow(random, copy.length);
      copy[at] = (copy[at] ?? 0) ^ (1 << randomBelow(random, 8));
      writeFileSync(path, copy);
    },
  },
  {
    name: 'a block of zeros',
    spoil(path, bytes, random) {
      const copy = Buffer.from(bytes);
      const at = randomBelow(random, copy.length);
      copy.fill(0, at, Math.min(copy.length, at + 1 + randomBelow(random, 4_096)));
      writeFileSync(path, copy);
    },
  },
  {
    name: 'random bytes inside',
    spoil(path, bytes, random) {
      const at = inside(random, bytes);
      const noise = Buffer.from(Array.from({ length: 1 + randomBelow(random, 200) }, () => randomBelow(random, 256)));
      writeFileSync(path, Buffer.concat([bytes.subarray(0, at), noise, bytes.subarray(at)]));
    },
  },
  {
    name: 'a piece cut out',
    spoil(path, bytes, random) {
      const at = inside(random, bytes);
      writeFileSync(path, Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1 + randomBelow(random, 100))]));
    },
  },
  { name: 'trailing bytes', spoil: (path, bytes) => writeFileSync(path, Buffer.concat([bytes, Buffer.from('}}]')])) },
  { name: 'empty', spoil: (path) => truncateSync(path, 0) },
  {
    name: 'old schema',
    spoil: (path, bytes) =>
      writeFileSync(
        path,
        withHeader(bytes, JSON.stringify({ format: 'weir-last-good', schema: 0, epoch: 2, writtenAt: 1, index: 1 })),
      ),
  },
  {
    name: 'newer schema',
    spoil: (path, bytes) =>
      writeFileSync(
        path,
        withHeader(bytes, JSON.stringify({ format: 'weir-last-good', schema: 99, epoch: 2, writtenAt: 1, index: 1 })),
      ),
  },
  { name: 'another program’s file', spoil: (path) => writeFileSync(path, `{"hello": "${'x'.repeat(10_000)}"}`) },
  { name: 'wrong owner', root: true, spoil: (path) => chownSync(path, 12_345, 12_345) },
  {
    name: 'symlink',
    spoil(path, bytes) {
      rmSync(path);
      writeFileSync(`${path}.elsewhere`, bytes);
      symlinkSync(`${path}.elsewhere`, path);
    },
  },
  // Sparse: it takes no room on the disk.
  { name: '1 GB', spoil: (path) => truncateSync(path, 1024 * 1024 * 1024) },
];

/** Puts the files back as they were. */
export function restoreFiles(files: ReadonlyMap<string, Buffer>): void {
  for (const [path, bytes] of files) {
    rmSync(path, { force: true, recursive: true });
    rmSync(`${path}.elsewhere`, { force: true });
    writeFileSync(path, bytes, { mode: 0o600 });
  }
}

/** The bytes of these files. */
export function keepFiles(paths: readonly string[]): Map<string, Buffer> {
  return new Map(paths.map((path) => [path, readFileSync(path)]));
}
