// Makes new inputs out of the corpus: bytes changed, inserted, removed and repeated, lines swapped, pieces of the grammar put
// where they do not belong. Repeatable by its Random.
import { type Random, randomBelow } from '../../src/kernel/random.ts';

const WORDS = [
  '\r\n',
  '\n',
  '\r',
  '\r\n\r\n',
  '\n\n',
  '\0',
  ' ',
  '\t',
  ':',
  ': ',
  ',',
  ';',
  '"',
  '\\',
  '#',
  '*',
  '/',
  '\xff',
  '\x7f',
  '\x0b',
  '0',
  '1',
  'a',
  'F',
  'chunked',
  'Chunked',
  'gzip',
  'identity',
  'close',
  'keep-alive',
  'upgrade',
  '100-continue',
  'HTTP/1.1',
  'HTTP/1.0',
  ' HTTP/1.1\r\n',
  '0\r\n\r\n',
  '5\r\nhello\r\n',
  '\r\n ',
  '\r\n\t',
  'Content-Length: 5\r\n',
  'Content-Length: 0\r\n',
  'Transfer-Encoding: chunked\r\n',
  'Transfer-Encoding: \r\n',
  'Host: h\r\n',
  'Connection: close\r\n',
  'Connection: keep-alive\r\n',
  'Expect: 100-continue\r\n',
  'Content_Length: 5\r\n',
  'GET / HTTP/1.1\r\n',
  'POST /x HTTP/1.1\r\nHost: h\r\n',
  'Upgrade: websocket\r\n',
  'HTTP/1.1 200 OK\r\n',
  'HTTP/1.1 100 Continue\r\n\r\n',
  ';a=b',
  ';a="b c"',
  '+',
  '-',
  '0x',
  'Trailer: x\r\n',
  'X-A: b\r\n',
  'Keep-Alive: timeout=5\r\n',
  '\u00a0',
];

function word(random: Random): string {
  return WORDS[randomBelow(random, WORDS.length)] ?? '';
}

function splice(text: string, at: number, remove: number, insert: string): string {
  return text.slice(0, at) + insert + text.slice(at + remove);
}

function once(text: string, random: Random, corpus: readonly string[]): string {
  const at = randomBelow(random, text.length + 1);
  switch (randomBelow(random, 10)) {
    case 0:
      return splice(text, at, 1, String.fromCharCode(randomBelow(random, 256)));
    case 1:
      return splice(text, at, 1, '');
    case 2:
    case 3:
      return splice(text, at, 0, word(random));
    case 4:
      return splice(text, at, 1, word(random));
    case 5: {
      const length = randomBelow(random, 12);
      return splice(text, at, 0, text.slice(at, at + length));
    }
    case 6:
      return lines(text, random);
    case 7: {
      const other = corpus[randomBelow(random, corpus.length)] ?? '';
      return text.slice(0, at) + other.slice(randomBelow(random, other.length + 1));
    }
    case 8:
      return splice(text, at, randomBelow(random, 8), '');
    default: {
      // A word of the grammar at a place where the grammar looks: after a colon or a line end.
      const places = [...text.matchAll(/: ?|\r\n|;|[0-9]+/g)];
      const place = places[randomBelow(random, Math.max(1, places.length))];
      return place === undefined ? text : splice(text, place.index + place[0].length, 0, word(random));
    }
  }
}

/** Repeats, removes or swaps whole lines. */
function lines(text: string, random: Random): string {
  const all = text.split('\r\n');
  const i = randomBelow(random, all.length);
  const j = randomBelow(random, all.length);
  const line = all[i] ?? '';
  switch (randomBelow(random, 3)) {
    case 0:
      all.splice(j, 0, line);
      break;
    case 1:
      all.splice(i, 1);
      break;
    default:
      all[i] = all[j] ?? '';
      all[j] = line;
  }
  return all.join('\r\n');
}

/** One mutant: one to three changes of one text of the corpus. */
export function mutant(corpus: readonly string[], random: Random): string {
  let text = corpus[randomBelow(random, corpus.length)] ?? '';
  for (let n = 1 + randomBelow(random, 3); n > 0; n--) text = once(text, random, corpus);
  return text;
}

/** How many mutants a run makes: WEIR_MUTATIONS, else `usual`. */
export function mutations(usual: number): number {
  return Number(process.env['WEIR_MUTATIONS'] ?? usual);
}
