// A data plane that listens on the descriptor 3 it inherited; SIGUSR2: starts its successor on the same descriptor; SIGTERM: drains.
// Started by hand-over.ts. Arguments: the port of the descriptor, ports of the upstreams.
import { spawn } from 'node:child_process';
import { MAIN_LISTENER, ProxyRig } from '../../support/proxy-rig.ts';

const [port = '0', upstreams = ''] = process.argv.slice(2);
const listen = { host: '127.0.0.1', port: Number(port) };
const rig = await new ProxyRig({
  deps: { inherited: (asked) => (asked.port === listen.port ? 3 : null) },
  proxy: { listeners: [{ ...MAIN_LISTENER, listen }] },
}).open();
rig.serve(upstreams.split(',').map(Number), {}, 'default/hello');
process.once('SIGUSR2', () => {
  spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], { stdio: ['ignore', 1, 2, 3] }).unref();
});
process.once('SIGTERM', () => {
  void rig.plane.drain().then(() => process.stdout.write(`drained ${process.pid}\n`, () => process.exit(0)));
});
process.stdout.write(`ready ${process.pid}\n`);
