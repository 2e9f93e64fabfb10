import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { type FakeApi, fakeApi } from '../../test/support/api-fakes.ts';
import { runWeir } from '../../test/support/run-weir.ts';
import { WeirError } from '../kernel/errors.ts';
import type { VerifiedService, VerifyResult } from '../migrate/verify.ts';
import type { WorkerStatus } from '../migrate/worker.ts';

const worker: WorkerStatus = {
  owner: true,
  settled: true,
  services: 2,
  copies: { new: { written: 4, intent: 0, withheld: 1, removing: 0, kept: 0 } },
  queued: 0,
  lagMs: 0,
  waiting: ['old is not heard (1 services)'],
  errors: {},
};

function result(outcome: VerifyResult['outcome'], services: VerifiedService[] = []): VerifyResult {
  const summary = { outcome, at: 1, services: 1, missing: 1, extra: 0, differing: 1, unreachable: 1 };
  return { outcome, summary, services };
}

describe('weir migrate', () => {
  let fake: FakeApi;
  let address = '';
  let folder = '';
  const weir = (...args: string[]) => runWeir(['migrate', ...args], { WEIR_API: address });
  before(async () => {
    fake = await fakeApi();
    address = await fake.api.listen();
    folder = await mkdtemp(join(tmpdir(), 'weir-migrate-'));
  });
  after(async () => {
    await fake.api.close();
    await rm(folder, { recursive: true, force: true });
  });
  beforeEach(() => {
    fake.migrations.known.clear();
    fake.migrations.calls.length = 0;
    fake.migrations.refusal = null;
  });

  it('plan -f orders the migration of a file and prints what would be written', async () => {
    const file = join(folder, 'm1.yaml');
    await writeFile(file, 'id: m1\nfrom: old\nto: new\nservices: ["game/*"]\ngates: {soak: 5m}\n');
    fake.migrations.planned = {
      services: [
        {
          service: 'game/lobby',
          as: 'public/lobby',
          write: ['10.0.0.1:80'],
          skipped: ['10.0.0.2:80 is a copy of another tool'],
          losses: ['etcd keeps no health'],
          conflicts: [],
          unmapped: null,
          subscribers: null,
        },
      ],
      errors: [],
      warnings: ['this sidecar only'],
    };
    const { code, out } = await weir('plan', 'm1', '-f', file);
    assert.equal(code, 0);
    assert.match(out, /^game\/lobby +public\/lobby +1 +1 +0 +etcd keeps no health +\?$/m);
    assert.match(out, /^note: game\/lobby: 10\.0\.0\.2:80 is a copy of another tool$/m);
    assert.match(out, /^Nothing is written yet: weir migrate start m1$/m);
    const [, order] = fake.migrations.calls[0] as [string, { gates: { soak: number } }];
    assert.equal(order.gates.soak, 300_000);
  });

  it('a file that is no order is exit 2 with every fault, and nothing is asked', async () => {
    const file = join(folder, 'bad.yaml');
    await writeFile(file, 'id: m1\nfrom: old\nto: old\nservices: []\n');
    const { code, err } = await weir('plan', 'm1', '-f', file);
    assert.equal(code, 2);
    assert.match(err, /services: expected/);
    await writeFile(file, 'id: other\nfrom: old\nto: new\nservices: ["a/b"]\n');
    assert.match((await weir('plan', 'm1', '-f', file)).err, /orders the migration other, not m1/);
    assert.deepEqual(fake.migrations.calls, []);
  });

  it('start shows progress until the copies are written', async () => {
    fake.migrations.put({ phase: 'mirror' }, { worker });
    const { code, out } = await weir('start', 'm1');
    assert.equal(code, 0);
    assert.match(out, /^100 %; copies: new 4 written 1 withheld$/m);
    assert.match(out, /^m1: old → new, mirror$/m);
    assert.match(out, /^ {2}waits for old is not heard \(1 services\)$/m);
  });

  it('start never says 100 % while a side is not there, and waits for it no longer than a few seconds', async () => {
    const trouble = 'new, which is failed: refused: no such namespace';
    const copies = { new: { written: 0, intent: 0, withheld: 0, removing: 0, kept: 0 } };
    fake.migrations.put({ phase: 'mirror' }, { worker: { ...worker, settled: false, copies, waiting: [trouble] } });
    const { code, out } = await weir('start', 'm1');
    assert.equal(code, 0);
    assert.doesNotMatch(out, /100 %/);
    assert.match(out, /^0 %; copies/m);
    assert.match(out, /^Not everything is written yet; the sidecar goes on by itself\.$/m);
    assert.match(out, /^ {2}waits for new, which is failed: refused: no such namespace$/m);
  });

  it('every step is passed on, and --json prints the answer as it came', async () => {
    fake.migrations.put({ phase: 'shift', weight: 40 });
    assert.match((await weir('shift', 'm1', '--weight', '40')).out, /^m1: old → new, shift 40 %$/m);
    for (const [args, call] of [
      [['cutover', 'm1'], { kind: 'cutover' }],
      [['rollback', 'm1'], { kind: 'rollback' }],
      [['finish', 'm1', '--keep-copies'], { kind: 'finish', keepCopies: true }],
      [['abort', 'm1', '--force'], { kind: 'abort', force: true }],
    ] as const) {
      assert.equal((await weir(...args)).code, 0);
      assert.deepEqual(fake.migrations.calls.at(-1), ['m1', call]);
    }
    assert.equal(JSON.parse((await weir('status', 'm1', '--json')).out).fleet.shared, false);
    assert.equal((await weir('forget', 'm1', 'host-3')).code, 0);
    assert.equal((await weir('collect', 'm1')).code, 0);
    assert.match((await weir('freeze')).out, /No migration writes any more: 1 known/);
    assert.deepEqual(fake.migrations.calls.at(-1), ['freeze', true]);
    await weir('freeze', '--off');
    assert.deepEqual(fake.migrations.calls.at(-1), ['freeze', false]);
  });

  it('a refusal is exit 1 with every reason on a line of its own', async () => {
    fake.migrations.put();
    const missing = ['10.0.0.1:80 is a copy', 'sidecar b has not reported'];
    fake.migrations.refusal = new WeirError('MIGRATION_PHASE', 'finish: 10.0.0.1:80 is a copy (and 1 more)', {
      details: { missing },
    });
    const { code, err } = await weir('finish', 'm1');
    assert.equal(code, 1);
    assert.match(err, /^MIGRATION_PHASE: finish/);
    assert.match(err, /^ {2}- sidecar b has not reported$/m);
    assert.equal((await weir('status', 'none')).code, 1);
  });

  it('verify is exit 0, 3 or 4, and says what differs', async () => {
    fake.migrations.put();
    fake.migrations.verified = result('ok');
    assert.equal((await weir('verify', 'm1')).code, 0);
    const one: VerifiedService = {
      service: 'game/lobby',
      outcome: 'unsafe',
      missing: ['10.0.0.1:80'],
      extra: [],
      differing: [{ address: '10.0.0.2:80', field: 'weight', from: '100', to: '10' }],
      health: [],
      unreachable: [{ address: '10.0.0.3:80', reason: 'ECONNREFUSED' }],
      readAgeMs: { from: 1, to: 1 },
      error: null,
    };
    fake.migrations.verified = result('drift');
    assert.equal((await weir('verify', 'm1')).code, 3);
    fake.migrations.verified = result('unsafe', [one]);
    const { code, out } = await weir('verify', 'm1');
    assert.equal(code, 4);
    assert.match(out, /missing +10\.0\.0\.1:80/);
    assert.match(out, /differs +10\.0\.0\.2:80 weight: 100 → 10/);
    assert.match(out, /unreachable +10\.0\.0\.3:80: ECONNREFUSED/);
    assert.equal((await weir('verify', 'm1', '--last', '--json')).code, 4);
  });

  it('status lists all, broken ones with their reason', async () => {
    fake.migrations.put({ phase: 'mirror' }, { worker });
    fake.migrations.known.set('m2', { ...fake.migrations.put(), id: 'm2', doc: null, broken: 'm2.json: version 2' });
    const { out } = await weir('status');
    assert.match(out, /^m2 +old +new +broken .*m2\.json: version 2$/m);
  });
});
