// npm run test:live: the tests against real servers, one file at a time. --full: also the long rows (npm run test:full).
// In CI a missing server is a failure; elsewhere its tests are skipped and named.
import { availableRegistries } from '../registries/available.ts';
import { runFiles } from './run-files.ts';
import { testFiles } from './test-files.ts';

/** At most this many failed files may be accidents: servers of others, on a machine that is shared, are late at times. */
const MAX_AGAIN = 3;

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
      WEIR_HISTORIES: process.env['WEIR_HISTORIES'] ?? '300',
    }
  : process.env;
const plain = full ? await testFiles('plain', only.length > 0 ? only : ['http1', 'adapters']) : [];
const code = await runFiles([...files, ...plain], {
  options: [`--test-timeout=${full ? 7_200_000 : 900_000}`],
  concurrency: 1,
  maxAgain: MAX_AGAIN,
  env,
});
const missing = registries.filter((registry) => !registry.available);
if (missing.length > 0) console.log(`\nNot tested for want of a server: ${missing.map((registry) => registry.name).join(', ')}`);
const missingFails = missing.length > 0 && process.env['CI'] !== undefined;
process.exitCode = code !== 0 || missingFails ? 1 : 0;
