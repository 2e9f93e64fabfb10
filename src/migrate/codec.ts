// Owns the stored form of a migration: plain JSON with a version, checked on the way in and on the way out. Called by the stores only;
// must never guess at what another version wrote.
import { type Static, Type } from 'typebox';
import { type Decoder, decoder, faultText, isRecord } from '../kernel/decode.ts';
import type { LedgerEntry, LedgerPage, MigrationDoc, MigrationSpec, SidecarReport } from './migration.ts';

/** The version of everything that this file writes. */
export const JOURNAL_VERSION = 1;

const STRICT = { additionalProperties: false } as const;
const Text = Type.String();
const Pairs = Type.Array(Type.Tuple([Text, Text]));
const Milliseconds = Type.Number({ minimum: 0 });
const Count = Type.Integer({ minimum: 0 });

function orNull<S extends Parameters<typeof Type.Union>[0][number]>(schema: S) {
  return Type.Union([schema, Type.Null()]);
}

function oneOf<const W extends string>(words: readonly W[]) {
  return Type.Unsafe<W>({ type: 'string', enum: [...words] });
}

const PhaseWord = oneOf(['plan', 'mirror', 'shift', 'cutover', 'finished', 'aborting', 'aborted']);
const Percent = Type.Number({ minimum: 0, maximum: 100 });

const SpecRecord = Type.Object(
  {
    id: Text,
    from: Text,
    to: Text,
    services: Type.Array(Text),
    direction: oneOf(['oneWay', 'twoWay']),
    liveness: oneOf(['beat', 'persistent', 'connection']),
    sticky: orNull(Type.Object({ header: Text }, STRICT)),
    mapping: Type.Object(
      {
        namespace: orNull(Text),
        name: orNull(Text),
        metadata: Type.Object({ rename: Pairs, drop: Type.Array(Text), set: Pairs }, STRICT),
      },
      STRICT,
    ),
    gates: Type.Object(
      {
        soak: Milliseconds,
        maxErrorRate: orNull(Type.Number()),
        maxP99Ratio: orNull(Type.Number()),
        onBreach: oneOf(['stop', 'rollback']),
      },
      STRICT,
    ),
    limits: Type.Object({ callsPerSecond: Type.Number(), deletePercentPerMinute: Type.Number(), grace: Milliseconds }, STRICT),
  },
  STRICT,
);

const VerifyRecord = Type.Object(
  {
    outcome: oneOf(['ok', 'drift', 'unsafe']),
    at: Type.Number(),
    services: Count,
    missing: Count,
    extra: Count,
    differing: Count,
    unreachable: Count,
  },
  STRICT,
);

const DocRecord = Type.Object(
  {
    version: Type.Literal(JOURNAL_VERSION),
    spec: SpecRecord,
    phase: PhaseWord,
    weight: Percent,
    createdAt: Type.Number(),
    startedAt: orNull(Type.Number()),
    since: Type.Number(),
    epoch: Count,
    lastVerify: orNull(VerifyRecord),
    okSince: orNull(Type.Number()),
    stopped: orNull(Type.Object({ at: Type.Number(), reason: Text }, STRICT)),
    keptCopies: Type.Boolean(),
    baselined: Type.Boolean(),
    aliases: Type.Array(Text),
    frozen: Type.Boolean(),
    forgotten: Type.Array(Text),
  },
  STRICT,
);

const Key = Type.Object({ namespace: Text, name: Text }, STRICT);

const EntryRecord = Type.Object(
  {
    target: Text,
    origin: Text,
    service: Text,
    key: Key,
    host: Text,
    port: Type.Integer({ minimum: 1, maximum: 65_535 }),
    transport: oneOf(['tcp', 'udp']),
    state: oneOf(['intent', 'written', 'withheld', 'removing', 'kept']),
    receipt: orNull(
      Type.Object({ service: Key, nativeId: Text, leaseId: Type.Optional(Text), token: Type.Optional(Text) }, STRICT),
    ),
    applied: Text,
    shown: Type.Optional(Text),
    health: oneOf(['healthy', 'unhealthy', 'unknown']),
    at: Type.Number(),
    epoch: Count,
  },
  STRICT,
);

const PageRecord = Type.Object(
  {
    version: Type.Literal(JOURNAL_VERSION),
    service: Text,
    baseline: orNull(Type.Array(Text)),
    entries: Type.Array(EntryRecord),
  },
  STRICT,
);

const ReportRecord = Type.Object(
  { version: Type.Literal(JOURNAL_VERSION), sidecar: Text, phase: PhaseWord, weight: Percent, at: Type.Number() },
  STRICT,
);

/** The stored forms, plain JSON. */
export type StoredDocRecord = Static<typeof DocRecord>;
export type StoredPageRecord = Static<typeof PageRecord>;
export type StoredReportRecord = Static<typeof ReportRecord>;

/** A value, or in words why there is none. */
export type Read<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly reason: string };

