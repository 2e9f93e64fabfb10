// What a domain name has: the keys of one skydns service together, as the readers answer (coredns plugin/etcd).
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { dialPolicy } from '../../../src/kernel/dial.ts';
import type { Instance } from '../../../src/model/instance.ts';
import { serviceId } from '../../../src/model/service.ts';
import { instance } from '../../../test/support/etcd-bench.ts';
import { homesOf, type MappingOptions, recordOf, writeForm } from '../mapping.ts';
import { combined, mergeKeys } from '../merge.ts';
import { skydnsLayout } from './skydns.ts';

const dial = dialPolicy({ allowLoopback: false, allowNames: true, cidrs: [], ports: [] }, () => []);
const OPTIONS: MappingOptions = {
  layout: skydnsLayout,
  prefix: '/skydns/',
  namespace: 'default',
  normalWeight: 100,
  dial,
  count: () => {},
};

/** The instances of a name in a store of these keys (`path: value`), as feed and read make them. */
function answer(name: string, store: Readonly<Record<string, object>>): readonly Instance[] {
  const key = { namespace: 'default', name };
  const found = Object.entries(store).flatMap(([path, value], n) => {
    const text = `/skydns/${path}`;
    const kv = {
      key: Buffer.from(text),
      createRevision: '1',
      modRevision: '1',
      version: '1',
      lease: '0',
      value: Buffer.from(JSON.stringify(value)),
    };
    const record = recordOf(text, kv, null, OPTIONS);
    const counts = homesOf(record).some((home) => serviceId(home) === serviceId(key));
    return counts ? [{ key: text, record, modRevision: BigInt(n + 1) }] : [];
  });
  return mergeKeys(combined(key, found, OPTIONS)).instances;
}

const ids = (...given: Parameters<typeof answer>): string =>
  answer(...given)
    .map(({ id }) => id)
    .join(' ');

function at(port: number, group?: string): object {
  return { host: '10.0.0.1', port, ...(group === undefined ? {} : { group }) };
}

describe('a skydns name', () => {
  it('has the keys below its path, deeper ones by their path, and no keys of names that only begin alike', () => {
    const store = { 'local/svc/x1': at(1), 'local/svc/a/x1': at(2), 'local/svc2/x1': at(3), 'local/sv': at(4) };
    assert.equal(ids('svc.local', store), 'a/x1 x1');
    assert.equal(ids('a.svc.local', store), 'x1');
    assert.equal(ids('local', store), 'sv svc/a/x1 svc/x1 svc2/x1');
  });

  it('has the key of its own path only when there are none below', () => {
    assert.equal(ids('svc.local', { 'local/svc': at(1) }), 'svc');
    assert.equal(ids('svc.local', { 'local/svc': at(1), 'local/svc/x1': at(2) }), 'x1');
    assert.equal(ids('svc.local', { 'local/svc': at(1), 'local/svc/x1': { text: 'no address' } }), '');
  });

  it('is listed where a key has it for its parent path, and not for the names that the key only counts for', () => {
    const text = '/skydns/local/svc/a/x1';
    const kv = {
      key: Buffer.from(text),
      createRevision: '1',
      modRevision: '1',
      version: '1',
      lease: '0',
      value: Buffer.from('{"host":"10.0.0.1","port":1}'),
    };
    const record = recordOf(text, kv, null, OPTIONS);
    assert.equal(record.service?.name, 'a.svc.local');
    assert.deepEqual(
      record.also?.map(({ name }) => name),
      ['local', 'svc.local', 'x1.a.svc.local'],
    );
  });

  it('takes weight 0 as normal when all are 0, else as no traffic', () => {
    const weights = (store: Record<string, object>): number[] => answer('svc.local', store).map(({ weight }) => weight);
    assert.deepEqual(weights({ 'local/svc/a': at(1), 'local/svc/b': { ...at(2), weight: 0 } }), [100, 100]);
    assert.deepEqual(weights({ 'local/svc/a': { ...at(1), weight: 30 }, 'local/svc/b': at(2) }), [30, 0]);
  });

  it('may have a host name as its address where names are allowed', () => {
    const [one] = answer('svc.local', { 'local/svc/a': { host: 'Node-1.example.', port: 80 } });
    assert.equal(one?.host, 'node-1.example');
  });

  it('without a lease is of unknown health, under one healthy', () => {
    assert.equal(answer('svc.local', { 'local/svc/a': at(1) })[0]?.health, 'unknown');
    const text = '/skydns/local/svc/a';
    const kv = {
      key: Buffer.from(text),
      createRevision: '1',
      modRevision: '1',
      version: '1',
      lease: '255',
      value: Buffer.from('{"host":"10.0.0.1","port":1}'),
    };
    assert.equal(recordOf(text, kv, null, OPTIONS).instances[0]?.health, 'healthy');
  });
});

describe('the group of a skydns name', () => {
  for (const [claim, store, want] of [
    [
      'one group on the first level hides other groups below',
      { a: at(1, 'g'), 'b/c': at(2, 'other'), 'b/d': at(3, 'g') },
      'a b/d',
    ],
    ['groupless records count beside it', { a: at(1, 'g'), b: at(2), 'c/d': at(3, 'other') }, 'a b'],
    ['different groups on that level: all count', { a: at(1, 'g'), b: at(2, 'h'), 'c/d': at(3, 'other') }, 'a b c/d'],
    ['a shorter key that comes later takes over', { 'a/b': at(1, 'other'), c: at(2, 'g') }, 'c'],
    ['a first record without group and none shorter: all count', { a: at(1), b: at(2, 'g'), c: at(3, 'h') }, 'a b c'],
    ['a shorter key without a group ends the search', { 'a/b': at(1, 'g'), 'a/c/d': at(2, 'h'), d: at(3) }, 'a/b d'],
    ['what comes after that end cannot disagree', { 'a/b': at(1, 'g'), c: at(2), 'e/f': at(3, 'h') }, 'a/b c'],
    ['a text record has no voice', { a: { text: 't', group: 'other' }, b: at(2, 'g'), 'c/d': at(3, 'other') }, 'b'],
    ['a mail record has one', { a: { ...at(1, 'g'), mail: true }, 'b/c': at(2, 'other'), d: at(3, 'g') }, 'd'],
  ] as const) {
    it(claim, () => {
      const paths = Object.entries(store).map(([path, value]) => [`local/svc/${path}`, value] as const);
      assert.equal(ids('svc.local', Object.fromEntries(paths)), want);
    });
  }
});

describe('a skydns write', () => {
  const key = { namespace: 'default', name: 'svc.local' };

  it('has the domain reversed in its key and nothing that the readers do not know in its value', () => {
    const metadata = new Map([
      ['priority', '7'],
      ['group', 'of another registry'],
    ]);
    const form = writeForm(key, instance(80, { id: 'a/b', metadata, version: '2' }), OPTIONS);
    assert.ok(typeof form !== 'string');
    assert.equal(form.key, '/skydns/local/svc/a-b');
    assert.equal(form.value, '{"host":"10.0.0.1","port":80,"weight":100,"priority":7}');
  });

  for (const name of ['a/b', 'Svc.local', 'svc..local', '', 'x.in-addr.arpa', `${'a'.repeat(64)}.local`]) {
    it(`of the name ${name.slice(0, 20)} is refused`, () =>
      assert.equal(typeof writeForm({ ...key, name }, instance(80), OPTIONS), 'string'));
  }

  it('that would not fit into a domain name is refused', () => {
    assert.match(String(writeForm(key, instance(80, { id: 'x'.repeat(250) }), OPTIONS)), /too long/);
  });
});
