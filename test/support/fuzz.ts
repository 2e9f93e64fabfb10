// npm run fuzz -- <name> [seconds] [seed]: runs one fuzzer for a time and prints its seed, which repeats the run.
const FUZZERS: Readonly<Record<string, () => Promise<{ fuzz(options: { seconds: number; seed: number }): Promise<void> }>>> = {
  http1: () => import('../http1/fuzz.ts'),
};

const [name = '', secondsText = '60', seedText] = process.argv.slice(2);
const load = Object.hasOwn(FUZZERS, name) ? FUZZERS[name] : undefined;
if (load === undefined) {
  console.error(`usage: npm run fuzz -- <${Object.keys(FUZZERS).join('|')}> [seconds] [seed]`);
  process.exitCode = 2;
} else {
  const seed = seedText === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(seedText);
  console.log(`fuzz ${name}: ${secondsText} s, seed ${seed}`);
  const { fuzz } = await load();
  await fuzz({ seconds: Number(secondsText), seed });
  console.log('no fault found');
}
