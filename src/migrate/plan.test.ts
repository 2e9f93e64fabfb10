// The plan: what it asks of the two registries before anything is written, and what it says in words.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import type { Capabilities, InstanceField } from '../adapter/capabilities.ts';
import type { Adapter } from '../adapter/contract.ts';
import type { ServiceKey } from '../model/service.ts';
import { SourceError } from '../model/snapshot.ts';
import type { MigrationSpec } from './migration.ts';
import { makePlan, type Plan } from './plan.ts';
import type { MigrationCatalog } from './ports.ts';
import { Scope } from './scope.ts';
import { decodeSpec } from './spec.ts';

const NEVER = new AbortController().signal;
const FIELDS: readonly InstanceField[] = ['weight', 'health', 'metadata'];

interface Side {
  readonly keeps?: readonly InstanceField[];
  readonly register?: boolean;
  readonly mayWrite?: Adapter['mayWrite'];
  readonly trouble?: string;
}

function adapter({ keeps = FIELDS, register = true, mayWrite }: Side): Adapter {
  const capabilities: Capabilities = {
    watch: 'push',
    list: true,
    register,
    heartbeat: 'core',
    reads: new Set(keeps),
    keeps: new Set(register ? keeps : []),
    tellsDeregistration: false,
    tellsAbsent: true,
  };
  const never = (): never => assert.fail('a plan reads accounts only');
  return {
    kind: 'fake',
    capabilities,
    services: never,
    watch: never,
    read: never,
    ...(register && { put: never, remove: never }),
    ...(mayWrite !== undefined && { mayWrite }),
    close: async () => {},
  };
}

function spec(changes: object): MigrationSpec {
  const decoded = decodeSpec({ id: 'm1', from: 'old', to: 'new', services: ['default/*'], ...changes });
  return decoded.ok ? decoded.spec : assert.fail(JSON.stringify(decoded.faults));
}

/** Of two services that `old` knows; `native/` is their namespace in both. */
function plan(from: Side, to: Side, changes: object = {}, shared = false, clock = new FakeClock()): Promise<Plan> {
  const catalog: MigrationCatalog = {
    account: () => null,
    servicesOf: (source) => (source === 'old' ? ['default/a', 'default/b', 'other/c'] : []),
    toNative: (_source, service) => ({ namespace: 'native', name: service.slice(service.indexOf('/') + 1) }),
    toOurs: (_source, { name }) => `default/${name}`,
    use: () => {},
    touch: () => {},
    subscribe: () => () => {},
  };
  const adapters = new Map([
    ['old', adapter(from)],
    ['new', adapter(to)],
  ]);
  const troubles = new Map([
    ['old', from.trouble],
    ['new', to.trouble],
  ]);
  const order = spec(changes);
  return makePlan(
    {
      clock,
      spec: order,
      scope: new Scope(order, catalog),
      catalog,
      sources: { adapter: (id) => adapters.get(id) ?? null, ids: ['old', 'new'], trouble: (id) => troubles.get(id) ?? null },
      shared,
      ledger: null,
    },
    NEVER,
  );
}

describe('rights in a plan', () => {
  const denies: Side['mayWrite'] = async (keys) => [new SourceError('denied', `${keys[0]?.name}: role weir lacks WRITE`)];

  it('that are missing in the target forbid the start: which source, which code, which right', async () => {
    const { errors } = await plan({}, { mayWrite: denies });
    assert.deepEqual(errors, ['to: new (fake) takes no copies from us, SOURCE_DENIED: a: role weir lacks WRITE']);
  });

  it('that are missing in the origin forbid it as well: return copies go there', async () => {
    const { errors } = await plan({ mayWrite: denies }, {});
    assert.deepEqual(errors, ['from: old (fake) takes no return copies from us, SOURCE_DENIED: a: role weir lacks WRITE']);
  });

  it('are asked of an origin that cannot register for nothing: nothing is written there', async () => {
    const { errors } = await plan({ register: false, mayWrite: denies }, {});
    assert.deepEqual(errors, []);
  });

  it('are asked for every service in scope, in the words of the registry, at once', async () => {
    const asked: (readonly ServiceKey[])[] = [];
    const { errors } = await plan(
      {},
      {
        async mayWrite(keys) {
          asked.push(keys);
          return [];
        },
      },
    );
    assert.deepEqual(errors, []);
    assert.deepEqual(asked, [
      [
        { namespace: 'native', name: 'a' },
        { namespace: 'native', name: 'b' },
      ],
    ]);
  });

  it('that cannot be asked now are a warning, and a registry that never answers holds nobody up', async () => {
    const lost = await plan({}, { mayWrite: () => Promise.reject(new SourceError('lost', 'connection refused')) });
    assert.deepEqual(lost.errors, []);
    assert.match(lost.warnings.join(), /to: whether new takes copies from us cannot be asked now: connection refused/);
    const clock = new FakeClock();
    const silent = plan({}, { mayWrite: () => new Promise(() => {}) }, {}, false, clock);
    await clock.advance(10_000);
    assert.match((await silent).warnings.join(), /cannot be asked now: no answer within 10000 ms/);
  });
});

describe('a registry without metadata in a plan', () => {
  const lossy: Side = { keeps: ['weight'] };

  it('cannot be one of two ways, on either side, since copies have no markers there', async () => {
    for (const [from, to, which] of [
      [{}, lossy, 'new'],
      [lossy, {}, 'old'],
    ] as const) {
      const { errors } = await plan(from, to, { direction: 'twoWay' });
      assert.deepEqual(errors, [
        `direction twoWay: ${which} (fake) keeps no metadata, so that copies carry no markers there: a provider that registers there ` +
          'by itself could not be told from a copy',
      ]);
    }
  });

  it('is said with what follows for providers that move early, and for a fleet', async () => {
    const alone = await plan({}, lossy);
    assert.deepEqual(alone.errors, []);
    assert.match(alone.warnings.join('\n'), /a provider that registers there under the id of its copy is taken for the copy/);
    assert.doesNotMatch(alone.warnings.join(), /only the sidecar that writes/);
    const fleet = await plan({}, lossy, {}, true);
    assert.match(fleet.warnings.join(), /only the sidecar that writes knows what is a copy/);
  });

  it('is no matter where nothing can be written to it', async () => {
    const { warnings } = await plan({ register: false }, {});
    assert.doesNotMatch(warnings.join(), /metadata/);
  });
});

describe('a source that is not live', () => {
  it('is a warning with its state and cause', async () => {
    const { errors, warnings } = await plan({}, { trouble: 'failed: refused: no such namespace' });
    assert.deepEqual(errors, []);
    assert.ok(warnings.includes('new is failed: refused: no such namespace: nothing is written before it is live'));
  });
});
