import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ageText, line, printable, table, textWidth } from './table.ts';

describe('the table printer', () => {
  it('aligns columns, numbers to the right, without trailing spaces', () => {
    const text = table(
      [{ head: 'NAME' }, { head: 'N', right: true }, { head: 'X' }],
      [
        ['a', '1', ''],
        ['longer', '100', 'y'],
      ],
    );
    assert.equal(text, 'NAME      N  X\na         1\nlonger  100  y\n');
  });

  it('prints only heads for no rows, and empty cells for missing ones', () => {
    assert.equal(table([{ head: 'A' }, { head: 'B' }], []), 'A  B\n');
    assert.equal(table([{ head: 'A' }, { head: 'B' }], [['x']]), 'A  B\nx\n');
  });

  it('counts wide characters as two columns and combining marks as none', () => {
    assert.equal(textWidth('日本'), 4);
    assert.equal(textWidth('🦀'), 2);
    assert.equal(textWidth('e\u0301'), 1);
    const [first, second] = table(
      [{ head: 'H' }, { head: 'Z' }],
      [
        ['日本', 'x'],
        ['abcd', 'x'],
      ],
    )
      .split('\n')
      .slice(1);
    assert.equal(first, '日本  x');
    assert.equal(second, 'abcd  x');
  });

  it('lets no text from a registry move the cursor, break a line or turn its direction', () => {
    const evil = 'a\u001b[2J\nb\u0007\u202ec\u200b\u009b31m';
    assert.equal(printable(evil), 'a\\u{1b}[2J\\u{a}b\\u{7}\\u{202e}c\\u{200b}\\u{9b}31m');
    assert.equal(line('a\rb'), 'a\\u{d}b\n');
    assert.doesNotMatch(
      table([{ head: 'A' }], [[evil]])
        .slice(0, -1)
        .replace('A\n', ''),
      /[\u0000-\u001f\u007f-\u009f\u202e]/,
    );
  });

  it('rounds ages to one unit', () => {
    for (const [ms, text] of [
      [null, '-'],
      [undefined, '-'],
      [0, '0ms'],
      [999.4, '999ms'],
      [1_500, '2s'],
      [119_000, '119s'],
      [120_000, '2m'],
      [7_200_000, '2h'],
      [172_800_000, '2d'],
    ] as const) {
      assert.equal(ageText(ms), text);
    }
  });
});
