// Generated answers: whatever bytes come, nothing crashes, and what gets through is an instance by our rules.
// WEIR_MUTATIONS sets how many (default 5,000), WEIR_SEED which.
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { canonicalHost } from '../../src/kernel/address.ts';
import { parseJson } from '../../src/kernel/decode.ts';
import { type Random, randomBelow, seededRandom } from '../../src/kernel/random.ts';
import { TimerWheel } from '../../src/kernel/timer-wheel.ts';
import { MAX_METADATA_KEYS } from '../../src/model/metadata.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { type AnswerDeps, namesOf, snapshotOf } from './answers.ts';
import { Epochs } from './epochs.ts';
import { discoverOf } from './json.ts';
import { codec, type DiscoverResponse, type NativeInstance, TYPE_INSTANCE, TYPE_SERVICES } from './protocol.ts';
import { Question, type Result } from './question.ts';
import { DiscoverStreams } from './stream.ts';
import { CAPTURED_INSTANCE, TEST_MAPPING } from './test-support.ts';

const MUTATIONS = Number(process.env['WEIR_MUTATIONS'] ?? 5_000);
const SEED = Number(process.env['WEIR_SEED'] ?? 20_260_101);

const CAPTURED = Buffer.from(CAPTURED_INSTANCE.replace(/\s/g, ''), 'hex');
const TEXTS = [
  '',
  'a',
  '__proto__',
  'constructor',
  '10.0.0.1',
  '0.0.0.0',
  '::1',
  'ä',
  '\u0000',
  '\ud800',
  'x'.repeat(5_000),
  '0x7f.1',
];
const NUMBERS = [0, 1, 80, 65_535, 65_536, 70_000, 4_294_967_295];
const CODES = [200_000, 200_000, 200_000, 200_001, 400_004, 400_202, 401_001, 403_003, 429_001, 500_000, 0, 99];

function pick<T>(random: Random, from: readonly T[]): T {
  const [one] = from.slice(randomBelow(random, from.length));
  return one === undefined ? assert.fail('empty') : one;
}

/** Often absent, often of a strange value. */
function maybe<T>(random: Random, make: () => T): T | undefined {
  return random() < 0.3 ? undefined : make();
}

function text(random: Random) {
  return maybe(random, () => ({ value: pick(random, TEXTS) }));
}

function number(random: Random) {
  return maybe(random, () => ({ value: pick(random, NUMBERS) }));
}

