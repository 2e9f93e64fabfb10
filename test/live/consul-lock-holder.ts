// A process that takes a lock in Consul and keeps it until it is killed. Started by live tests: `node … <address> <key>`; prints `held`.
import { makeAdapter, never } from './consul-support.ts';

const [address = '', key = ''] = process.argv.slice(2);
const store = makeAdapter(address).adapter.stateStore?.();
const lock = await store?.lock(key, 10_000, never());
if (lock !== undefined) console.log('held');
// Timers of the clock keep no process alive.
setInterval(() => {}, 60_000);
