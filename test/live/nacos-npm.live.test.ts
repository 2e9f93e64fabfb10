// The npm client `nacos` beside our adapter on a real Nacos that runs already and still has HTTP v1 (1.x to 3.1):
// WEIR_TEST_NACOS=<host:port of HTTP>. The same suite runs on the fake in adapters/nacos/npm-client.test.ts.
import { systemClock } from '../../src/kernel/clock.ts';
import { describeNpmClient, type NpmWorld } from './nacos-npm.ts';
import { generationOf } from './nacos-support.ts';

const GIVEN = process.env['WEIR_TEST_NACOS'];

async function world(): Promise<NpmWorld> {
  const address = GIVEN ?? '';
  return {
    address,
    source: { servers: [address] },
    generation: await generationOf(address),
    advance: (ms) => systemClock.sleep(ms),
    close: async () => {},
  };
}

describeNpmClient('a real Nacos', world, { skip: GIVEN === undefined ? 'no Nacos: set WEIR_TEST_NACOS=<host:port>' : false });
