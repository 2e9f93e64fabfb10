// A process with a watch, a list, a lease and a lock open on etcd; started by etcd-operations.live.test.ts. Prints `ready`, closes at
// the first byte on its standard input, and must then end by itself.
import { makeAdapter, never } from './etcd-support.ts';

const { adapter } = makeAdapter([process.argv[2] ?? '']);
const key = { namespace: 'default', name: 'svc' };
const first = Promise.withResolvers<void>();
const ended = (async () => {
  for await (const _ of adapter.watch(key, never())) first.resolve();
})();
const listed = (async () => {
  for await (const _ of adapter.services?.(never()) ?? []);
})();
// What a frozen server does to them is not the matter here.
for (const one of [ended, listed]) one.catch(() => {});
await first.promise;
const instance = {
  id: 'a',
  host: '10.0.0.1',
  port: 80,
  transport: 'tcp',
  weight: 100,
  health: 'healthy',
  isolated: false,
  metadata: new Map(),
} as const;
await adapter.put?.([{ key, instance }], { as: 'own', ttl: 60_000, liveness: 'beat' }, never());
await adapter.stateStore?.().lock('lead', 6_000, never());
console.log('ready');
await new Promise<void>((resolve) => process.stdin.once('data', () => resolve()));
process.stdin.destroy();
await adapter.close();
await Promise.allSettled([ended, listed]);
