// An open-loop load generator: requests leave at a constant rate whatever the answers do, and a latency counts from the moment at
// which its request was due, so that a stall is not hidden (coordinated omission). Run as a process of its own by proxies.ts.
// Arguments: port host path rate connections seconds. Prints one line of JSON.
import { connect, type Socket } from 'node:net';

const [port = '0', host = '', path = '/', rateText = '1000', connectionsText = '32', secondsText = '5'] = process.argv.slice(2);
const rate = Number(rateText);
const seconds = Number(secondsText);
const request = Buffer.from(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`, 'latin1');
const latencies = new Float64Array(Math.ceil(rate * seconds * 1.1) + 1_000);
let answered = 0;
let failed = 0;

interface Line {
  readonly socket: Socket;
  dueAt: number;
  need: number;
  head: string;
}

const idle: Line[] = [];
const waiting: number[] = [];
let waitingFrom = 0;

function send(line: Line, dueAt: number): void {
  line.dueAt = dueAt;
  line.need = -1;
  line.head = '';
  line.socket.write(request);
}

function finished(line: Line): void {
  latencies[answered++] = performance.now() - line.dueAt;
  const next = waiting[waitingFrom];
  if (next === undefined) idle.push(line);
  else {
    waitingFrom++;
    send(line, next);
  }
}

function received(line: Line, chunk: Buffer): void {
  let body = chunk.length;
  if (line.need < 0) {
    line.head += chunk.toString('latin1');
    const end = line.head.indexOf('\r\n\r\n');
    if (end < 0) return;
    const length = /\r\ncontent-length: *(\d+)/i.exec(line.head.slice(0, end + 2));
    if (!line.head.startsWith('HTTP/1.1 200') || length === null) failed++;
    line.need = Number(length?.[1] ?? 0);
    body = line.head.length - end - 4;
  }
  line.need -= body;
  if (line.need <= 0) finished(line);
}

async function open(): Promise<void> {
  const socket = connect({ port: Number(port), host: '127.0.0.1', noDelay: true });
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve);
    socket.once('error', reject);
  });
  const line: Line = { socket, dueAt: 0, need: -1, head: '' };
  socket.on('data', (chunk) => received(line, chunk));
  socket.on('error', () => failed++);
  idle.push(line);
}

for (let i = 0; i < Number(connectionsText); i++) await open();
const start = performance.now();
let issued = 0;
await new Promise<void>((resolve) => {
  const tick = (): void => {
    const now = performance.now();
    const due = Math.min(Math.floor(((now - start) / 1_000) * rate), rate * seconds);
    for (; issued < due; issued++) {
      const dueAt = start + (issued / rate) * 1_000;
      const line = idle.pop();
      if (line === undefined) waiting.push(dueAt);
      else send(line, dueAt);
    }
    if (now - start < seconds * 1_000 + 2_000 && answered < rate * seconds) setImmediate(tick);
    else resolve();
  };
  tick();
});
// The first fifth is warm-up of the connections and of the compiler of whoever needs one.
const measured = latencies.subarray(Math.floor(answered / 5), answered).sort();
const at = (q: number): number => measured[Math.min(measured.length - 1, Math.floor(measured.length * q))] ?? Number.NaN;
console.log(JSON.stringify({ rate, answered, failed, p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1) }));
process.exit(0);
