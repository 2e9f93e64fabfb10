// The access log: shape of a line, bounded buffer, sinks that stall or fail.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { eventually } from '../../test/support/eventually.ts';
import { FakeClock, settle } from '../../test/support/fake-clock.ts';
import { systemClock } from '../kernel/clock.ts';
import { Counter } from '../telemetry/metrics.ts';
import { AccessLog, type AccessLogSink, type AccessRecord, accessLine, MAX_BUFFERED } from './access-log.ts';
import { openAccessLogSink } from './access-log-sink.ts';

const RECORD: AccessRecord = {
  service: 'demo/hello',
  method: 'GET',
  path: '/p?token=secret',
  status: 200,
  upstream: '10.0.0.1:80',
  attempts: 1,
  error: '',
  ms: 1.23456,
  bytesIn: 0,
  bytesOut: 5,
  requestId: 'id-1',
};

class HeldSink implements AccessLogSink {
  readonly batches: string[] = [];
  done: ((written: boolean) => void) | null = null;
  closed = false;

  write(batch: string, done: (written: boolean) => void): void {
    assert.equal(this.done, null, 'two batches at once');
    this.batches.push(batch);
    this.done = done;
  }

  finish(written = true): void {
    const { done } = this;
    this.done = null;
    done?.(written);
  }

  reopen(): void {}

  close(): void {
    this.closed = true;
  }
}

test('a line has the fields of the contract and no query', () => {
  assert.deepEqual(JSON.parse(accessLine(RECORD, 0)), {
    time: '1970-01-01T00:00:00.000Z',
    service: 'demo/hello',
    method: 'GET',
    path: '/p',
    status: 200,
    upstream: '10.0.0.1:80',
    attempts: 1,
    error: '',
    ms: 1.235,
    bytesIn: 0,
    bytesOut: 5,
    requestId: 'id-1',
  });
});

test('nothing from outside can forge a line', () => {
  const line = accessLine({ ...RECORD, path: '/"\\\x85\x9b', requestId: 'a"}\n{"time":"x' }, 0);
  assert.equal(line.split('\n').length, 2);
  assert.doesNotMatch(line, /[\x80-\x9f]/);
  assert.equal(JSON.parse(line).path, '/"\\\x85\x9b');
});

test('lines are joined to batches, one with the sink at a time', async () => {
  const sink = new HeldSink();
  const log = new AccessLog(sink, new FakeClock(), new Counter());
  log.write(RECORD);
  log.write(RECORD);
  assert.equal(sink.batches.length, 0);
  await settle();
  assert.equal(sink.batches.length, 1);
  log.write(RECORD);
  await settle();
  assert.equal(sink.batches.length, 1);
  const flushed = log.flushed();
  sink.finish();
  assert.equal(sink.batches.length, 2);
  sink.finish();
  await flushed;
  assert.deepEqual(
    sink.batches.map((batch) => batch.split('\n').length - 1),
    [2, 1],
  );
});

test('a stalled sink costs lines, not memory: what exceeds the buffer is dropped and counted', async () => {
  const sink = new HeldSink();
  const dropped = new Counter();
  const log = new AccessLog(sink, new FakeClock(), dropped);
  const length = accessLine(RECORD, 1_700_000_000_000).length;
  const fit = Math.ceil(MAX_BUFFERED / length);
  log.write(RECORD);
  await settle();
  for (let i = 0; i < fit + 100; i++) log.write(RECORD);
  assert.equal(dropped.value, 100);
  sink.finish();
  assert.equal(sink.batches[1]?.split('\n').length, fit + 1);
});

test('a batch that the sink lost is counted', async () => {
  const sink = new HeldSink();
  const dropped = new Counter();
  const log = new AccessLog(sink, new FakeClock(), dropped);
  log.write(RECORD);
  log.write(RECORD);
  await settle();
  sink.finish(false);
  assert.equal(dropped.value, 2);
});

test('without a sink nothing is built; another sink takes over and the old one is closed', async () => {
  const log = new AccessLog(null, new FakeClock(), new Counter());
  assert.equal(log.enabled, false);
  log.write(RECORD);
  const first: HeldSink = new HeldSink();
  const second = new HeldSink();
  log.use(first);
  log.write(RECORD);
  log.use(second);
  assert.equal(first.batches.length, 1);
  assert.equal(first.closed, true);
  first.finish();
  log.write(RECORD);
  await settle();
  assert.equal(second.batches.length, 1);
});

test('the file sink appends, survives rotation, and closes after its last batch', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'weir-access-'));
  t.after(() => rmSync(dir, { recursive: true }));
  const path = join(dir, 'access.log');
  const log = new AccessLog(openAccessLogSink({ kind: 'file', path }, systemClock), systemClock, new Counter());
  log.write(RECORD);
  await log.flushed();
  renameSync(path, `${path}.1`);
  log.reopen();
  log.write({ ...RECORD, requestId: 'id-2' });
  await log.flushed();
  await eventually(() => readFileSync(path, 'utf8').includes('id-2'));
  assert.match(readFileSync(`${path}.1`, 'utf8'), /id-1/);
  log.use(null);
});

test('a file that cannot be opened is an error at once', () => {
  assert.throws(() => openAccessLogSink({ kind: 'file', path: '/nonexistent-dir/x.log' }, systemClock), /ENOENT/);
});
