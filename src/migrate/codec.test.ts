// What a store keeps of a migration comes back as it was, and what another version wrote is never guessed at.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ledgerEntry, ledgerPage, migrationDoc, sidecarReport } from '../../test/support/migration-fixture.ts';
import { decodeDoc, decodePage, decodeReport, encodeDoc, encodePage, encodeReport, isEmptyPage } from './codec.ts';
import type { LedgerPage, MigrationDoc } from './migration.ts';

const throughJson = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

function reasonOf(read: { ok: true } | { ok: false; reason: string }): string {
  return read.ok ? 'it was read' : read.reason;
}

describe('the stored form of a migration', () => {
  it('gives a document back whole, maps and sets and odd names included', () => {
    for (const doc of [
      migrationDoc('move-1'),
      migrationDoc('move-2', { stopped: null, lastVerify: null, okSince: 9, startedAt: null, phase: 'plan', frozen: false }),
    ]) {
      assert.deepEqual(decodeDoc(throughJson(encodeDoc(doc))), { ok: true, value: doc });
    }
  });

  it('gives pages and reports back whole', () => {
    const page: LedgerPage = {
      service: 'größe/a b',
      baseline: null,
      entries: [
        ledgerEntry('größe/a b', 1, { state: 'intent', receipt: null, applied: '', shown: 'x1' }),
        ledgerEntry('größe/a b', 65_535, {
          state: 'kept',
          transport: 'udp',
          receipt: { service: { namespace: '', name: '' }, nativeId: '' },
        }),
      ],
    };
    assert.deepEqual(decodePage(throughJson(encodePage(page))), { ok: true, value: page });
    assert.deepEqual(decodeReport(throughJson(encodeReport(sidecarReport('h1')))), { ok: true, value: sidecarReport('h1') });
  });

  it('keeps any text of a page, escapes and lone surrogates included', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' }), (service, nativeId) => {
        const page = ledgerPage(service, [80], { receipt: { service: { namespace: nativeId, name: service }, nativeId } });
        assert.deepEqual(decodePage(throughJson(encodePage(page))), { ok: true, value: page });
      }),
      { numRuns: 200 },
    );
  });

  it('stores no field that is not its own', () => {
    const more = { ...ledgerEntry('a/b', 80), secret: 'x' };
    assert.ok(!JSON.stringify(encodePage({ service: 'a/b', baseline: null, entries: [more] })).includes('secret'));
  });

  it('of another version is told so in words', () => {
    const words = 'journal of version 2, this weir reads 1';
    for (const [encoded, decode] of [
      [encodeDoc(migrationDoc('m')), decodeDoc],
      [encodePage(ledgerPage('a/b', [1])), decodePage],
      [encodeReport(sidecarReport('h')), decodeReport],
    ] as const) {
      assert.equal(reasonOf(decode({ ...encoded, version: 2 })), words);
      assert.equal(reasonOf(decode({ ...encoded, version: undefined })), 'a journal without a version');
      assert.equal(reasonOf(decode(null)), 'a journal without a version');
    }
  });

  it('with a field missing, of another kind or not known is refused with its place', () => {
    const encoded = encodeDoc(migrationDoc('m'));
    assert.match(reasonOf(decodeDoc({ ...encoded, phase: 'mirrored' })), /^phase: expected/);
    assert.match(reasonOf(decodeDoc({ ...encoded, weight: 101 })), /^weight: expected/);
    assert.match(reasonOf(decodeDoc({ ...encoded, later: true })), /^later: expected no such key/);
    const { forgotten: _, ...without } = encoded;
    assert.match(reasonOf(decodeDoc(without)), /forgotten/);
    const page = encodePage(ledgerPage('a/b', [80]));
    assert.match(reasonOf(decodePage({ ...page, entries: [{ ...page.entries[0], port: 0 }] })), /^entries\[0\]\.port: expected/);
  });

  it('that JSON has no number for is refused before it is written', () => {
    const bad: MigrationDoc[] = [
      migrationDoc('m', { createdAt: Number.NaN }),
      migrationDoc('m', { since: Number.POSITIVE_INFINITY }),
    ];
    for (const doc of bad) assert.throws(() => encodeDoc(doc), RangeError);
    assert.throws(() => encodePage(ledgerPage('a/b', [80], { at: Number.NaN })), RangeError);
    assert.throws(() => encodeReport({ ...sidecarReport('h'), at: Number.NaN }), RangeError);
  });

  it('knows a page that says nothing', () => {
    assert.equal(isEmptyPage({ service: 'a/b', baseline: null, entries: [] }), true);
    assert.equal(isEmptyPage({ service: 'a/b', baseline: [], entries: [] }), false, 'a baseline of none is a word');
  });
});
