// From answers to snapshots: the table of section 9 of the protocol notes, weights, places, what is dropped and counted.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { dialPolicy } from '../../src/kernel/dial.ts';
import type { Snapshot } from '../../src/model/snapshot.ts';
import { isAlias, type MappingOptions, snapshotOf, statesOf } from './mapping.ts';
import type { ServEntry, SyncAnswer } from './messages.ts';
import { ipNumber, parseSid, type Sid, sidText } from './sid.ts';

const SID: Sid = { modid: 7, cmdid: 9 };
const NOTHING: SyncAnswer = { serv: [], sids: [], ipc: [], servers: null };

function serv(host: string, port = 80, weight = 100, sid = SID): ServEntry {
  return { sid, ip: ipNumber(host) ?? assert.fail(host), port, weight };
}

function map(answer: Partial<SyncAnswer>, seen = false, options: Partial<MappingOptions> = {}) {
  const counts = new Map<string, number>();
  const { states, unasked } = statesOf({ ...NOTHING, ...answer }, [SID]);
  const state = states.get('7:9') ?? assert.fail('no state');
  const snapshot = snapshotOf(state, seen, {
    dial: dialPolicy({ allowLoopback: false, allowNames: false, cidrs: [], ports: [] }, () => []),
    normalWeight: 100,
    protocols: new Map(),
    count: (what, by = 1) => void counts.set(what, (counts.get(what) ?? 0) + by),
    ...options,
  });
  return { snapshot, counts, unasked };
}

function present(snapshot: Snapshot): Extract<Snapshot, { kind: 'present' }> {
  return snapshot.kind === 'present' ? snapshot : assert.fail(snapshot.kind);
}

describe('outcomes per SID', () => {
  const sids = [{ sid: SID, name: 'demo', policy: 1 }];
  it('in serv_list: present with its instances', () => {
    const { instances } = present(map({ sids, serv: [serv('10.0.0.1')] }).snapshot);
    assert.deepEqual(
      instances.map(({ id, host, port, weight, health, isolated }) => ({ id, host, port, weight, health, isolated })),
      [{ id: '7:9/10.0.0.1:80', host: '10.0.0.1', port: 80, weight: 100, health: 'healthy', isolated: false }],
    );
  });
  it('in sid_list only: present, nothing for this caller', () => {
    assert.deepEqual(present(map({ sids }).snapshot).instances, []);
  });
  it('in neither and never seen: absent', () => {
    assert.equal(map({}).snapshot.kind, 'absent');
  });
  it('in neither and seen before: empty, which is held, and never a deletion at once', () => {
    assert.deepEqual(present(map({}, true).snapshot).instances, []);
  });
});

describe('fields', () => {
  it('the SID, the name and the policy go into metadata', () => {
    const { instances } = present(map({ sids: [{ sid: SID, name: 'demo.l5', policy: 1 }], serv: [serv('10.0.0.1')] }).snapshot);
    assert.deepEqual([...(instances[0]?.metadata ?? [])].sort(), [
      ['l5.cmdid', '9'],
      ['l5.modid', '7'],
      ['l5.name', 'demo.l5'],
      ['l5.policy', '1'],
    ]);
  });

  it('a name with control characters is left out of metadata and counted, one of __proto__ is kept', () => {
    const evil = map({ sids: [{ sid: SID, name: 'a\u0000b', policy: 0 }], serv: [serv('10.0.0.1')] });
    assert.equal(present(evil.snapshot).instances[0]?.metadata.has('l5.name'), false);
    assert.equal(evil.counts.get('metadata.cut'), 1);
    const proto = map({ sids: [{ sid: SID, name: '__proto__', policy: 0 }], serv: [serv('10.0.0.1')] });
    assert.equal(present(proto.snapshot).instances[0]?.metadata.get('l5.name'), '__proto__');
  });

  for (const [native, normal, want] of [
    [100, 100, 100],
    [1, 100, 1],
    [300, 100, 300],
    [65_535, 100, 65_535],
    [2_147_483_647, 100, 65_535],
    [1, 1_000, 1],
    [10, 10, 100],
  ] as const) {
    it(`weight ${native} of a normal ${normal} is ${want} here`, () => {
      const { instances } = present(map({ serv: [serv('10.0.0.1', 80, native)] }, false, { normalWeight: normal }).snapshot);
      assert.equal(instances[0]?.weight, want);
    });
  }

  it('places become region, zone and campus; 0 is unknown', () => {
    const ip = ipNumber('10.0.0.1') ?? 0;
    for (const [ipc, want] of [
      [
        { ip, area: 1, city: 2, idc: 3 },
        { region: '1', zone: '2', campus: '3' },
      ],
      [{ ip, area: 0, city: 2, idc: 0 }, { zone: '2' }],
      [{ ip, area: 0, city: 0, idc: 0 }, undefined],
      [{ ip: 1, area: 9, city: 9, idc: 9 }, undefined],
    ] as const) {
      assert.deepEqual(present(map({ serv: [serv('10.0.0.1')], ipc: [ipc] }).snapshot).instances[0]?.locality, want);
    }
  });

  it('a protocol that the source is given for the SID stands in its instances', () => {
    const protocols = new Map([['7:9', 'grpc']]);
    assert.equal(present(map({ serv: [serv('10.0.0.1')] }, false, { protocols }).snapshot).instances[0]?.protocol, 'grpc');
    assert.equal(present(map({ serv: [serv('10.0.0.1')] }).snapshot).instances[0]?.protocol, undefined);
  });
});

