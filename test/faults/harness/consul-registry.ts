// A fake Consul that holds instances of `default/hello` and can be made to misbehave. Called by the fault tests of registries.
import { FakeConsul } from '../../../adapters/consul/fake.ts';
import { AGENT_NODE } from '../../../adapters/consul/fake-store.ts';
import { systemClock } from '../../../src/kernel/clock.ts';
import type { FaultBench } from './bench.ts';

/** Lines of `sources:` for a Consul at this address. */
export function consulSource(address: string, id = 'consul', more = ''): string {
  return `  - {id: ${id}, kind: consul, address: "${address}", allowLoopback: true, timeout: 1s${more}}\n`;
}

export async function fakeConsul(bench: FaultBench) {
  const fake = new FakeConsul(systemClock);
  await fake.listen();
  bench.defer(() => fake.close());
  return {
    fake,
    source: (id = 'consul', more = '') => consulSource(fake.address, id, more),
    put(id: string, port: number, service = 'hello'): void {
      fake.store.setService(AGENT_NODE, { ID: `${service}-${id}`, Service: service, Address: '127.0.0.1', Port: port });
    },
    /** What it answers now, as text. */
    async body(path: string, token = ''): Promise<string> {
      const answer = await fetch(`${fake.address}${path}`, { headers: token === '' ? {} : { 'x-consul-token': token } });
      return answer.text();
    },
  };
}
