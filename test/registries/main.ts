// npm run registries -- up <name>…: real servers on free loopback ports for trying and testing, until Ctrl-C.
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { availableRegistries } from './available.ts';
import { cacheDirectory } from './cache.ts';
import { REGISTRIES, type RunningRegistry } from './table.ts';

/** For other terminals: `. <this file>`. */
const VARIABLES = join(cacheDirectory(), 'up.env');

const [command, ...words] = process.argv.slice(2);
// "etcd 3.4" may be written as two words.
const names = words.flatMap((word, i) =>
  /^\d/.test(word) ? [] : /^\d/.test(words[i + 1] ?? '') ? [`${word}-${words[i + 1]}`] : [word],
);
const rows = names.map((name) => REGISTRIES.find((row) => row.name === name));

if (command === 'list') {
  for (const { name, available, how } of await availableRegistries())
    console.log(`${name}: ${available ? 'found' : 'not found'} (${how})`);
} else if (command !== 'up' || names.length === 0 || rows.includes(undefined)) {
  console.error(
    `usage: npm run registries -- up ${REGISTRIES.map((row) => `[${row.name}]`).join(' ')}\n       npm run registries -- list`,
  );
  process.exitCode = 2;
} else {
  const running: RunningRegistry[] = [];
  const stopAll = async (): Promise<void> => {
    await rm(VARIABLES, { force: true });
    for (const registry of running.splice(0)) await registry.stop();
  };
  try {
    for (const row of rows) {
      if (row === undefined) continue;
      const found = await row.find(true);
      if (!found.available) throw new Error(`${row.name}: ${found.how}`);
      const registry = await row.up();
      running.push(registry);
      console.log(`# ${row.name} at ${registry.endpoint}`);
      for (const line of registry.settings) console.log(line);
    }
    await rm(VARIABLES, { force: true });
    const lines = running.flatMap(({ variables }) => Object.entries(variables).map(([key, value]) => `export ${key}='${value}'`));
    await writeFile(VARIABLES, `${lines.join('\n')}\n`, { mode: 0o600, flag: 'wx' });
    console.log(`# Addresses and processes for other terminals: . ${VARIABLES}`);
    console.log('# Ctrl-C stops and removes it all.');
    await new Promise<void>((resolve) => {
      process.once('SIGINT', () => resolve());
      process.once('SIGTERM', () => resolve());
      // Signal handlers alone do not keep a process alive.
      setInterval(() => {}, 60_000);
    });
  } catch (thrown) {
    console.error(thrown instanceof Error ? thrown.message : thrown);
    process.exitCode = 1;
  }
  await stopAll();
  process.exit();
}
