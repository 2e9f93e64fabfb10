import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Adapter } from '../adapter/contract.ts';
import { WeirError } from '../kernel/errors.ts';
import type { ServiceKey } from '../model/service.ts';
import { chooseTargets, type RegistrationSource } from './choose-targets.ts';
import { registrationOf } from './registration.ts';

const lobby: ServiceKey = { namespace: 'game', name: 'lobby' };
const adapter = { kind: 'test' } as unknown as Adapter;

function source(sourceId: string, registerByDefault = false, canRegister = true): RegistrationSource {
  return { sourceId, adapter, registerByDefault, canRegister };
}

function choose(sources: readonly RegistrationSource[], named?: readonly string[], unmapped: readonly string[] = []) {
  const registration = registrationOf({
    service: lobby,
    id: 'l1',
    host: '10.0.0.5',
    port: 80,
    ...(named !== undefined && { sources: named }),
  });
  const nativeKey = (id: string, key: ServiceKey) => (unmapped.includes(id) ? null : { ...key, name: `${id}-${key.name}` });
  try {
    return chooseTargets(registration, sources, nativeKey).map(({ sourceId, key }) => `${sourceId} ${key.namespace}/${key.name}`);
  } catch (thrown) {
    assert.ok(thrown instanceof WeirError);
    return [thrown.code, thrown.message, thrown.details];
  }
}

describe('the sources of a registration', () => {
  const three = [source('a', true), source('b'), source('c', true), source('l5', true, false)];

  it('are those that are named, each once and in its own words', () => {
    assert.deepEqual(choose(three, ['b', 'a', 'b']), ['b game/b-lobby', 'a game/a-lobby']);
  });

  it('are those marked register: true when none is named, but for those that cannot', () => {
    assert.deepEqual(choose(three), ['a game/a-lobby', 'c game/c-lobby']);
    assert.deepEqual(choose(three, []), ['a game/a-lobby', 'c game/c-lobby']);
  });

  it('are the only one that can when none is marked', () => {
    assert.deepEqual(choose([source('x'), source('l5', true, false)]), ['x game/x-lobby']);
  });

  it('are asked for where several can, or none can', () => {
    const [code, message, details] = choose([source('x'), source('y')]);
    assert.equal(code, 'REGISTRATION_TARGET');
    assert.match(String(message), /several sources take registrations \(x, y\)/);
    assert.deepEqual(details, { candidates: ['x', 'y'] });
    assert.match(String(choose([source('l5', true, false)])[1]), /no configured source takes registrations/);
  });

  it('are refused as a whole, with the reason of each that cannot take it', () => {
    assert.deepEqual(choose(three, ['a', 'nowhere', 'l5', 'b', '__proto__'], ['b']), [
      'REGISTRATION_TARGET',
      'there is no source nowhere; source l5 takes no registrations; ' +
        'game/lobby has no name in source b; give it one under services[].names; there is no source __proto__',
      {
        targets: {
          nowhere: 'there is no source nowhere',
          l5: 'source l5 takes no registrations',
          b: 'game/lobby has no name in source b; give it one under services[].names',
          ['__proto__']: 'there is no source __proto__',
        },
        candidates: ['a', 'b', 'c'],
      },
    ]);
    assert.equal(choose(three, ['a', 'nowhere'])[0], 'SOURCE_NOT_FOUND');
  });
});
