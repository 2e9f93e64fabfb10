import assert from 'node:assert/strict';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { afterEach, describe, it } from 'node:test';
import { eventually } from './eventually.ts';
import { type FaultProxy, startFaultProxy } from './fault-proxy.ts';

describe('the fault proxy', () => {
  const ends: (() => unknown)[] = [];
  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end();
  });

  async function echo(): Promise<{ server: Server; proxy: FaultProxy }> {
    const server = createServer((socket) => {
      socket.on('error', () => {});
      socket.on('data', (chunk) => socket.write(chunk));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const address = server.address();
    assert.ok(address !== null && typeof address === 'object');
    const proxy = await startFaultProxy(`127.0.0.1:${address.port}`);
    ends.push(
      () => server.close(),
      () => proxy.close(),
    );
    return { server, proxy };
  }

  function client(proxy: FaultProxy): { socket: Socket; text: () => string; closed: () => boolean } {
    const [host = '', port = ''] = proxy.endpoint.split(':');
    const socket = connect(Number(port), host);
    let text = '';
    let closed = false;
    socket.on('data', (chunk) => {
      text += chunk;
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      closed = true;
    });
    ends.push(() => socket.destroy());
    return { socket, text: () => text, closed: () => closed };
  }

  it('passes bytes unchanged in both directions', async () => {
    const { proxy } = await echo();
    const one = client(proxy);
    one.socket.write('hello');
    await eventually(() => one.text() === 'hello');
  });

  it('cut resets what is open and takes new connections', async () => {
    const { proxy } = await echo();
    const one = client(proxy);
    one.socket.write('a');
    await eventually(() => one.text() === 'a');
    proxy.cut();
    await eventually(() => one.closed());
    const two = client(proxy);
    two.socket.write('b');
    await eventually(() => two.text() === 'b');
  });

  it('a half-open connection stays open and carries nothing, a new one works', async () => {
    const { proxy } = await echo();
    const one = client(proxy);
    one.socket.write('a');
    await eventually(() => one.text() === 'a');
    proxy.halfOpen();
    one.socket.write('b');
    const two = client(proxy);
    two.socket.write('c');
    await eventually(() => two.text() === 'c');
    assert.equal(one.text(), 'a');
    assert.equal(one.closed(), false);
  });

  it('refuse turns new connections away and accept takes them on the same port', async () => {
    const { proxy } = await echo();
    const { endpoint } = proxy;
    await proxy.refuse();
    await eventually(
      () => client(proxy).closed() || new Promise<boolean>((resolve) => client(proxy).socket.on('close', () => resolve(true))),
    );
    await proxy.accept();
    assert.equal(proxy.endpoint, endpoint);
    const one = client(proxy);
    one.socket.write('a');
    await eventually(() => one.text() === 'a');
  });

  it('delays and throttles without reordering, and cuts after the given bytes', async () => {
    const { proxy } = await echo();
    Object.assign(proxy.link, { delayMs: 30, jitterMs: 20, sliceBytes: 3, bytesPerSecond: 100_000 });
    const one = client(proxy);
    const text = 'abcdefghijklmnopqrstuvwxyz'.repeat(20);
    const begun = performance.now();
    one.socket.write(text);
    await eventually(() => one.text() === text);
    assert.ok(performance.now() - begun >= 55, 'two ways of 30 ms');
    Object.assign(proxy.link, { delayMs: 0, jitterMs: 0, sliceBytes: 0, bytesPerSecond: 0 });
    proxy.cutAfter(10);
    const two = client(proxy);
    two.socket.write('0123456789');
    await eventually(() => two.closed());
  });
});