function instance(random: Random): NativeInstance {
  const fields = {
    id: text(random),
    host: text(random),
    port: number(random),
    weight: number(random),
    protocol: text(random),
    version: text(random),
    healthy: maybe(random, () => ({ value: random() < 0.5 })),
    isolate: maybe(random, () => ({})),
    location: maybe(random, () => ({ region: { value: pick(random, TEXTS) } })),
    metadata: Array.from({ length: randomBelow(random, 80) }, () => ({ key: pick(random, TEXTS), value: pick(random, TEXTS) })),
  };
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

function message(random: Random, type: number): Buffer {
  const answer: DiscoverResponse = {
    code: { value: pick(random, CODES) },
    type: random() < 0.9 ? type : randomBelow(random, 20),
    service: {
      name: { value: type === TYPE_INSTANCE ? 'demo' : '' },
      namespace: { value: 'default' },
      revision: { value: pick(random, TEXTS) },
    },
    instances: Array.from({ length: randomBelow(random, 5) }, () => instance(random)),
    services: Array.from({ length: randomBelow(random, 5) }, () => ({
      name: { value: pick(random, TEXTS) },
      namespace: { value: pick(random, TEXTS) },
    })),
  };
  return codec('Discover').encodeResponse(answer);
}

/** Flips, cuts, doubles or inserts bytes. */
function mutate(random: Random, bytes: Buffer): Buffer {
  let mutated = Buffer.from(bytes);
  for (let n = randomBelow(random, 6); n > 0; n--) {
    const at = randomBelow(random, mutated.length + 1);
    const kind = randomBelow(random, 4);
    if (kind === 0 && at < mutated.length) mutated[at] = randomBelow(random, 256);
    else if (kind === 1) mutated = mutated.subarray(0, at);
    else if (kind === 2) mutated = Buffer.concat([mutated.subarray(0, at), mutated.subarray(Math.floor(at / 2))]);
    else mutated = Buffer.concat([mutated.subarray(0, at), Buffer.from([randomBelow(random, 256)]), mutated.subarray(at)]);
  }
  return mutated;
}

function carried(question: Question, bytes: Buffer): Result {
  let say: (message: Buffer) => void = () => {};
  let result: Result | null = null;
  const streams = new DiscoverStreams({
    server: 's:1',
    wheel: new TimerWheel(new FakeClock()),
    timeout: 1_000,
    open(onMessage) {
      say = onMessage;
      return { write: () => {}, retire: () => {}, cancel: () => {} };
    },
    onEnd: () => {},
    onLost: () => {},
  });
  streams.ask(question, (settled) => {
    result = settled;
  });
  say(bytes);
  return result ?? assert.fail('a question without an end');
}

function judged(question: Question, answer: DiscoverResponse, deps: AnswerDeps): 'taken' | 'refused' {
  try {
    if (question.type === TYPE_SERVICES) {
      const { list } = namesOf(question, answer, 's:1', deps);
      for (const key of list.keys) assert.ok(key.name !== '' && !key.namespace.includes('/'));
      return 'taken';
    }
    const snapshot = snapshotOf(question, answer, 's:1', deps);
    if (snapshot.kind === 'absent') return 'taken';
    const ids = snapshot.instances.map(({ id }) => id);
    assert.equal(new Set(ids).size, ids.length);
    for (const { host, port, weight, metadata, isolated } of snapshot.instances) {
      assert.equal(canonicalHost(host), host);
      assert.ok(port >= 1 && port <= 65_535 && Number.isInteger(port));
      assert.ok(weight >= 0 && weight <= 65_535 && Number.isInteger(weight));
      assert.equal(typeof isolated, 'boolean');
      assert.ok(metadata.size <= MAX_METADATA_KEYS);
    }
    return 'taken';
  } catch (thrown) {
    if (!(thrown instanceof SourceError)) throw thrown;
    assert.ok(!/[\u0000-\u001f]/.test(thrown.message));
    return 'refused';
  }
}

it(`${MUTATIONS} generated answers: no crash, and only good instances get through`, () => {
  const random = seededRandom(SEED);
  const deps: AnswerDeps = { ...TEST_MAPPING, epochs: new Epochs() };
  const seen = { taken: 0, refused: 0, failed: 0, same: 0 };
  for (let n = 0; n < MUTATIONS; n++) {
    const question = random() < 0.8 ? new Question(TYPE_INSTANCE, 'default', 'demo') : new Question(TYPE_SERVICES, 'default', '');
    const base = random() < 0.2 ? CAPTURED : message(random, question.type);
    const bytes = random() < 0.5 ? base : mutate(random, base);
    try {
      const result = carried(question, bytes);
      if (result.kind === 'answer') seen[judged(question, result.answer, deps)]++;
      else seen[result.kind]++;
    } catch (thrown) {
      throw new Error(`seed ${SEED}, payload ${n}: ${bytes.toString('hex').slice(0, 2_000)}`, { cause: thrown });
    }
  }
  // The generator reaches every way out.
  for (const [way, count] of Object.entries(seen)) assert.ok(count > MUTATIONS / 100, `${way}: ${count}`);
  assert.equal(Object.hasOwn(Object.prototype, 'value'), false);
});

it(`${MUTATIONS / 5} generated JSON answers of the HTTP API: no crash`, () => {
  const random = seededRandom(SEED);
  const deps: AnswerDeps = { ...TEST_MAPPING, epochs: new Epochs() };
  const values = [null, 0, -1, 1.5, 1e300, '', 'x', true, [], {}, [null], { value: 1 }, '__proto__'];
  const keys = ['code', 'type', 'service', 'instances', 'services', 'aliasFor', 'info'];
  const inner = [
    'id',
    'host',
    'port',
    'weight',
    'healthy',
    'metadata',
    'location',
    'healthCheck',
    'name',
    'namespace',
    '__proto__',
  ];
  const record = (): object =>
    Object.fromEntries(inner.filter(() => random() < 0.6).map((key) => [key, pick<unknown>(random, values)]));
  let taken = 0;
  for (let n = 0; n < MUTATIONS / 5; n++) {
    const fields = keys.map((key): [string, unknown] => {
      const list = key === 'instances' || key === 'services';
      return [key, random() < 0.3 ? pick<unknown>(random, values) : list ? [record(), pick<unknown>(random, values)] : record()];
    });
    const body: Record<string, unknown> = Object.fromEntries(fields);
    if (random() < 0.7) Object.assign(body, { code: pick(random, CODES), type: 'INSTANCE' });
    const parsed = parseJson(JSON.stringify(body), { maxBytes: 1_000_000 });
    const answer = parsed.ok ? discoverOf(parsed.value) : null;
    if (answer !== null && judged(new Question(TYPE_INSTANCE, 'default', 'demo'), answer, deps) === 'taken') taken++;
  }
  assert.ok(taken > MUTATIONS / 200);
});
