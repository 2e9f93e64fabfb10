// Drain (proxy-semantics §17) over real sockets: nothing that was accepted is lost, and it ends in time.
import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { eventually } from '../support/eventually.ts';
import { assertFigure } from '../support/figure.ts';
import { ProxyRig, RawClient, request } from '../support/proxy-rig.ts';
import { hang, type Script } from '../support/upstream-farm.ts';

let rig: ProxyRig;

beforeEach(async () => {
  rig = await new ProxyRig().open();
});

afterEach(() => rig.close());

/** Answers after as many ms as the path says. */
const slow: Script = (seen, reply) => {
  setTimeout(() => reply.send(200, 'done'), Number(seen.target.slice(1)));
};

test('200 requests in flight of 0 to 2 s: none fails, and the drain ends soon after the longest', async (t) => {
  const up = await rig.farm.add(slow);
  rig.serve([up.port]);
  const asked = Array.from({ length: 200 }, (_, i) => rig.get(`/${i * 10}`));
  await eventually(() => assert.equal(up.seen.length, 200));
  const before = performance.now();
  const [responses] = await Promise.all([Promise.all(asked), rig.plane.drain()]);
  const took = performance.now() - before;
  assert.deepEqual(
    responses.filter(({ status, complete }) => status !== 200 || !complete),
    [],
  );
  assertFigure(t, 'drain', took, 3_000, 'ms');
  assert.equal(rig.plane.counts().connections, 0);
});

test('keep-alive clients that go on through the drain lose nothing: they are told to close and find the listener while it lasts', async () => {
  const up = await rig.farm.add(slow);
  rig.serve([up.port]);
  let failed = 0;
  let answered = 0;
  let stop = false;
  const { port } = rig;
  const one = async (): Promise<void> => {
    let client: RawClient | null = null;
    while (!stop) {
      if (client === null) {
        client = new RawClient(port);
        // Refused: the listener is closed, a client goes elsewhere; nothing was lost.
        if (
          !(await client.connected.then(
            () => true,
            () => false,
          ))
        )
          return;
      }
      client.write(request('GET', '/5'));
      const response = await client.response().catch(() => null);
      if (response?.status === 200 && response.complete) answered++;
      else failed++;
      if (response === null || response.fields.get('connection')?.[0] === 'close') {
        client.destroy();
        client = null;
      } else await new Promise<void>((resolve) => setTimeout(resolve, 20));
    }
    client?.destroy();
  };
  const clients = Array.from({ length: 20 }, one);
  await eventually(() => assert.ok(answered > 100));
  await rig.plane.drain();
  stop = true;
  await Promise.all(clients);
  assert.equal(failed, 0);
  assert.ok(answered > 100);
});

test('idle keep-alive connections end the lame duck after 1.5 s; without any it ends at once', async (t) => {
  const up = await rig.farm.add(slow);
  rig.serve([up.port]);
  const idle = await rig.client();
  idle.write(request('GET', '/0'));
  await idle.response();
  const before = performance.now();
  await rig.plane.drain();
  const took = performance.now() - before;
  assert.ok(took >= 1_450, `took ${took} ms`);
  assertFigure(t, 'lame duck', took, 2_500, 'ms');
  await idle.waitClosed();
  // A machine can be late once; a wait that is built in is there each time.
  const waits: number[] = [];
  for (let n = 0; n < 3; n++) {
    const other = await new ProxyRig().open();
    const at = performance.now();
    await other.plane.drain();
    waits.push(performance.now() - at);
    await other.close();
  }
  assert.ok(Math.min(...waits) < 700, waits.join(' '));
});

test('during the lame duck new connections are accepted and answered with Connection: close', async () => {
  const up = await rig.farm.add(slow);
  rig.serve([up.port]);
  const idle = await rig.client();
  idle.write(request('GET', '/0'));
  await idle.response();
  const drained = rig.plane.drain();
  const response = await rig.get('/0');
  assert.deepEqual([response.status, response.fields.get('connection')], [200, ['close']]);
  idle.write(request('GET', '/0'));
  assert.deepEqual((await idle.response()).fields.get('connection'), ['close']);
  await drained;
  await assert.rejects(new RawClient(rig.port).connected);
});

test('a request whose head is half there when accepting stops is still answered', async () => {
  const up = await rig.farm.add(slow);
  rig.serve([up.port]);
  const client = await rig.client();
  const head = request('GET', '/0');
  client.write(head.slice(0, 20));
  await eventually(() => assert.equal(rig.plane.counts().connections, 1));
  const { port } = rig;
  const drained = rig.plane.drain();
  await eventually(() => assert.rejects(new RawClient(port).connected));
  client.write(head.slice(20));
  assert.equal((await client.response()).status, 200);
  await drained;
});

test('a second call is a hard stop: who waits is told DRAINING, the rest is cut', async () => {
  const up = await rig.farm.add((seen, reply) => {
    if (seen.target === '/started') reply.raw('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc');
  });
  rig.serve([up.port]);
  const waiting = rig.get('/waiting');
  const started = await rig.client();
  started.write(request('GET', '/started'));
  await eventually(() => assert.equal(up.seen.length, 2));
  const before = performance.now();
  const first = rig.plane.drain();
  const second = rig.plane.drain();
  await Promise.all([first, second]);
  assert.ok(performance.now() - before < 10_000, 'not after the grace of 30 s');
  const told = await waiting;
  assert.deepEqual([told.status, told.fields.get('x-weir-error')], [503, ['DRAINING']]);
  assert.equal((await started.response()).complete, false);
  await eventually(() => assert.equal(up.open, 0));
});

test('close cuts everything at once', async () => {
  const up = await rig.farm.add(hang);
  rig.serve([up.port]);
  const client = await rig.client();
  client.write(request('GET', '/'));
  await eventually(() => assert.equal(up.seen.length, 1));
  rig.plane.close();
  await client.waitClosed();
  await eventually(() => assert.deepEqual([up.open, rig.plane.counts().connections], [0, 0]));
});
