// What a person reads when the address is wrong: another kind of server, TLS against plain text and the reverse, a closed gRPC port.
import assert from 'node:assert/strict';
import { createServer as createHttp, type Server } from 'node:http';
import { createServer as createHttps } from 'node:https';
import { createServer as createTcp, type Server as TcpServer } from 'node:net';
import { after, before, describe, it } from 'node:test';
import type { SourceOptions } from '../../src/adapter/contract.ts';
import { systemClock } from '../../src/kernel/clock.ts';
import { SourceError } from '../../src/model/snapshot.ts';
import { startFakeEtcd } from '../etcd/fake.ts';
import { type FakeNacos, startFakeNacos } from './fake.ts';
import { makeAdapter, PLAIN } from './fake-support.ts';

/** Self-signed for `localhost`, made for this test, of no other use. */
const KEY = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgBjIN6iwKttM/iRmW
RpdocH4kTdH4CUjsFhSj2hClMZqhRANCAAQyTh5RfBn1n17tjFfsGdChtTs9xbRm
5eUVz71a2TPAykm5R+cPFUeD/7wPgJ+iwY8mkozcrA5h+CnY/NdZtfE8
-----END PRIVATE KEY-----
`;
const CERT = `-----BEGIN CERTIFICATE-----
MIIBmzCCAUGgAwIBAgIUXSv4CT3K40WWleKr+zOB5NBraZIwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyNDIzNTUxMVoYDzIxMjYxMDMx
MjM1NTExWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQyTh5RfBn1n17tjFfsGdChtTs9xbRm5eUVz71a2TPAykm5R+cPFUeD
/7wPgJ+iwY8mkozcrA5h+CnY/NdZtfE8o28wbTAdBgNVHQ4EFgQU72t3gNlMpPET
OOCj1W+kfl6ZXtEwHwYDVR0jBBgwFoAU72t3gNlMpPETOOCj1W+kfl6ZXtEwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSAAwRQIgasq1z4D5wgl4i+TTaZPwNrSd2c0NX2c/W74gXSrEdqACIQDB
33FcginP4o8olYTOb/aXG/Q6gMZwBzR3IjFsuIW+pw==
-----END CERTIFICATE-----
`;

let fake: FakeNacos;
let other: Server;
let mail: TcpServer;
let tls: Server;

before(async () => {
  fake = await startFakeNacos('3.0.3', systemClock);
  other = createHttp((_request, response) => {
    response.writeHead(404);
    response.end('not here');
  });
  mail = createTcp((socket) => {
    socket.on('error', () => {});
    socket.write('220 mail.example ESMTP\r\n');
  });
  tls = createHttps({ key: KEY, cert: CERT }, (_request, response) => response.end('x'));
  for (const server of [other, mail, tls]) await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
});
after(async () => {
  await fake.close();
  for (const server of [other, tls]) server.closeAllConnections();
  for (const server of [other, mail, tls]) server.close();
});

function portOf(server: TcpServer): number {
  const address = server.address();
  return address !== null && typeof address === 'object' ? address.port : 0;
}

/** The failure of a first watch, as `cause: message`. */
async function failureOf(config: object, options: Partial<SourceOptions> = {}): Promise<string> {
  const { adapter } = makeAdapter(config, { clock: systemClock, options: { ...PLAIN, ...options } });
  try {
    for await (const _ of adapter.watch({ namespace: 'default', name: 'x' }, AbortSignal.timeout(30_000))) return 'it works';
    return 'it ended';
  } catch (thrown) {
    return thrown instanceof SourceError ? `${thrown.causeKind}: ${thrown.message}` : String(thrown);
  } finally {
    await adapter.close();
  }
}

describe('a source at the wrong address says what to change', () => {
  it('nothing listens: lost, with both keys named', async () => {
    assert.match(
      await failureOf({ servers: ['127.0.0.1:1'], grpcPort: 2 }),
      /^lost: .*nothing listens on its gRPC port.*servers, grpcPort/,
    );
    assert.match(await failureOf({ servers: ['127.0.0.1:1'], api: 'http' }), /^lost: .*nothing listens there: check servers/);
  });

  it('another HTTP server: malformed, no Nacos', async () => {
    const servers = [`127.0.0.1:${portOf(other)}`];
    assert.match(await failureOf({ servers, grpcPort: 2 }), /^malformed: .*is no Nacos: check servers/);
    assert.match(await failureOf({ servers, grpcPort: portOf(other) }), /^malformed: .*no gRPC: check servers and grpcPort/);
  });

  it('another gRPC server: malformed', async () => {
    const etcd = await startFakeEtcd('3.6.16', systemClock);
    const grpcPort = Number(etcd.endpoint.split(':')[1]);
    assert.match(
      await failureOf({ servers: [`127.0.0.1:${portOf(other)}`], grpcPort }),
      /^malformed: .*does not speak Nacos gRPC/,
    );
    await etcd.close();
  });

  it('a server that speaks first and something else: malformed', async () => {
    const servers = [`127.0.0.1:${portOf(mail)}`];
    assert.match(await failureOf({ servers, grpcPort: portOf(mail) }), /^malformed: .*speaks no (HTTP|gRPC)/);
  });

  it('Nacos whose gRPC port is closed: the version is named, and the port', async () => {
    assert.match(
      await failureOf({ ...fake.config, grpcPort: 2 }),
      /^lost: .*Nacos 3\.0\.3 answers over HTTP but its gRPC port 127\.0\.0\.1:2 does not: open it, or set grpcPort/,
    );
  });

  it('TLS is configured and plain text is spoken, and the reverse', async () => {
    const plain = { servers: [`https://${fake.address}`], grpcPort: fake.grpcPort };
    assert.match(await failureOf(plain), /^malformed: .*speaks plain text: write http:\/\/ in servers and remove tls/);
    const secure = { servers: [`127.0.0.1:${portOf(tls)}`], grpcPort: portOf(tls) };
    assert.match(await failureOf(secure), /^lost: .*speaks TLS, write https:\/\/ and set tls\.ca/);
  });

  it('a certificate that is not trusted, and files that are not there', async () => {
    const secure = { servers: [`https://localhost:${portOf(tls)}`], grpcPort: portOf(tls) };
    assert.match(await failureOf(secure), /^denied: .*certificate of the server is not trusted: check tls\.ca/);
    const missing = await failureOf(secure, { tls: { ca: '/nonexistent/ca.pem' } });
    assert.match(missing, /^denied: .*tls\.ca cannot be read/);
  });

  it('faults of the configuration are said without a connection', async () => {
    for (const [config, options, pattern] of [
      [{ servers: ['ftp://x'] }, {}, /server ftp:\/\/x: expected host:port/],
      [{ servers: ['127.0.0.1:65000'] }, {}, /gRPC port would be 66000: set grpcPort/],
      [{ servers: ['http://127.0.0.1:8848'] }, { tls: {} }, /says plain text but tls is set/],
      [{ servers: ['127.0.0.1'] }, { auth: { username: 'x' } }, /auth\.password is not/],
      [{ servers: [] }, {}, /configuration: servers/],
    ] as const) {
      assert.match(await failureOf(config, options), pattern);
    }
  });
});