const checkDoc = decoder(DocRecord);
const checkPage = decoder(PageRecord);
const checkReport = decoder(ReportRecord);

/** Why a stored value is not of our version, or null when it is. */
export function versionFault(value: unknown): string | null {
  const version = isRecord(value) && Object.hasOwn(value, 'version') ? value['version'] : undefined;
  if (version === JOURNAL_VERSION) return null;
  if (typeof version === 'number') return `journal of version ${version}, this weir reads ${JOURNAL_VERSION}`;
  return 'a journal without a version';
}

/** Stored form of a document. Throws RangeError for one that could not be read back (a number that JSON has no word for). */
export function encodeDoc(doc: MigrationDoc): StoredDocRecord {
  const { mapping } = doc.spec;
  const { rename, drop, set } = mapping.metadata;
  return writable(checkDoc, {
    version: JOURNAL_VERSION,
    spec: {
      ...doc.spec,
      services: [...doc.spec.services],
      mapping: { ...mapping, metadata: { rename: [...rename], drop: [...drop], set: [...set] } },
    },
    phase: doc.phase,
    weight: doc.weight,
    createdAt: doc.createdAt,
    startedAt: doc.startedAt,
    since: doc.since,
    epoch: doc.epoch,
    lastVerify: doc.lastVerify,
    okSince: doc.okSince,
    stopped: doc.stopped,
    keptCopies: doc.keptCopies,
    baselined: doc.baselined,
    aliases: [...doc.aliases],
    frozen: doc.frozen,
    forgotten: [...doc.forgotten],
  });
}

/** A document out of its stored form. */
export function decodeDoc(value: unknown): Read<MigrationDoc> {
  const read = readable(checkDoc, value);
  if (!read.ok) return read;
  const { spec, ...rest } = read.value;
  const { rename, drop, set } = spec.mapping.metadata;
  const metadata = { rename: new Map(rename), drop: new Set(drop), set: new Map(set) };
  const decoded: MigrationSpec = { ...spec, mapping: { ...spec.mapping, metadata } };
  return { ok: true, value: { ...rest, spec: decoded } };
}

/** Stored form of a page. Throws RangeError like {@link encodeDoc}. */
export function encodePage(page: LedgerPage): StoredPageRecord {
  return writable(checkPage, {
    version: JOURNAL_VERSION,
    service: page.service,
    baseline: page.baseline === null ? null : [...page.baseline],
    entries: page.entries.map(encodeEntry),
  });
}

/** A page out of its stored form. */
export function decodePage(value: unknown): Read<LedgerPage> {
  const read = readable(checkPage, value);
  if (!read.ok) return read;
  const { service, baseline, entries } = read.value;
  return { ok: true, value: { service, baseline, entries } };
}

/** Stored form of a report. Throws RangeError like {@link encodeDoc}. */
export function encodeReport(report: SidecarReport): StoredReportRecord {
  const { sidecar, phase, weight, at } = report;
  return writable(checkReport, { version: JOURNAL_VERSION, sidecar, phase, weight, at });
}

/** A report out of its stored form. */
export function decodeReport(value: unknown): Read<SidecarReport> {
  const read = readable(checkReport, value);
  if (!read.ok) return read;
  const { sidecar, phase, weight, at } = read.value;
  return { ok: true, value: { sidecar, phase, weight, at } };
}

/** A page that says nothing: it is deleted instead of kept. */
export function isEmptyPage(page: LedgerPage): boolean {
  return page.baseline === null && page.entries.length === 0;
}

/** Field by field, so that what a caller carries along besides is not stored. */
function encodeEntry(entry: LedgerEntry): Static<typeof EntryRecord> {
  const { target, origin, service, host, port, transport, state, applied, shown, health, at, epoch } = entry;
  const { namespace, name } = entry.key;
  const receipt = entry.receipt === null ? null : encodeReceipt(entry.receipt);
  const where = { target, origin, service, key: { namespace, name }, host, port, transport };
  return { ...where, state, receipt, applied, ...(shown !== undefined && { shown }), health, at, epoch };
}

function encodeReceipt({ service, nativeId, leaseId, token }: NonNullable<LedgerEntry['receipt']>) {
  return {
    service: { namespace: service.namespace, name: service.name },
    nativeId,
    ...(leaseId === undefined ? {} : { leaseId }),
    ...(token === undefined ? {} : { token }),
  };
}

function writable<T>(check: Decoder<T>, value: T): T {
  const checked = check(value);
  if (!checked.ok)
    throw new RangeError(`a journal entry that could not be read back: ${checked.faults.map(faultText).join('; ')}`);
  return value;
}

function readable<T>(check: Decoder<T>, value: unknown): Read<T> {
  const version = versionFault(value);
  if (version !== null) return { ok: false, reason: version };
  const checked = check(value);
  if (checked.ok) return checked;
  return { ok: false, reason: checked.faults.slice(0, 3).map(faultText).join('; ') };
}
