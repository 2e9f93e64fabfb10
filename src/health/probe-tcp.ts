// Owns the TCP check: a connect that is accepted passes. Called by the prober through the Probe port.
// Must never send a byte, nor keep a connection.
import { connect } from 'node:net';
import { dialAddress, type Resolve, systemResolve } from './dial-address.ts';
import { failed, PASS, type Probe, type ProbeResult, type ProbeRun, type ProbeTarget, reasonOf } from './probe.ts';

export class TcpProbe implements Probe {
  readonly #resolve: Resolve;

  constructor(resolve: Resolve = systemResolve) {
    this.#resolve = resolve;
  }

  async run(target: ProbeTarget, { signal, dial }: ProbeRun): Promise<ProbeResult> {
    try {
      const address = await dialAddress(target.host, target.port, dial, this.#resolve, signal);
      await connectOnce(address, target.port, signal);
      return PASS;
    } catch (thrown) {
      return failed(reasonOf(thrown));
    }
  }

  drop(): void {}

  async close(): Promise<void> {}
}

function connectOnce(host: string, port: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(signal.reason);
      return;
    }
    const socket = connect({ host, port });
    const end = (settle: () => void): void => {
      signal.removeEventListener('abort', onAbort);
      // A reset would look like a fault to the other side; close says goodbye.
      socket.destroy();
      settle();
    };
    const onAbort = (): void => end(() => reject(signal.reason));
    signal.addEventListener('abort', onAbort, { once: true });
    socket.once('connect', () => end(resolve));
    socket.on('error', (thrown) => end(() => reject(thrown)));
  });
}
