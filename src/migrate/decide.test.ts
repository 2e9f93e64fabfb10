// The rules of the mirror as tables, by their number in migration.md: what both sides say and the ledger holds → what is done.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { instance, keyOf } from '../../test/support/mirror-rig.ts';
import type { InstanceField } from '../adapter/capabilities.ts';
import { markersOf } from '../catalog/copies.ts';
import type { SourceAccount } from '../catalog/view.ts';
import type { Instance } from '../model/instance.ts';
import { type Action, contentOf, type DecideInput, decide, NEW_NOTE, type Note } from './decide.ts';
import { type CopyRules, desiredCopy } from './desired.ts';
import { drainActions, keepActions } from './ending.ts';
import { addressOf } from './ledger.ts';
import type { LedgerEntry } from './migration.ts';

const S = 'default/web';
const NOW = 1_000_000;
const ALL: readonly InstanceField[] = ['weight', 'health', 'isolated', 'protocol', 'version', 'locality', 'metadata'];

function rules(keeps: readonly InstanceField[] = ALL, epoch = 1): CopyRules {
  const metadata = { rename: new Map<string, string>(), drop: new Set<string>(), set: new Map<string, string>() };
  return { origin: 'a', migration: 'm1', epoch, metadata, backwards: false, keeps: new Set(keeps) };
}

function account(
  source: string,
  instances: readonly (Instance | { held: Instance })[],
  fields: Partial<SourceAccount> = {},
): SourceAccount {
  const told = instances.map((one) => ('held' in one ? { instance: one.held, held: true } : { instance: one, held: false }));
  return { source, key: keyOf(S), live: true, presence: 'present', epoch: 'e', goodAt: NOW, instances: told, ...fields };
}

/** Our copy of an origin instance as the target shows it. */
function copyOf(origin: Instance, how = rules(), fields: Partial<Instance> = {}): Instance {
  const copy = desiredCopy(origin, how);
  assert.equal(copy.kind, 'record');
  return copy.kind === 'record' ? { ...copy.instance, ...fields } : assert.fail();
}

function entry(origin: Instance, fields: Partial<LedgerEntry> = {}, how = rules()): LedgerEntry {
  const { host, port, transport } = origin;
  const copy = desiredCopy(origin, how);
  return {
    target: 'b',
    origin: 'a',
    service: S,
    key: keyOf(S),
    host,
    port,
    transport,
    state: 'written',
    receipt: { service: keyOf(S), nativeId: `a-10.0.0.1:${port}`, token: 't' },
    applied: copy.kind === 'record' ? copy.digest : '',
    health: copy.kind === 'record' ? copy.instance.health : origin.health,
    at: 0,
    epoch: 1,
    ...fields,
  };
}

function run(input: Partial<DecideInput>) {
  return decide({
    rules: rules(),
    wants: { kind: 'all' },
    origin: account('a', []),
    target: account('b', []),
    entries: [],
    copiesInOrigin: new Set(),
    setsHealth: true,
    notes: new Map(),
    busy: new Set(),
    confirmed: false,
    now: NOW,
    graceEndsAt: 0,
    removals: { count: 10, nextAt: NOW },
    ...input,
  });
}

