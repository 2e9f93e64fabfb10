import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { ERRORS, type ErrorAbout, errorAbout } from './error-table.ts';

const ROOT = new URL('../../', import.meta.url);
const CODES = Object.entries<ErrorAbout>(ERRORS);

function sourceTexts(): string[] {
  const files = globSync(['src/**/*.ts', 'adapters/**/*.ts'], { cwd: ROOT }).filter((file) => !file.endsWith('.test.ts'));
  assert.ok(files.length > 50, 'the sources were found');
  return files.map((file) => readFileSync(new URL(file, ROOT), 'utf8'));
}

describe('the table of errors', () => {
  it('has every code that the sources throw', () => {
    const thrown = sourceTexts().flatMap((text) =>
      [...text.matchAll(/new WeirError\(\s*'([A-Za-z_]+)'/g)].map((match) => match[1] ?? ''),
    );
    const missing = [...new Set(thrown)].filter((code) => errorAbout(code) === null);
    assert.deepEqual(missing, []);
  });

  it('has words, a status of its family and a well-formed code for each', () => {
    for (const [code, about] of CODES) {
      assert.match(code, /^[A-Z][A-Z_]+[A-Z]$/);
      assert.match(about.summary, /^[A-Za-z`].*\.$/, code);
      assert.ok(about.status >= 400 && about.status <= 599, code);
      if (about.family === 'bug') assert.equal(about.status, 500, code);
    }
  });

  it('is printed whole, in the same words, by docs/errors.md', () => {
    const docs = readFileSync(new URL('docs/errors.md', ROOT), 'utf8');
    const rows = [...docs.matchAll(/^\| `([A-Z_]+)` \| (\d+) \| (\w+) \| (.+) \|$/gm)].map(([, ...cells]) => cells);
    const wanted = CODES.map(([code, { status, family, summary }]) => [code, String(status), family, summary]);
    const order = (a: readonly (string | undefined)[], b: readonly (string | undefined)[]): number =>
      (a[0] ?? '') < (b[0] ?? '') ? -1 : 1;
    assert.deepEqual(rows.sort(order), wanted.sort(order));
  });

  it('knows no code that is only a property of every object', () => {
    assert.equal(errorAbout('constructor'), null);
    assert.equal(errorAbout('__proto__'), null);
  });
});
