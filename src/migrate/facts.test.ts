// What a step is judged by, in the words that people are shown.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ledgerEntry, migrationDoc } from '../../test/support/migration-fixture.ts';
import type { SourceAccount } from '../catalog/view.ts';
import { type Instance, NO_METADATA } from '../model/instance.ts';
import { stepFacts } from './facts.ts';
import { Ledger } from './ledger.ts';
import type { MigrationCatalog } from './ports.ts';
import { Scope } from './scope.ts';

const S = 'default/web';

function instance(port: number): Instance {
  const at = { id: `n${port}`, host: '10.0.0.1', port, transport: 'tcp' as const };
  return { ...at, weight: 100, health: 'healthy', isolated: false, metadata: NO_METADATA };
}

describe('the facts of a finish', () => {
  it('say why an instance that stands in the origin alone has no copy', () => {
    const sample = migrationDoc('m1', { phase: 'cutover' });
    const doc = { ...sample, spec: { ...sample.spec, from: 'a', to: 'b', services: [S] } };
    const catalog: MigrationCatalog = {
      account: (source): SourceAccount => ({
        ...{ source, key: { namespace: 'default', name: 'web' }, live: true, epoch: '1', goodAt: 0, presence: 'present' },
        instances: source === 'a' ? [1, 2].map((port) => ({ instance: instance(port), held: false })) : [],
      }),
      servicesOf: () => [S],
      toNative: () => null,
      toOurs: () => null,
      use: () => {},
      touch: () => {},
      subscribe: () => () => {},
    };
    const ledger = new Ledger();
    ledger.write(ledgerEntry(S, 1, { target: 'b', origin: 'a', state: 'withheld', receipt: null }));
    const { onlyInFrom, blind } = stepFacts({
      ...{ doc, now: 0, behind: [], planErrors: [], ledger, catalog },
      scope: new Scope(doc.spec, catalog),
    });
    assert.equal(blind, null);
    assert.deepEqual(onlyInFrom, [
      'default/web 10.0.0.1:1 (its copy is withheld: b has no word for what a says of it)',
      'default/web 10.0.0.1:2',
    ]);
  });
});
