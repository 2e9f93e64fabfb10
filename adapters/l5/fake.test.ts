// The fake answers as a Polaris 1.18.1 was seen to (protocol notes, sections 6 and 15).
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { after, describe, it } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { startFakeL5 } from './fake.ts';
import { type FakeInstance, FakeL5Store } from './fake-store.ts';
import { servedAs } from './fake-wire.ts';
import { BAD_HEADS, bytes, NO_NAME, V1, V2_SERVER, V3, V4, V5, V5_LIST, V6 } from './vectors.ts';

const SID = '192002625:487373';
const TWO = [
  { host: '127.0.0.2', port: 8080, weight: 100 },
  { host: '192.168.16.172', port: 65_535, weight: 50 },
];

describe('fake L5 server', async () => {
  const fake = await startFakeL5(new FakeClock());
  after(() => fake.stop());

  /** What the server sends until it closes or has sent `length` bytes; hexadecimal. */
  function ask(hex: string, length: number): Promise<string> {
    return new Promise((resolve) => {
      const socket = connect(fake.port, '127.0.0.1');
      let got = '';
      const end = (): void => {
        socket.destroy();
        resolve(got);
      };
      socket.on('error', end);
      socket.on('close', end);
      socket.on('data', (chunk) => {
        got += chunk.toString('hex');
        if (got.length >= 2 * length) end();
      });
      socket.write(bytes(hex));
    });
  }

  it('V1 for an unknown SID is answered with V5, V3 for an unknown name without SIDs', async () => {
    assert.equal(await ask(V1, 26), V5);
    assert.equal(await ask(V3, 24), NO_NAME);
  });

  it('the SID of V2 is answered in the bytes of the real server, whose order changes; V3 with V4 and policy 1', async () => {
    fake.store.put(SID, TWO, { name: 'demo.l5', nearby: true });
    const seen = new Set<string>();
    for (let n = 0; n < 20; n++) seen.add(await ask(V1, 135));
    assert.ok(seen.has(V2_SERVER) && seen.size > 1);
    assert.equal(await ask(V3, 48), V4.replace(/00$/, '01'));
  });

  it('no weight is V6, all isolated or unhealthy is V5, and a server list is appended', async () => {
    const all = (more: Partial<FakeInstance>): void =>
      fake.store.put(
        SID,
        TWO.map((one) => ({ ...one, ...more })),
      );
    all({ weight: 0 });
    assert.equal(await ask(V1, 50), V6);
    all({ isolated: true });
    assert.equal(await ask(V1, 26), V5);
    all({ healthy: false });
    assert.equal(await ask(V1, 26), V5);
    fake.store.servers = ['127.0.0.1'];
    assert.equal(await ask(V1, 33), V5_LIST);
    fake.store.servers = [];
  });

  it('it closes without an answer on bad heads, commands 101-103 and a body that does not decode', async () => {
    const command = (n: number): string => V1.replace('1064', `10${n.toString(16)}`);
    for (const hex of [...BAD_HEADS, '010001002000', command(101), command(102), command(103), '0100080000000807']) {
      assert.equal(await ask(hex, 1), '', hex);
    }
  });

  it('a request without its content is taken for an empty one', async () => {
    assert.equal(await ask('01000a00000008071064', 20), '01001400000008071065186428005a0408001001');
    assert.equal(await ask('01000a00000008011068', 18), '01001200000008011069186428007a020800');
  });
});

describe('what a server makes of sets and weights (caller in NOSET, weight 100)', () => {
  for (const [setId, setWeights, want] of [
    [undefined, undefined, 100],
    ['NOSET', '9', 100],
    ['A,NOSET', '5,7', 7],
    ['A,NOSET', '5', 100],
    ['A,NOSET', '5,x', 100],
    ['NOSET,A', '0,7', null],
    ['A', undefined, null],
    ['', undefined, null],
    ['A, NOSET', undefined, null],
  ] as const) {
    it(`set ${JSON.stringify(setId)} with weights ${JSON.stringify(setWeights)} is served with ${want}`, () => {
      const store = new FakeL5Store();
      const set = { ...(setId !== undefined && { setId }), ...(setWeights !== undefined && { setWeights }) };
      store.put('1:2', [{ host: '10.0.0.1', port: 80, weight: 100, ...set }]);
      const request = { seqno: 1, cmd: 100, ip: 0, agentIp: 0, syncFlow: 1, sids: [[1, 2]] as const, names: [] };
      assert.equal(store.answer(request, () => 0)?.serv[0]?.weight ?? null, want);
    });
  }

  it('an alias answers under the asked SID; a name is found through services only; a SID asked twice comes twice', () => {
    const store = new FakeL5Store();
    store.put('1:2', [{ host: '10.0.0.1', port: 80, weight: 100 }], { name: 'demo' });
    store.aliases.set('9:9', '1:2');
    const base = { seqno: 1, ip: 0, agentIp: 0, syncFlow: 1 };
    const sids = [
      [9, 9],
      [1, 2],
      [1, 2],
    ] as const;
    const got = store.answer({ ...base, cmd: 100, sids, names: [] }, () => 0);
    assert.deepEqual(got?.serv.map(({ modId }) => modId).sort(), [1, 1, 9]);
    assert.equal(got?.ipc.length, 1);
    const names = store.answer({ ...base, cmd: 104, sids: [], names: ['demo'] }, () => 0);
    assert.deepEqual(
      names?.sids.map(({ modId }) => modId),
      [1],
    );
  });
});

describe('what a server makes of hosts that are no dotted quad', () => {
  for (const [host, served] of [
    ['::1', '77.4.0.0'],
    ['fe80::1', '109.21.138.3'],
    ['localhost', '222.218.140.142'],
    ['my-host.local', '238.239.51.14'],
    ['300.1.1.1', '44.1.1.1'],
    ['1.2.3', '1.2.3.0'],
    ['1.2.3.4.5', '1.2.3.4'],
    ['010.000.000.012', '10.0.0.12'],
  ] as const) {
    it(`${host} is served as ${served}`, () => assert.equal(servedAs(host), served));
  }
});
