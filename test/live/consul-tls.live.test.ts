// TLS, mutual TLS and HTTP/2 to a real Consul, and what is said when the other side is not what the address claims.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe } from 'node:test';
import { createServer, type Server } from 'node:tls';
import type { SourceOptions } from '../../src/adapter/contract.ts';
import { asSourceError } from '../../src/model/snapshot.ts';
import { sampleInstance } from '../conformance/adapter.ts';
import { type ConsulServer, consulBinary, startConsul } from '../registries/consul.ts';
import { startEtcd } from '../registries/start.ts';
import { eventually } from '../support/eventually.ts';
import { startFaultProxy } from '../support/fault-proxy.ts';
import { type Certificates, makeCertificates } from './consul-certificates.ts';
import { itLive, key, makeAdapter, never, PLAIN, Raw, Rig, withCleanup } from './consul-support.ts';

type Tls = NonNullable<SourceOptions['tls']>;

let certificates: Certificates;
let server: ConsulServer;
let raw: Raw;

const { path, how } = await consulBinary(true);
const absent = path === null && process.env['CI'] === undefined ? `no Consul: ${how}` : false;

describe('consul, real server with TLS and client certificates', { skip: absent, concurrency: 4 }, () => {
  before(async () => {
    certificates = await makeCertificates();
    server = await startConsul({ tls: { ...certificates, verify: true }, data: true });
    raw = new Raw(server.plainAddress);
    await raw.register('web', sampleInstance(1));
  });
  after(async () => {
    await server?.stop();
    await certificates?.remove();
  });

  /** What a read through this address says: `ok`, or cause and text. */
  async function says(address: string, tls: Tls | null): Promise<string> {
    const { adapter } = makeAdapter(address, { ...PLAIN, tls });
    try {
      const snapshot = await adapter.read(key('web'), never());
      return snapshot.kind === 'present' && snapshot.instances.length === 1 ? 'ok' : snapshot.kind;
    } catch (thrown) {
      const { causeKind, message } = asSourceError(thrown);
      return `${causeKind}: ${message}`;
    } finally {
      await adapter.close();
    }
  }

  itLive('a client certificate lets us in, with the server checked against ca', 20_000, async () => {
    const { ca, cert, key: own } = certificates;
    assert.equal(await says(server.address, { ca, cert, key: own }), 'ok');
  });

  itLive(
    'without a client certificate, or with an untrusted server, or another name: what to change is said',
    20_000,
    async () => {
      const { ca, cert, key: own, otherCa, otherNameCert, otherNameKey } = certificates;
      assert.match(await says(server.address, { ca }), /^denied: .*did not accept our side of TLS: check tls\.cert and tls\.key/);
      assert.match(await says(server.address, { ca: otherCa, cert, key: own }), /^denied: .*not trusted: check tls\.ca/);
      assert.match(await says(server.address, { cert, key: own }), /^denied: .*not trusted: check tls\.ca/);
      assert.match(
        await says(server.address, { ca, cert, key: own, serverName: 'elsewhere.test' }),
        /^denied: .*for another name: set tls\.serverName/,
      );
      assert.match(await says(server.address, { ca: '/nowhere/ca.pem' }), /^denied: .*tls\.ca cannot be read/);
      await withCleanup(async (defer) => {
        const named = await startConsul({ tls: { ca, cert: otherNameCert, key: otherNameKey } });
        defer(() => named.stop());
        await new Raw(named.plainAddress).register('web', sampleInstance(1));
        assert.match(await says(named.address, { ca }), /^denied: .*for another name: set tls\.serverName/);
        assert.equal(await says(named.address, { ca, serverName: 'elsewhere.test' }), 'ok');
      });
    },
  );

  itLive('plain HTTP to the TLS port, TLS to the plain port, and ports of another kind are told in words', 30_000, () =>
    withCleanup(async (defer) => {
      const { ca, cert, key: own } = certificates;
      const tls = { ca, cert, key: own };
      const other = (from: string, scheme: string): string => from.replace(/^https?/, scheme);
      assert.match(await says(other(server.address, 'http'), null), /^malformed: .*speaks TLS: write https/);
      assert.match(await says(other(server.plainAddress, 'https'), tls), /^malformed: .*speaks plain text: write http:/);
      assert.match(await says(`http://${server.rpcEndpoint}`, null), /^(malformed|lost): .*(is address|connection failed)/);
      const etcd = await startEtcd({ version: '3.6' });
      defer(() => etcd.stop());
      assert.match(await says(`http://${etcd.endpoint}`, null), /^malformed: .*is address a Consul agent's HTTP port/);
      assert.match(await says(`https://${etcd.endpoint}`, tls), /^lost: .*does this port speak TLS/);
    }),
  );

  itLive('a server that offers no HTTP/2 in the handshake is spoken to by HTTP/1.1', 20_000, () =>
    withCleanup(async (defer) => {
      // TLS ends here without any ALPN; the plain port of Consul stands behind it.
      const front = await frontFor(server.plainAddress, certificates);
      defer(() => front.close());
      const { ca } = certificates;
      assert.equal(await says(front.address, { ca }), 'ok');
      const rig = new Rig(makeAdapter(front.address, { ...PLAIN, tls: { ca } }));
      defer(() => rig.close());
      await raw.register('plainly', sampleInstance(1));
      await eventually(() => rig.addresses('plainly').length === 1, 20_000, 20);
      await raw.register('plainly', sampleInstance(2));
      await eventually(() => rig.addresses('plainly').length === 2, 20_000, 20);
    }),
  );

  itLive('over HTTP/2 a cut and a dead link lose nothing, and both are found without a restart', 90_000, () =>
    withCleanup(async (defer) => {
      const { ca, cert, key: own } = certificates;
      const proxy = await startFaultProxy(server.endpoint);
      defer(() => proxy.close());
      const rig = new Rig(makeAdapter(`https://${proxy.endpoint}`, { ...PLAIN, tls: { ca, cert, key: own } }));
      defer(() => rig.close());
      await eventually(() => rig.addresses('web').length === 1, 20_000, 20);
      assert.ok(proxy.open <= 2, `${proxy.open} connections`);
      proxy.cut();
      await raw.register('web', sampleInstance(7));
      await eventually(() => rig.addresses('web').length === 2, 20_000, 20);
      proxy.halfOpen();
      await raw.register('web', sampleInstance(8));
      await eventually(() => rig.addresses('web').length === 3, 40_000, 50);
      await eventually(() => rig.state === 'live', 30_000, 50);
      assert.deepEqual(rig.shrinks, []);
    }),
  );
});

/** TLS without ALPN in front of a plain address. */
async function frontFor(target: string, { cert, key: own }: Certificates): Promise<{ address: string; close(): Promise<void> }> {
  const { connect } = await import('node:net');
  const { hostname, port } = new URL(target);
  const open = new Set<{ destroy(): unknown }>();
  const front: Server = createServer({ cert: await readFile(cert), key: await readFile(own) }, (socket) => {
    const back = connect(Number(port), hostname);
    for (const one of [socket, back]) {
      open.add(one);
      one.on('error', () => {});
    }
    socket.on('close', () => back.destroy());
    back.on('close', () => socket.destroy());
    socket.pipe(back).pipe(socket);
  });
  await new Promise<void>((resolve) => front.listen(0, '127.0.0.1', resolve));
  const address = front.address();
  return {
    address: `https://127.0.0.1:${address !== null && typeof address === 'object' ? address.port : 0}`,
    async close() {
      for (const one of open) one.destroy();
      await new Promise<void>((resolve) => front.close(() => resolve()));
    },
  };
}
