import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Capabilities } from '../adapter/capabilities.ts';
import { seededRandom } from '../kernel/random.ts';
import { SourceError } from '../model/snapshot.ts';
import { registrationOf } from './registration.ts';
import { Target, type TargetAbilities } from './target.ts';

const service = { namespace: 'default', name: 'lobby' };
const receipt = { service, nativeId: 'n1' };
const lost = new SourceError('lost', 'unreachable');

function abilities(heartbeat: Capabilities['heartbeat'], renews = true): TargetAbilities {
  const capabilities: Capabilities = {
    watch: 'push',
    list: true,
    register: true,
    heartbeat,
    reads: new Set(),
    keeps: new Set(['weight', 'health']),
    tellsDeregistration: false,
    tellsAbsent: true,
  };
  return { capabilities, setsHealth: true, renews };
}

function target(ttl: number, seed = 1): Target {
  const registration = registrationOf({ service, id: 'l1', host: '10.0.0.5', port: 80, ttl });
  return new Target({ sourceId: 'a', key: service }, registration, seededRandom(seed));
}

/** Put at 0 in a registry of this kind. */
function written(ttl: number, kind: TargetAbilities, seed = 1): Target {
  const one = target(ttl, seed);
  const action = one.next(kind, 0);
  assert.ok(action.kind === 'put');
  one.wrote(receipt, action.instance, ttl, kind, 0);
  return one;
}

describe('one registration in one registry', () => {
  it('tries again within a third of its ttl, 5 s at most: two tries fit into what a missed renewal leaves of a lease', () => {
    for (let seed = 1; seed <= 50; seed++) {
      for (const ttl of [5_000, 15_000, 60_000]) {
        const one = written(ttl, abilities('core'), seed);
        let now = 0;
        for (let attempt = 1; attempt <= 10; attempt++) {
          one.failed(lost, now);
          const wait = one.dueAt - now;
          assert.ok(wait >= 500 && wait <= Math.min(5_000, ttl / 3), `try ${attempt} of ttl ${ttl} waits ${wait} ms`);
          now = one.dueAt;
        }
      }
    }
  });

  it('is due for renewal at a third of the ttl, ± 10 %', () => {
    for (let seed = 1; seed <= 50; seed++) {
      const { dueAt } = written(15_000, abilities('core'), seed);
      assert.ok(dueAt >= 4_500 && dueAt <= 5_500, `${dueAt}`);
    }
  });

  it('is never called live beyond 0.8 of a lease', () => {
    const one = written(15_000, abilities('core'));
    assert.deepEqual([one.state(11_999), one.state(12_000)], ['live', 'lost']);
    one.renewed(10_000, abilities('core'), 12_000);
    assert.deepEqual([one.state(19_999), one.state(20_000)], ['live', 'lost']);
  });

  it('where the adapter can say whether a record stands it is asked, and once a minute the record is put', () => {
    const kind = abilities('server');
    const one = written(15_000, kind);
    assert.equal(one.leaseLeft(1_000), null, 'there is no lease');
    assert.ok(one.dueAt <= 5_500);
    assert.equal(one.next(kind, 5_000).kind, 'renew');
    one.renewed(15_000, kind, 5_000);
    assert.equal(one.state(50_000), 'live');
    assert.equal(one.next(kind, 60_000).kind, 'put');
    one.forgotten(60_000);
    assert.equal(one.state(60_000), 'lost');
    assert.equal(one.next(kind, 60_000).kind, 'put');
  });

  it('an old record that cannot be removed costs the new one neither its lease nor a change', () => {
    const kind = abilities('core');
    const one = written(15_000, kind);
    one.registration = { ...one.registration, port: 81 };
    const moved = one.next(kind, 100);
    assert.ok(moved.kind === 'put');
    one.wrote({ service, nativeId: 'n2' }, moved.instance, 15_000, kind, 100);
    assert.deepEqual(one.leftovers, [receipt]);
    let renewals = 0;
    let tries = 0;
    for (let now = one.dueAt; now < 60_000; now = one.dueAt) {
      assert.ok(one.state(now) === 'live', `${one.state(now)} at ${now}`);
      const action = one.next(kind, now);
      if (action.kind === 'renew') {
        renewals++;
        one.renewed(15_000, kind, now);
      } else {
        assert.ok(action.kind === 'remove');
        tries++;
        one.notRemoved(action.receipt, tries % 2 === 0 ? lost : new SourceError('refused', 'no'), now);
      }
    }
    assert.ok(renewals >= 10 && renewals <= 14, `${renewals} renewals in a minute`);
    assert.ok(tries >= 4, `${tries} tries to remove`);
    one.healthy = false;
    one.hurry(60_000);
    assert.deepEqual(one.next(kind, 60_000), { kind: 'health', receipt: { service, nativeId: 'n2' }, health: 'unhealthy' });
    one.leaving = true;
    assert.deepEqual(one.next(kind, 60_000), { kind: 'remove', receipt });
  });

  it('where nobody can say it is put once a minute', () => {
    for (const kind of [abilities('none'), abilities('server', false)]) {
      const one = written(15_000, kind);
      assert.ok(one.dueAt >= 54_000 && one.dueAt <= 66_000);
      assert.equal(one.next(kind, one.dueAt).kind, 'put');
    }
  });
});
