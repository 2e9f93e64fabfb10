// Holds docs/names.md: every example is a configuration that `weir check` takes, and says of names what the page says.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { adapterLoader } from '../../src/app/loader.ts';
import { surroundings } from '../../src/app/process-facts.ts';
import { Names, type SourceNames } from '../../src/catalog/names.ts';
import { silentLog } from '../../src/kernel/log.ts';
import { seededRandom } from '../../src/kernel/random.ts';
import { type ServiceId, serviceId } from '../../src/model/service.ts';
import { SettingsLoader } from '../../src/settings/load.ts';
import { FakeClock } from '../support/fake-clock.ts';

const page = await readFile(join(import.meta.dirname, '../../docs/names.md'), 'utf8');

/** The names of an example, as a sidecar with that configuration would have them. */
async function namesOf(heading: string): Promise<Names> {
  const text = page.slice(page.indexOf(`### ${heading}`)).match(/```yaml\n([\s\S]*?)```/)?.[1];
  assert.ok(text, heading);
  const loader = adapterLoader();
  const loaded = await new SettingsLoader(loader, surroundings()).load(Buffer.from(text), 'weir.yaml');
  assert.ok(loaded.ok, JSON.stringify(loaded));
  assert.deepEqual(loaded.warnings, []);
  const sources = new Map<string, SourceNames>();
  for (const { id, kind, config, options, asNamespace } of loaded.settings.sources) {
    const factory = await loader.load(kind);
    assert.ok(factory);
    const deps = {
      sourceId: id,
      clock: new FakeClock(),
      random: seededRandom(1),
      dial: () => null,
      log: silentLog,
      count: () => {},
    };
    const adapter = factory.create(config, options, deps);
    sources.set(id, { as: asNamespace, ...(adapter.namespaces === undefined ? {} : { namespaces: adapter.namespaces }) });
    await adapter.close();
  }
  return new Names({ sources, rules: loaded.settings.names });
}

/** heading, then for each source: native → ours; both ways. `null`: no name there for writing. */
const ROWS: readonly [heading: string, rows: readonly (readonly [source: string, native: string | null, ours: ServiceId])[]][] = [
  [
    'Consul: two datacenters',
    [
      ['sz', 'default/web', 'default/web'],
      ['gz', 'default/web', 'default/web'],
      ['bj', 'default/web', 'bj/web'],
    ],
  ],
  [
    'Consul Enterprise',
    [
      ['team-a', 'team-a/web', 'team-a/web'],
      ['team-b', 'default/web', 'west/web'],
      ['team-a', null, 'west/web'],
    ],
  ],
  [
    'Nacos',
    [
      ['nacos', '3f2a7c1e/GAME_GROUP@@lobby', 'game/lobby'],
      ['nacos', '3f2a7c1e/cart', 'shop/cart'],
      ['nacos', null, 'default/cart'],
    ],
  ],
  [
    'Polaris',
    [
      ['polaris', 'Production/web', 'default/web'],
      ['polaris', 'Test/web', 'test/web'],
      ['polaris', null, 'stage/web'],
    ],
  ],
  [
    'etcd',
    [
      ['grpc', 'default/web', 'default/web'],
      ['games', 'game/lobby', 'game/lobby'],
      ['own', 'shop/cart', 'shop/cart'],
      ['grpc', null, 'game/lobby'],
    ],
  ],
  ['CL5/L5', [['cl5', 'default/192002625:487373', 'game/lobby']]],
  [
    'One service',
    [
      ['cl5', 'default/192002625:487373', 'game/lobby'],
      ['nacos', 'default/GAME_GROUP@@lobby', 'game/lobby'],
      ['consul', 'default/game-lobby', 'game/lobby'],
    ],
  ],
];

describe('docs/names.md', () => {
  for (const [heading, rows] of ROWS) {
    it(`the example "${heading}" maps as it says, both ways`, async () => {
      const names = await namesOf(heading);
      for (const [source, native, ours] of rows) {
        const written = names.toWrite(source, ours);
        assert.equal(written === null ? null : serviceId(written), native, `${ours} in ${source}`);
        if (written !== null) assert.equal(names.toOurs(source, written), ours, `${native} of ${source}`);
      }
    });
  }

  it('has no example that is not held here', () => {
    const headings = [...page.slice(page.indexOf('## Examples')).matchAll(/^### (.*)$/gm)].map(([, heading = '']) => heading);
    for (const heading of headings)
      assert.ok(
        ROWS.some(([known]) => heading.startsWith(known)),
        heading,
      );
  });
});
