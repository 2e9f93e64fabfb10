// A data plane in a process of its own that listens on the descriptor 3 it inherited; for the hand-over test.
// Arguments: the port of the descriptor, the port of the upstream.
import { MAIN_LISTENER, ProxyRig } from './proxy-rig.ts';

const [port, upstream] = process.argv.slice(2).map(Number);
const listen = { host: '127.0.0.1', port: port ?? 0 };
const rig = await new ProxyRig({
  deps: { inherited: (asked) => (asked.port === listen.port ? 3 : null) },
  proxy: { listeners: [{ ...MAIN_LISTENER, listen }] },
}).open();
rig.serve([upstream ?? 0]);
process.stdout.write('ready\n');
