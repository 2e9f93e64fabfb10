// npm test: the checks, then every test that needs no outside server. `npm test -- words…` keeps files whose path has one of the words.
import { availableRegistries } from '../registries/available.ts';
import { check } from './check.ts';
import { runFiles } from './run-files.ts';
import { testFiles } from './test-files.ts';

/** At most this many failed files may be accidents. */
const MAX_AGAIN = 2;

const only = process.argv.slice(2);
const checked = only.length > 0 || (await check());
const code = await runFiles(await testFiles('plain', only), {
  options: [
    '--test-timeout=300000',
    // A process whose tests are over must not hang in the clean-up of node itself (seen: a spin in Environment::CleanupHandles).
    // That nothing of ours keeps a process alive is a test of its own.
    '--test-force-exit',
  ],
  concurrency: 2,
  maxAgain: MAX_AGAIN,
});
const live = await testFiles('live', []);
console.log('\nReal registries: none was asked for, these tests need none. `npm run test:live` would add:');
for (const registry of await availableRegistries()) {
  console.log(`  ${registry.name}: ${registry.available ? 'found' : 'not found'} (${registry.how})`);
}
console.log(`  in ${live.length} files of tests.`);
if (!checked) console.log('\nA check failed above (types, lint, layers or generated files).');
process.exitCode = checked && code === 0 ? 0 : 1;
