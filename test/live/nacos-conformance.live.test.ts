// The conformance suite of all adapters on a real Nacos that runs already: WEIR_TEST_NACOS=<host:port of HTTP>, gRPC on port + 1000.
// Nacos is no Go module and is built nowhere in CI: without the variable these tests are skipped, there too.
import { after, before, describe, it } from 'node:test';
import { splitHostPort } from '../../src/kernel/address.ts';
import { describeAdapter } from '../conformance/adapter.ts';
import { type Front, generationOf, liveHarness, Raw, startFront } from './nacos-support.ts';

const GIVEN = process.env['WEIR_TEST_NACOS'];
const server = GIVEN ?? '127.0.0.1:8848';
const generation = GIVEN === undefined ? 3 : await generationOf(GIVEN);

describe('real Nacos', { skip: GIVEN === undefined ? 'no Nacos: set WEIR_TEST_NACOS=<host:port>' : false }, () => {
  let front: Front;
  before(async () => {
    front = await startFront(server, (splitHostPort(server)?.port ?? 0) + 1_000);
  });
  after(() => front?.close());
  describeAdapter({ name: 'nacos over gRPC', make: () => liveHarness(front, new Raw(server, true), {}, false) });
  if (generation < 3) it('names by fuzzy watch', { skip: `a ${generation}.x has no fuzzy watch` });
  else
    describeAdapter({
      name: 'nacos over gRPC, names by fuzzy watch',
      make: () => liveHarness(front, new Raw(server, true), { list: 'fuzzy' }, false),
    });
  describeAdapter({
    name: 'nacos over HTTP alone',
    make: () => liveHarness(front, new Raw(server, true), { api: 'http' }, false),
    skip: [
      {
        test: 'what is thrown when the registry is cut is a SourceError of cause lost',
        reason: 'between two polls there is no connection to cut',
      },
    ],
  });
});
