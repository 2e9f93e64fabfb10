// The process of one upstream of the fault tests: answers by the mode that its parent sets, and writes the id of every request that it
// executes to a file before it answers, so that a SIGKILL forgets none. Started by upstream-process.ts; arguments: port, file of ids.
import { openSync, writeSync } from 'node:fs';
import { FakeUpstream, type Reply, type SeenRequest } from '../../support/upstream-farm.ts';
import type { UpstreamMode } from './upstream-process.ts';

const [port = '0', idFile = '/dev/null'] = process.argv.slice(2);
const ids = openSync(idFile, 'a');
let mode: UpstreamMode = { kind: 'ok' };
let modeSince = performance.now();

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** `?delay=250` of the target. */
function delayOf(target: string): number {
  return Number(/[?&]delay=(\d+)/.exec(target)?.[1] ?? 0);
}

/** What the mode adds. */
function delayOfMode(now: UpstreamMode): number {
  if (now.kind === 'ok') return now.delayMs ?? 0;
  if (now.kind !== 'warming') return 0;
  return now.fromMs * Math.max(0, 1 - (performance.now() - modeSince) / now.overMs);
}

async function sendInterims(reply: Reply, status: number, atOnce: number, everyMs: number): Promise<void> {
  const head = `HTTP/1.1 ${status} More\r\n\r\n`;
  reply.raw(head.repeat(atOnce));
  while (!reply.socket.destroyed && !reply.socket.writableEnded) {
    await wait(everyMs);
    reply.raw(head);
  }
}

/** What a whole answer holds: the client compares it, so that a cut or foreign body is seen. */
function bodyOf(request: SeenRequest): string {
  const size = Number(/[?&]size=(\d+)/.exec(request.target)?.[1] ?? 0);
  return `${request.id} ${'x'.repeat(size)}.`;
}

async function answer(request: SeenRequest, reply: Reply): Promise<void> {
  writeSync(ids, `${request.id} ${request.method}\n`);
  upstream.seen.length = 0;
  const now = mode;
  const delay = delayOf(request.target) + delayOfMode(now);
  if (delay > 0) await wait(delay);
  const body = bodyOf(request);
  switch (now.kind) {
    case 'ok':
    case 'warming':
      reply.send(200, body);
      return;
    case 'interim':
      await sendInterims(reply, now.status, now.atOnce, now.everyMs);
      return;
    case 'status':
      reply.send(now.status, 'no', ...(now.fields ?? []));
      return;
    case 'hang':
      return;
    case 'raw':
      reply.raw(now.bytes.replaceAll('{id}', request.id));
      if (now.next === 'end') reply.socket.end();
      if (now.next === 'reset') setTimeout(() => reply.reset(), 5);
      return;
    case 'late':
      // A whole answer, then bytes that nobody asked for.
      reply.send(200, body);
      setTimeout(() => reply.raw(now.bytes), now.afterMs);
      return;
    case 'drip':
      reply.raw(`HTTP/1.1 200 OK\r\ncontent-length: ${body.length}\r\n\r\n`);
      for (const char of body) {
        await wait(now.everyMs);
        reply.raw(char);
      }
      return;
    case 'closesIdle':
      reply.send(200, body);
      setTimeout(() => reply.socket.end(), Math.random() * now.withinMs);
  }
}

const upstream = new FakeUpstream(answer, {});
process.on('message', (next: UpstreamMode) => {
  mode = next;
  modeSince = performance.now();
  process.send?.('set');
});
process.on('disconnect', () => process.exit(0));
await upstream.listen(Number(port));
process.send?.({ port: upstream.port });
