// npm run test:live: the tests against real servers, one file at a time. --full: also the long rows (npm run test:full).
// In CI a missing server is a failure; elsewhere its tests are skipped and named.
import { availableRegistries } from '../registries/available.ts';
import { run } from './processes.ts';
import { testFiles } from './test-files.ts';

const words = process.argv.slice(2);
const full = words.includes('--full');
const only = words.filter((word) => word !== '--full');
const registries = await availableRegistries({ build: true });
console.log('Real registries:');
for (const registry of registries) {
  console.log(`  ${registry.name}: ${registry.available ? 'found' : 'NOT FOUND'} (${registry.how})`);
}
const files = [...(await testFiles('live', only)), ...(full ? await testFiles('full', only) : [])];
const env = full
  ? {
      ...process.env,
      WEIR_MUTATIONS: process.env['WEIR_MUTATIONS'] ?? '100000',
      WEIR_HISTORIES: process.env['WEIR_HISTORIES'] ?? '200',
    }
  : process.env;
const plain = full ? await testFiles('plain', only.length > 0 ? only : ['http1', 'adapters']) : [];
const result = await run(
  process.execPath,
  ['--disable-proto=throw', '--test', '--test-concurrency=1', `--test-timeout=${full ? 7_200_000 : 900_000}`, ...files, ...plain],
  { env },
);
const missing = registries.filter((registry) => !registry.available);
if (missing.length > 0) console.log(`\nNot tested for want of a server: ${missing.map((registry) => registry.name).join(', ')}`);
const missingFails = missing.length > 0 && process.env['CI'] !== undefined;
process.exitCode = result.code !== 0 || missingFails ? 1 : 0;
