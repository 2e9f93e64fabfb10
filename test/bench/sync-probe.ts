// Loaded into a process beside its own code (node --import): counts what it makes durable (fsync, fdatasync of file handles) and writes the
// count to the file WEIR_SYNC_PROBE on SIGUSR2. Called by migrate.ts; must never import anything of ours.
import { renameSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';

const path = process.env['WEIR_SYNC_PROBE'] ?? '';
let syncs = 0;
let round = 0;

const handle = await open(process.execPath, 'r');
const prototype = Object.getPrototypeOf(handle);
await handle.close();
for (const name of ['sync', 'datasync']) {
  const before = prototype[name];
  prototype[name] = function (this: unknown, ...args: unknown[]) {
    syncs++;
    return before.apply(this, args);
  };
}
process.on('SIGUSR2', () => {
  writeFileSync(`${path}.part`, JSON.stringify({ round: ++round, syncs }));
  renameSync(`${path}.part`, path);
});
