// Owns the two-way door between the catalog and the last-good file: what is known as plain words, and words back as stale knowledge.
// Called by catalog; must never read or write a file.
import { hostPort } from '../kernel/address.ts';
import type { Clock } from '../kernel/clock.ts';
import type { Instance } from '../model/instance.ts';
import type { Interner } from '../model/intern.ts';
import type { ServiceId } from '../model/service.ts';
import type { HoldDesk } from './hold-desk.ts';
import { admit } from './intake.ts';
import type { RecordStore } from './record-store.ts';
import type { ServiceRecord, SourceRecord, StoredWord } from './sources.ts';
import type { ViewStore } from './view-store.ts';
import type { Contact, RestoredWord, SourceWords, Words } from './words.ts';

/** More services than this whose word is not current make a contact not worth writing. */
const MAX_EXCEPTIONS = 1_000;

export interface LastWordsDeps {
  readonly clock: Clock;
  readonly interner: Interner;
  readonly views: ViewStore;
  readonly holds: HoldDesk;
  readonly records: RecordStore;
  /** Revision of every view that comes from disk. */
  readonly startIndex: number;
}

export class LastWords {
  readonly #deps: LastWordsDeps;

  constructor(deps: LastWordsDeps) {
    this.#deps = deps;
  }

  /** What sources say of a service; null when none says anything. */
  words(service: ServiceId): Words | null {
    const { clock, views } = this.#deps;
    const now = clock.now();
    const toWall = clock.wallNow() - now;
    const said = (views.find(service)?.records ?? []).filter((record) => record.presence !== 'neverSeen');
    return said.length === 0 ? null : { service, sources: said.map((record) => this.#sourceWords(record, now, toWall)) };
  }

  /** When each live source was last heard from: makes ages true after a restart without rewriting every record. */
  contacts(): readonly Contact[] {
    const { clock, records } = this.#deps;
    const toWall = clock.wallNow() - clock.now();
    const contacts: Contact[] = [];
    for (const source of records.sources()) {
      if (source.contactAt === null || source.loss !== null) continue;
      const except: ServiceId[] = [];
      for (const record of source.services.values()) {
        if (!record.live && except.push(record.id) > MAX_EXCEPTIONS) break;
      }
      const contactAt = Math.round(source.contactAt + toWall);
      if (except.length <= MAX_EXCEPTIONS) contacts.push({ source: source.config.id, contactAt, except });
    }
    return contacts;
  }

  /** Puts in what the disk knows, before any source is heard: stale, with its true age. Answers how many words had a place. */
  restore(words: Iterable<RestoredWord>): number {
    const { clock, records, views, interner } = this.#deps;
    const toMonotonic = clock.now() - clock.wallNow();
    let count = 0;
    for (const word of words) {
      const source = records.source(word.source);
      const record = source === undefined ? '' : records.recordFor(source, word.key);
      if (source === undefined || typeof record === 'string' || record.presence !== 'neverSeen') continue;
      record.presence = word.presence;
      record.epoch = interner.text(word.epoch);
      record.sourceRevision = word.sourceRevision;
      // A wall clock that went back must not make words of the future.
      record.goodAt = Math.min(word.goodAt + toMonotonic, clock.now());
      record.contactAt = record.goodAt;
      record.suspect = word.suspect;
      source.goodAt = Math.max(source.goodAt ?? Number.NEGATIVE_INFINITY, record.goodAt);
      record.restore(word.count, () => this.#admit(source, word));
      views.entryFor(record.id).restoredRevision = this.#deps.startIndex;
      count++;
    }
    return count;
  }

  #sourceWords(record: ServiceRecord, now: number, toWall: number): SourceWords {
    const guard = this.#deps.holds.load(record, now);
    const malformed = guard.kept.filter((one) => one.hold === null);
    return {
      source: record.source.config.id,
      key: record.key,
      presence: record.presence === 'absent' ? 'absent' : 'present',
      epoch: record.epoch,
      sourceRevision: record.sourceRevision,
      goodAt: Math.round((record.goodAt ?? now) + toWall),
      present: [...guard.present, ...malformed.map((one) => one.instance)],
      held: guard.kept.flatMap(({ instance, hold }) => (hold === null ? [] : [{ instance, kind: hold.kind }])),
    };
  }

  /** Addresses from disk are judged like those of an answer. */
  #admit(source: SourceRecord, word: RestoredWord): StoredWord {
    const { present, held } = word.decode();
    const kinds = new Map(held.map(({ instance, kind }) => [addressText(instance), kind]));
    const { dial } = source.config;
    const { instances } = admit([...present, ...held.map((one) => one.instance)], [], dial, this.#deps.interner);
    return {
      present: instances.filter((one) => !kinds.has(addressText(one))),
      held: instances.flatMap((instance) => {
        const kind = kinds.get(addressText(instance));
        return kind === undefined ? [] : [{ instance, kind }];
      }),
    };
  }
}

function addressText({ host, port, transport }: Instance): string {
  return `${hostPort(host, port)}/${transport}`;
}
