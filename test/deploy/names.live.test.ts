// `weir check --print-names` against real etcd, Consul and Polaris, by the configuration of the README's second tour.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { availableRegistries } from '../registries/available.ts';
import { startConsul } from '../registries/consul.ts';
import { startPolaris } from '../registries/polaris.ts';
import { startEtcd } from '../registries/start.ts';
import { eventually } from '../support/eventually.ts';
import { runWeir } from '../support/run-weir.ts';

const CONFIG = join(import.meta.dirname, '../../conf/tour-three.yaml');

async function sent(url: string, method: string, body: unknown, headers: Record<string, string> = {}): Promise<void> {
  const answer = await fetch(url, {
    method,
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  });
  assert.ok(answer.ok, `${url}: ${answer.status} ${await answer.text()}`);
}

describe('names of live registries', () => {
  it('one service of three registries, its other name in one of them, and exit 1 when one is gone', {
    timeout: 120_000,
  }, async (t) => {
    const wanted = ['etcd', 'consul', 'polaris'];
    const missing = (await availableRegistries({ build: true })).filter(
      ({ name, available }) => wanted.includes(name) && !available,
    );
    if (missing.length > 0) {
      const text = missing.map(({ name, how }) => `${name}: ${how}`).join(', ');
      if (process.env['CI'] !== undefined) assert.fail(text);
      t.skip(text);
      return;
    }
    const ends: (() => Promise<unknown>)[] = [];
    try {
      const etcd = await startEtcd({ version: '3.6' });
      ends.push(() => etcd.stop());
      const consul = await startConsul();
      ends.push(() => consul.stop());
      const polaris = await startPolaris();
      ends.push(() => polaris.stop());
      const base64 = (text: string): string => Buffer.from(text).toString('base64');
      const value = '{"Op":0,"Addr":"127.0.0.1:9001"}';
      await sent(`http://${etcd.endpoint}/v3/kv/put`, 'POST', { key: base64('/services/hello/one'), value: base64(value) });
      for (const Name of ['hello', 'tour-web']) {
        await sent(`${consul.address}/v1/agent/service/register`, 'PUT', { ID: Name, Name, Address: '127.0.0.1', Port: 9001 });
      }
      const token = { 'x-polaris-token': polaris.token };
      const record = { service: 'hello', namespace: 'default', host: '127.0.0.1', port: 9001 };
      await sent(`http://${polaris.http}/naming/v1/instances`, 'POST', [record], token);

      const env = { ETCD: etcd.endpoint, CONSUL: consul.endpoint, POLARIS: polaris.grpc };
      const check = () => runWeir(['check', '-c', CONFIG, '--print-names'], env);
      await eventually(
        async () => {
          const { code, out, err } = await check();
          assert.equal(code, 0, err);
          assert.match(
            out,
            /^etcd +default\/hello +default\/hello +consul: default\/hello \(listed\), polaris: default\/hello \(listed\)$/m,
          );
          assert.match(out, /^consul +default\/tour-web +default\/web +etcd: default\/web, polaris: default\/web$/m);
          assert.match(out, /^polaris +default\/hello +default\/hello /m);
          assert.match(out, /^REGISTERING +IN etcd +IN consul +IN polaris$/m);
          assert.match(out, /^default\/web +default\/web +default\/tour-web +default\/web$/m);
        },
        30_000,
        500,
      );
      await consul.kill('SIGKILL');
      const { code, out, err } = await check();
      assert.equal(code, 1);
      assert.match(err, /^consul: consul http.*nothing listens there/m);
      assert.match(err, /^the names of consul are not known$/m);
      assert.match(out, /^etcd +default\/hello +default\/hello +consul: default\/hello, polaris: default\/hello \(listed\)$/m);
    } finally {
      for (const end of ends.reverse()) await end();
    }
  });
});
