// Caps and refusals of the YAML reader: bombs must cost next to nothing and name their place.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { parseYaml } from './yaml.ts';

function refusal(text: string | Uint8Array): string {
  const parsed = parseYaml(typeof text === 'string' ? Buffer.from(text) : text, 'f.yaml');
  assert.equal(parsed.ok, false, 'was accepted');
  const first = parsed.ok ? undefined : parsed.faults[0];
  return `${first?.line}:${first?.col} ${first?.path}: ${first?.expected}, ${first?.got}`;
}

/** Processor time, ms: what others take of the machine does not count. */
function timed(call: () => void): number {
  const before = process.cpuUsage();
  call();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1_000;
}

describe('parseYaml refuses', () => {
  it('a bomb of aliases', () => {
    const lines = ['a: &a [x,x,x,x,x,x,x,x,x,x]'];
    for (const [i, name] of [...'bcdefghi'].entries()) {
      const before = String.fromCharCode(97 + i);
      lines.push(`${name}: &${name} [${new Array(10).fill(`*${before}`).join(',')}]`);
    }
    const spent = timed(() => assert.match(refusal(lines.join('\n')), /at most 100 uses of aliases, more \(an alias bomb\)/));
    assert.ok(spent < 500, `${spent} ms`);
  });

  it('an alias that contains itself', () => {
    assert.equal(refusal('a: &a [*a]'), '1:8 a[0]: no alias that contains itself, *a');
    assert.equal(refusal('a: &a {b: {c: *a}}'), '1:15 a.b.c: no alias that contains itself, *a');
  });

  it('an alias of nothing', () => {
    assert.match(refusal('a: *b'), /^1:4 /);
  });

  for (const [what, text] of [
    ['a hundred thousand brackets', '['.repeat(100_000)],
    ['a hundred thousand closed brackets', '['.repeat(100_000) + ']'.repeat(100_000)],
    ['a hundred thousand braces', '{a: '.repeat(100_000)],
    ['a hundred thousand dashes', '- '.repeat(100_000)],
    ['deep indentation', Array.from({ length: 1_000 }, (_, i) => `${' '.repeat(i)}a:`).join('\n')],
    ['33 levels', `${'['.repeat(33)}${']'.repeat(33)}`],
  ] as const) {
    it(`nesting over 32: ${what}`, () => {
      const spent = timed(() => assert.match(refusal(text), /nesting of at most 32, deeper nesting/));
      assert.ok(spent < 2_000, `${spent} ms`);
    });
  }

  it('more than 1 MiB, before it is read', () => {
    assert.match(refusal(Buffer.alloc(50 * 1_048_576, 0x20)), /a file of at most 1 MiB, 52428800 bytes/);
  });

  it('bytes that are no UTF-8', () => {
    assert.match(refusal(Uint8Array.from([0x61, 0x3a, 0x20, 0xff])), /valid UTF-8, other bytes/);
  });

  it('two documents in one file, at the second', () => {
    assert.match(refusal('a: 1\n---\nb: 2\n'), /^[23]:1 : one YAML document, more than one/);
  });

  it('a key that stands twice, at its second place', () => {
    assert.match(refusal('api: {}\nid: a\napi: {}\n'), /^3:1 : each key once, a key that stands here twice/);
  });

  it('tags of any kind', () => {
    assert.match(refusal('a: !!js/function "x"'), /a: no tags, tag:yaml.org,2002:js\/function/);
    assert.match(refusal('a: !include x.yaml'), /a: no tags, !include/);
  });

  it('keys that are no text', () => {
    assert.match(refusal('? [1, 2]\n: x\n'), /text as a key/);
  });

  it('broken syntax, with its line and column', () => {
    assert.match(refusal('a: 1\nb: [1, 2\n'), /^3:1 |^2:/);
    assert.match(refusal('a: "x'), /^1:/);
  });
});

describe('parseYaml', () => {
  it('accepts an empty file, comments alone, and 32 levels', () => {
    for (const text of ['', '\n', '# nothing\n', '---\n']) {
      const parsed = parseYaml(Buffer.from(text), 'f');
      assert.ok(parsed.ok);
      assert.deepEqual(parsed.file.value, {});
    }
    assert.ok(parseYaml(Buffer.from(`${'['.repeat(32)}${']'.repeat(32)}`), 'f').ok);
  });

  it('reads the core schema: yes is text, a plain alias is a copy', () => {
    const parsed = parseYaml(Buffer.from('a: yes\nb: &b {c: 1}\nd: *b\ne: 0x10\n'), 'f');
    assert.ok(parsed.ok);
    assert.deepEqual(parsed.file.value, { a: 'yes', b: { c: 1 }, d: { c: 1 }, e: 16 });
  });

  it('keeps names of the prototype as plain keys', () => {
    const parsed = parseYaml(Buffer.from('constructor: 1\n"__proto__": {polluted: 1}\n'), 'f');
    assert.ok(parsed.ok);
    assert.deepEqual(Object.keys(Object(parsed.file.value)), ['constructor', '__proto__']);
    assert.equal(Object.hasOwn(Object.prototype, 'polluted'), false);
  });

  it('knows the place of a key and of a value, through aliases, and of the nearest parent of what is not there', () => {
    const parsed = parseYaml(Buffer.from('base: &b\n  x: 1\nlist:\n  - {k: 5}\n  - *b\n'), 'f');
    assert.ok(parsed.ok);
    const { position } = parsed.file;
    assert.deepEqual(position(['list', 0, 'k'], false), { line: 4, col: 9 });
    assert.deepEqual(position(['list', 0, 'k'], true), { line: 4, col: 6 });
    assert.deepEqual(position(['list', 1, 'x'], false), { line: 2, col: 6 });
    assert.deepEqual(position(['list', 7, 'x'], false), { line: 4, col: 3 });
  });

  it('never throws, whatever the bytes', () => {
    const piece = fc.constantFrom(
      'a',
      ': ',
      '\n',
      '- ',
      '[',
      ']',
      '{',
      '}',
      '&a ',
      '*a',
      '!t ',
      '"',
      "'",
      '#',
      '|',
      '>',
      '? ',
      ',',
      '  ',
      '---\n',
      '%YAML 9\n',
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 60 }), (pieces) => {
        parseYaml(Buffer.from(pieces.join('')), 'f');
      }),
      { numRuns: 2_000 },
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => void parseYaml(bytes, 'f')),
      { numRuns: 500 },
    );
  });
});