/** Actions in short: `put new 80`, `remove gone 80`, `strike 80`, `read`. */
function short({ actions }: { readonly actions: readonly Action[] }): string[] {
  return actions.map((action) => {
    if (action.kind === 'read') return 'read';
    const at = action.kind === 'strike' ? action.entry.port : Number(/:(\d+)\//.exec(action.address)?.[1]);
    return [action.kind, 'why' in action && action.kind !== 'strike' ? action.why : null, at]
      .filter((part) => part !== null)
      .join(' ');
  });
}

function note(origin: Instance, fields: Partial<Note>): ReadonlyMap<string, Note> {
  return new Map([[addressOf(origin), { ...NEW_NOTE, ...fields }]]);
}

const one = instance(80);
const written = { entries: [entry(one)], origin: account('a', [one]), target: account('b', [copyOf(one)]) };

describe('rule 1: what is not known proves nothing', () => {
  const gone = { entries: [entry(one)], target: account('b', [copyOf(one)]) };
  const cases: [string, Partial<DecideInput>, string[]][] = [
    ['a live origin without it', { ...gone, origin: account('a', []) }, ['remove gone 80']],
    ['an absent service in a live origin', { ...gone, origin: account('a', [], { presence: 'absent' }) }, ['remove gone 80']],
    ['an origin that says nothing', { ...gone, origin: null }, []],
    ['an origin out of touch', { ...gone, origin: account('a', [], { live: false }) }, []],
    ['a target out of touch', { ...gone, target: account('b', [copyOf(one)], { live: false }) }, []],
    ['a target that says nothing', { ...gone, target: null }, []],
    ['a new one and no target', { origin: account('a', [one]), target: null }, []],
    ['a new one and a target out of touch', { origin: account('a', [one]), target: account('b', [], { live: false }) }, []],
    ['a new one from an origin out of touch', { origin: account('a', [one], { live: false }) }, []],
    ['a copy that a target out of touch does not show', { ...written, target: account('b', [], { live: false }) }, []],
  ];
  for (const [what, input, expected] of cases)
    it(`${what}: ${expected.join() || 'nothing'}`, () => assert.deepEqual(short(run(input)), expected));
});

describe('rule 2: removals', () => {
  const many = [1, 2, 3, 4, 5].map((port) => instance(port));
  const gone = {
    entries: many.map((each) => entry(each)),
    target: account(
      'b',
      many.map((each) => copyOf(each)),
    ),
  };

  it('not before a complete first read of both sides, nor before the grace ends; then it says when', () => {
    assert.deepEqual(short(run({ ...gone, graceEndsAt: null })), []);
    const waiting = run({ ...gone, graceEndsAt: NOW + 7 });
    assert.deepEqual([short(waiting), waiting.nextAt], [[], NOW + 7]);
    assert.match(waiting.waiting ?? '', /grace/);
  });
  it('no more than the rate leaves, and it says when the next one may go', () => {
    const some = run({ ...gone, removals: { count: 2, nextAt: NOW + 30_000 } });
    assert.deepEqual([short(some), some.nextAt], [['remove gone 1', 'remove gone 2'], NOW + 30_000]);
  });
  it('a held origin is there', () => {
    assert.deepEqual(short(run({ ...written, origin: account('a', [{ held: one }]) })), []);
  });
});

describe('rule 3: fields, in place', () => {
  const changes: Partial<Instance>[] = [
    { weight: 7 },
    { isolated: true },
    { metadata: new Map([['k', 'v']]) },
    { protocol: 'grpc' },
    { version: '2' },
    { locality: { zone: 'z' } },
  ];
  for (const change of changes) {
    it(`${Object.keys(change).join()} alone is a put over the record that stands`, () => {
      const { actions } = run({ ...written, origin: account('a', [{ ...one, ...change }]) });
      const [put] = actions;
      assert.ok(actions.length === 1 && put?.kind === 'put' && put.why === 'changed' && put.previous?.token === 't');
    });
    it(`${Object.keys(change).join()} is no difference where the target keeps none`, () => {
      const bare = rules(['health']);
      const input = { rules: bare, entries: [entry(one, {}, bare)], target: account('b', [copyOf(one, bare)]) };
      if (change.isolated !== true) assert.deepEqual(short(run({ ...input, origin: account('a', [{ ...one, ...change }]) })), []);
    });
  }
  it('health alone is set where the target can, else put', () => {
    const sick = account('a', [{ ...one, health: 'unhealthy' as const }]);
    assert.deepEqual(short(run({ ...written, origin: sick })), ['health 80']);
    assert.deepEqual(short(run({ ...written, origin: sick, setsHealth: false })), ['put changed 80']);
  });

  const isolated = { ...one, isolated: true };
  const ladder: [readonly InstanceField[], string, Partial<Instance> | null][] = [
    [ALL, 'isolated', { isolated: true, weight: 100, health: 'healthy' }],
    [['weight', 'health'], 'weight 0', { isolated: false, weight: 0, health: 'healthy' }],
    [['health'], 'failing health', { isolated: false, health: 'unhealthy' }],
    [['metadata'], 'no record', null],
  ];
  for (const [keeps, said, expected] of ladder) {
    it(`a target that keeps ${keeps.join(', ')} hears of isolation as ${said}`, () => {
      const copy = desiredCopy(isolated, rules(keeps));
      if (expected === null) assert.equal(copy.kind, 'withheld');
      else {
        assert.ok(copy.kind === 'record');
        for (const [field, value] of Object.entries(expected)) assert.deepEqual(Reflect.get(copy.instance, field), value);
      }
    });
  }
  it('a withheld copy is removed at the rate, known on, put again when the origin takes traffic, struck when it goes', () => {
    const bare = rules(['metadata']);
    const known = entry(one, {}, bare);
    const shown = account('b', [copyOf(one, bare)]);
    const base = { rules: bare, origin: account('a', [isolated]) };
    assert.deepEqual(short(run({ ...base, entries: [known], target: shown })), ['remove withheld 80']);
    assert.deepEqual(short(run({ ...base, entries: [known], target: shown, removals: { count: 0, nextAt: NOW } })), []);
    const withheld = entry(one, { state: 'withheld', receipt: null, applied: '' }, bare);
    assert.deepEqual(short(run({ ...base, entries: [withheld] })), []);
    assert.deepEqual(short(run({ ...base, origin: account('a', [one]), entries: [withheld] })), ['put again 80']);
    assert.deepEqual(short(run({ ...base, origin: account('a', []), entries: [withheld] })), ['strike 80']);
    assert.deepEqual(short(run(base)), ['withhold 80']);
  });
  it('what the target refused to say is withheld until the origin says something else', () => {
    const zero = { ...one, weight: 0 };
    const copy = desiredCopy(zero, rules());
    assert.ok(copy.kind === 'record');
    const notes = note(one, { unsayable: contentOf(copy.digest, 'healthy') });
    assert.deepEqual(short(run({ ...written, notes, origin: account('a', [zero]) })), ['remove withheld 80']);
    assert.deepEqual(short(run({ ...written, notes, origin: account('a', [{ ...one, weight: 1 }]) })), ['put changed 80']);
  });
});

describe('rule 4: health of what stands', () => {
  const sick = account('b', [copyOf(one, rules(), { health: 'unhealthy' })]);
  it('that differs is remembered first, and set right after 15 s', () => {
    const first = run({ ...written, target: sick });
    assert.deepEqual([short(first), first.nextAt], [[], NOW + 15_000]);
    assert.equal(first.notes.get(addressOf(one))?.unlikeSince, NOW);
    const shown = first.notes.get(addressOf(one))?.shown ?? null;
    assert.deepEqual(short(run({ ...written, target: sick, notes: note(one, { shown, unlikeSince: NOW - 14_999 }) })), []);
    assert.deepEqual(short(run({ ...written, target: sick, notes: note(one, { shown, unlikeSince: NOW - 15_000 }) })), [
      'health 80',
    ]);
  });
  it('`unknown` contradicts nothing', () => {
    const unsure = account('b', [copyOf(one, rules(), { health: 'unknown' })]);
    assert.equal(run({ ...written, target: unsure }).nextAt, Number.POSITIVE_INFINITY);
  });
});

describe('rule 5: whose a record is', () => {
  const place = instance(80, { id: 'a-10.0.0.1:80' });
  const cases: [string, Partial<DecideInput>, string[]][] = [
    ['native in our place', { ...written, target: account('b', [place]) }, ['strike 80']],
    [
      'native in our place, the origin gone',
      { ...written, origin: account('a', []), target: account('b', [place]) },
      ['strike 80'],
    ],
    ['native beside ours', { ...written, target: account('b', [one, copyOf(one)]) }, ['remove native 80']],
    ['native that hides ours', { ...written, target: account('b', [one]) }, ['remove native 80']],
    [
      'native beside ours, outside rate and grace',
      { ...written, target: account('b', [one]), graceEndsAt: null, removals: { count: 0, nextAt: 0 } },
      ['remove native 80'],
    ],
    [
      'native and a withheld copy',
      { ...written, entries: [entry(one, { state: 'withheld', receipt: null })], target: account('b', [one]) },
      ['strike 80'],
    ],
    [
      'native and a write whose answer was lost',
      { ...written, entries: [entry(one, { state: 'intent', receipt: null })], target: account('b', [one]) },
      ['read'],
    ],
    [
      'the same, read back',
      { ...written, entries: [entry(one, { state: 'intent', receipt: null })], target: account('b', [one]), confirmed: true },
      ['strike 80'],
    ],
    ['native that we never copied', { origin: account('a', [one]), target: account('b', [one]) }, []],
    ['ours without an entry', { origin: account('a', [one]), target: account('b', [copyOf(one)]) }, ['put adopt 80']],
    ['ours without entry or origin', { target: account('b', [copyOf(one)]) }, ['put adopt 80']],
    [
      "another migration's copy",
      {
        origin: account('a', [one]),
        target: account('b', [instance(80, { metadata: new Map(markersOf({ origin: 'x', migration: 'm9' })) })]),
      },
      [],
    ],
    [
      'a copy by another migration in the origin',
      { origin: account('a', [instance(80, { metadata: new Map(markersOf({ origin: 'x', migration: 'm9' })) })]) },
      [],
    ],
    [
      'our return copy in the origin',
      { origin: account('a', [instance(80, { metadata: new Map(markersOf({ origin: 'b', migration: 'm1' })) })]) },
      [],
    ],
    [
      'a kept copy in the origin',
      {
        origin: account('a', [
          instance(80, {
            metadata: new Map([
              ['weir-kept', 'x'],
              ['weir-migration', 'm0'],
            ]),
          }),
        ]),
      },
      ['put new 80'],
    ],
  ];
  for (const tool of ['__sync__', 'internal-eureka-replicate', 'sourceClusterId', 'internal-register-from', 'external-source']) {
    cases.push([
      `a copy by another tool (${tool})`,
      { origin: account('a', [instance(80, { metadata: new Map([[tool, 'x']]) })]) },
      [],
    ]);
  }
  for (const [what, input, expected] of cases)
    it(`${what}: ${expected.join() || 'nothing'}`, () => assert.deepEqual(short(run(input)), expected));

  const lossy = rules(['weight', 'health']);
  const bare = instance(80, { id: 'a-10.0.0.1:80' });
  const lost: [string, Partial<DecideInput>, string[]][] = [
    [
      'a record that the ledger knows is ours',
      { entries: [entry(one, {}, lossy)], origin: account('a', [one]), target: account('b', [bare]) },
      [],
    ],
    ['so that it goes with its origin', { entries: [entry(one, {}, lossy)], target: account('b', [bare]) }, ['remove gone 80']],
    ['a record that it does not know is native', { origin: account('a', [one]), target: account('b', [one]) }, []],
    [
      'a second record of the address is native',
      { entries: [entry(one, {}, lossy)], origin: account('a', [one]), target: account('b', [bare, one]) },
      ['remove native 80'],
    ],
    [
      'a record of the address that hides ours is native, and ours goes whatever became of the origin',
      { entries: [entry(one, {}, lossy)], target: account('b', [one]) },
      ['remove native 80'],
    ],
    ['a copy by the ledger begets no copy', { origin: account('a', [one]), copiesInOrigin: new Set([addressOf(one)]) }, []],
  ];
  for (const [what, input, expected] of lost) {
    it(`where the target loses metadata ${what}`, () => assert.deepEqual(short(run({ rules: lossy, ...input })), expected));
  }
});

describe('return copies', () => {
  const wants = (baseline: readonly string[] | null) => ({
    wants: { kind: 'new', baseline } as const,
    origin: account('a', [one]),
  });
  it('are of what is not in the baseline', () => {
    assert.deepEqual(short(run(wants([]))), ['put new 80']);
    assert.deepEqual(short(run(wants([addressOf(one)]))), []);
  });
  it('wait for the baseline, and nothing of ours is judged without it', () => {
    assert.deepEqual(short(run({ ...wants(null), target: account('b', [copyOf(instance(81))]) })), []);
  });
  it('are not of what the other side has natively', () =>
    assert.deepEqual(short(run({ ...wants([]), target: account('b', [instance(80, { id: 'x' })]) })), []));
});

describe('rules 10 to 12: writes whose outcome is not known', () => {
  const intent = { ...written, entries: [entry(one, { state: 'intent' })] };
  it('are read back before anything else', () => {
    assert.deepEqual(short(run({ ...intent, target: account('b', []) })), ['read']);
    assert.deepEqual(short(run({ ...intent, origin: account('a', []) })), ['read']);
  });
  it('are repeated, taken over or given up by what the read shows', () => {
    const none = entry(one, { state: 'intent', receipt: null });
    assert.deepEqual(short(run({ ...intent, confirmed: true })), ['put again 80']);
    assert.deepEqual(short(run({ ...intent, entries: [none], target: account('b', []), confirmed: true })), ['put again 80']);
    assert.deepEqual(short(run({ entries: [none], target: account('b', []), confirmed: true })), ['strike 80']);
    assert.deepEqual(short(run({ entries: [none], target: account('b', [copyOf(one)]), confirmed: true })), ['put adopt 80']);
  });
  it('that are under way, or put off after a failure, are left alone', () => {
    assert.deepEqual(short(run({ origin: account('a', [one]), busy: new Set([addressOf(one)]) })), []);
    const off = run({ origin: account('a', [one]), notes: note(one, { waitUntil: NOW + 5 }) });
    assert.deepEqual([short(off), off.nextAt], [[], NOW + 5]);
  });
  it('a lower epoch in the target is overwritten, our own is not', () => {
    assert.deepEqual(short(run({ ...written, rules: rules(ALL, 2) })), ['put epoch 80']);
    assert.deepEqual(short(run(written)), []);
  });
});

describe('what others do to our copies', () => {
  const settled = { wroteAt: NOW - 60_000 };
  it('one that is missing 5 s after our write is put again, once a minute at most', () => {
    const missing = { ...written, target: account('b', []) };
    assert.deepEqual(short(run({ ...missing, notes: note(one, settled) })), ['put lost 80']);
    assert.deepEqual(short(run({ ...missing, notes: note(one, { ...settled, repairedAt: NOW - 30_000 }) })), []);
    const early = run({ ...missing, notes: note(one, { wroteAt: NOW - 1_000 }) });
    assert.deepEqual([short(early), early.nextAt], [[], NOW + 4_000]);
    const old = { ...missing, target: account('b', [], { goodAt: NOW - 59_000 }) };
    assert.deepEqual(short(run({ ...old, notes: note(one, settled) })), ['read'], 'an older word is checked first');
  });
  it('one that only the catalog holds is missing', () => {
    assert.deepEqual(short(run({ ...written, target: account('b', [{ held: copyOf(one) }]), notes: note(one, settled) })), [
      'put lost 80',
    ]);
  });
  it('one whose lease is forgotten is put again', () => {
    assert.deepEqual(short(run({ ...written, notes: note(one, { forgotten: true }) })), ['put lost 80']);
  });
  it('rounding by the target is learned, not fought; a later edit is set right once a minute', () => {
    const rounded = account('b', [copyOf(one, rules(), { weight: 99 })]);
    const learned = run({ ...written, target: rounded, notes: note(one, settled) });
    assert.deepEqual(short(learned), []);
    const shown = learned.notes.get(addressOf(one))?.shown ?? null;
    assert.ok(shown !== null);
    assert.deepEqual(short(run({ ...written, target: rounded, notes: note(one, { ...settled, shown }) })), []);
    const edited = account('b', [copyOf(one, rules(), { weight: 1 })]);
    assert.deepEqual(short(run({ ...written, target: edited, notes: note(one, { ...settled, shown }) })), ['put repair 80']);
    const limited = run({ ...written, target: edited, notes: note(one, { ...settled, shown, repairedAt: NOW - 59_000 }) });
    assert.deepEqual([short(limited), limited.nextAt], [[], NOW + 1_000]);
  });
  it('rounding by the target is not written again after a restart, an edit meanwhile is', () => {
    const rounded = account('b', [copyOf(one, rules(), { weight: 99 })]);
    const [learned] = run({ ...written, target: rounded, notes: note(one, settled) }).learned ?? [];
    assert.ok(learned?.shown !== undefined);
    assert.deepEqual(short(run({ ...written, entries: [learned], target: rounded })), []);
    const edited = account('b', [copyOf(one, rules(), { weight: 1 })]);
    assert.deepEqual(short(run({ ...written, entries: [learned], target: edited })), ['put repair 80']);
    assert.deepEqual(
      run({ ...written, target: account('b', [copyOf(one)]), notes: note(one, settled) }).learned,
      [],
      'as written',
    );
  });
  it('an edit while we were away is settled by one write', () => {
    const edited = account('b', [copyOf(one, rules(), { weight: 1 })]);
    assert.deepEqual(short(run({ ...written, target: edited })), ['put repair 80']);
  });
  it('entries that the registry adds are no edit', () => {
    const copy = copyOf(one);
    const more = account('b', [{ ...copy, metadata: new Map([...copy.metadata, ['etcd.lease', 'ff'], ['registry.own', '1']]) }]);
    assert.deepEqual(short(run({ ...written, target: more })), []);
  });
});

describe('a copy that we have just removed', () => {
  const shown = { target: account('b', [copyOf(one)], { goodAt: NOW - 1_000 }) };
  it('is not taken over while the target may only not know it yet', () => {
    const early = run({ ...shown, notes: note(one, { wroteAt: NOW - 1_500 }) });
    assert.deepEqual([short(early), early.nextAt], [[], NOW + 3_500]);
    assert.deepEqual(short(run({ ...shown, notes: note(one, { wroteAt: NOW - 5_500 }) })), ['read']);
    assert.deepEqual(short(run({ ...shown, notes: note(one, { wroteAt: NOW - 7_000 }) })), ['put adopt 80']);
  });
});

describe('endings', () => {
  const base = {
    rules: rules(),
    target: account('b', [copyOf(one)]),
    busy: new Set<string>(),
    putOff: new Set<string>(),
    unsure: new Set<string>(),
    confirmed: false,
  };
  it('drain: all that the ledger knows goes, and what carries our marker is taken over first', () => {
    const two = instance(81);
    const entries = [
      entry(one),
      entry(two, { state: 'intent', receipt: null }),
      entry(instance(82), { state: 'withheld', receipt: null }),
    ];
    const target = account('b', [copyOf(one), copyOf(two), copyOf(instance(83)), instance(84)]);
    assert.deepEqual(short({ actions: drainActions({ ...base, target, entries }) }), [
      'remove ended 80',
      'strike 82',
      'put adopt 83',
      'read',
    ]);
    const confirmed = drainActions({ ...base, target, entries, confirmed: true });
    assert.deepEqual(short({ actions: confirmed }), ['remove ended 80', 'put adopt 81', 'strike 82', 'put adopt 83']);
    assert.deepEqual(drainActions({ ...base, entries: [entry(one)], putOff: new Set([addressOf(one)]) }), []);
  });
  it('keep: by a fresh read, what stands becomes an ordinary record, what does not is struck', () => {
    const entries = [entry(one), entry(instance(81))];
    assert.deepEqual(short({ actions: keepActions({ ...base, entries }) }), ['read']);
    const actions = keepActions({ ...base, entries, confirmed: true });
    assert.deepEqual(short({ actions }), ['put kept 80', 'strike 81']);
    const [put] = actions;
    assert.ok(put?.kind === 'put' && put.instance.metadata.get('weir-kept') === 'a' && !put.instance.metadata.has('weir-origin'));
    assert.deepEqual(keepActions({ ...base, entries: [entry(one, { state: 'kept' })], confirmed: true }), []);
  });
});
