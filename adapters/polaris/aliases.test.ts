import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { aliasNamespace } from './aliases.ts';

describe('namespace of an alias', () => {
  const key = (namespace: string) => ({ namespace, name: 'real' });

  it('of a name is that of its service', () => {
    assert.equal(aliasNamespace(key('game'), 'other'), 'game');
    assert.equal(aliasNamespace(key('game'), '1:2:3'), 'game');
  });

  it('of an old SID is default or Production, where Polaris looks', () => {
    assert.equal(aliasNamespace(key('game'), '1001:77'), 'default');
    assert.equal(aliasNamespace(key('Production'), '1001:77'), 'Production');
    assert.equal(aliasNamespace(key('game'), '192000063:1'), 'default');
  });

  it('of a generated SID is what its layout says', () => {
    for (const [module, namespace] of [
      [192_000_065, 'Production'],
      [192_000_066, 'Development'],
      [192_000_067, 'Pre-release'],
      [192_000_068, 'Test'],
      [192_000_069, 'Polaris'],
      [192_000_070, 'default'],
      [192_000_071, 'default'],
      [192_002_625, 'Production'],
    ] as const) {
      assert.equal(aliasNamespace(key('game'), `${module}:65537`), namespace, String(module));
    }
  });
});