describe('what is dropped', () => {
  for (const [what, bad, reason] of [
    ['port 0', serv('10.0.0.9', 0), /port/],
    ['a negative port', serv('10.0.0.9', -1), /port/],
    ['port 65536', serv('10.0.0.9', 65_536), /port/],
    ['weight 0', serv('10.0.0.9', 80, 0), /weight 0/],
    ['a negative weight', serv('10.0.0.9', 80, -5), /weight -5/],
    ['0.0.0.0', serv('0.0.0.0'), /no addresses/],
    ['loopback', serv('127.0.0.1'), /loopback/],
    ['link-local', serv('169.254.169.254'), /link-local/],
    ['multicast', serv('224.0.0.1'), /multicast/],
    ['broadcast', serv('255.255.255.255'), /broadcast/],
  ] as const) {
    it(`${what} is rejected and counted, and the good instance stays`, () => {
      const { snapshot, counts } = map({ serv: [bad, serv('10.0.0.1')] });
      const { instances, rejected } = present(snapshot);
      assert.deepEqual(
        instances.map(({ host }) => host),
        ['10.0.0.1'],
      );
      assert.equal(rejected.length, 1);
      assert.match(rejected[0]?.reason ?? '', reason);
      assert.equal(counts.get('instances.rejected'), 1);
    });
  }

  it('of two entries of one address the larger weight stays', () => {
    const { snapshot, counts } = map({ serv: [serv('10.0.0.1', 80, 5), serv('10.0.0.1', 80, 50), serv('10.0.0.1', 80, -1)] });
    assert.deepEqual(
      present(snapshot).instances.map(({ weight }) => weight),
      [50],
    );
    assert.equal(counts.get('instances.duplicate'), 2);
  });

  it('a SID that was not asked for is counted and dropped', () => {
    const other = { modid: 1, cmdid: 1 };
    const { snapshot, unasked } = map({ serv: [serv('10.0.0.2', 80, 100, other)], sids: [{ sid: other, name: '', policy: 0 }] });
    assert.equal(snapshot.kind, 'absent');
    assert.equal(unasked, 2);
  });
});

describe('revisions', () => {
  const two = [serv('10.0.0.1'), serv('200.0.0.2', 81, 7)];
  const revision = (answer: Partial<SyncAnswer>): string => map(answer).snapshot.sourceRevision;
  it('the order of an answer does not matter', () => {
    assert.equal(revision({ serv: two }), revision({ serv: two.toReversed() }));
  });
  it('address, weight, name, policy and place do', () => {
    const [first] = two;
    const ip = first?.ip ?? 0;
    const all = [
      revision({ serv: two }),
      revision({ serv: two.slice(1) }),
      revision({ serv: [serv('10.0.0.1', 80, 99), serv('200.0.0.2', 81, 7)] }),
      revision({ serv: two, sids: [{ sid: SID, name: 'a', policy: 0 }] }),
      revision({ serv: two, sids: [{ sid: SID, name: 'a', policy: 1 }] }),
      revision({ serv: two, ipc: [{ ip, area: 1, city: 0, idc: 0 }] }),
    ];
    assert.equal(new Set(all).size, all.length);
  });
});

describe('SIDs', () => {
  for (const text of ['0:0', '192002625:487373', '4294967295:4294967294']) {
    it(`${text} is one`, () => assert.equal(sidText(parseSid(text) ?? assert.fail()), text));
  }
  for (const text of [
    '',
    '1',
    '1:',
    ':1',
    '1:2:3',
    '01:2',
    '1:02',
    '-1:2',
    '4294967296:1',
    '1:4294967296',
    ' 1:2',
    '1:2\n',
    'demo.l5',
  ]) {
    it(`${JSON.stringify(text)} is none`, () => assert.equal(parseSid(text), null));
  }
  it('a name that looks like a SID, is empty or holds a control character is no alias', () => {
    assert.deepEqual(['demo', '__proto__', '1:2', '', 'a\nb'].map(isAlias), [true, true, false, false, false]);
  });
});
