// A reporter for node --test: one line for each file in which a test failed. Read by run-files.ts.
import type { TestEvent } from 'node:test/reporters';

/** Yields the path of each file once. */
// biome-ignore lint/style/noDefaultExport: node takes the default export of a reporter.
export default async function* failedFiles(source: AsyncIterable<TestEvent>): AsyncGenerator<string, void, void> {
  const seen = new Set<string>();
  for await (const event of source) {
    if (event.type !== 'test:fail') continue;
    const { file } = event.data;
    if (file === undefined || seen.has(file)) continue;
    seen.add(file);
    yield `${file}\n`;
  }
}
