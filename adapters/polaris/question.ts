// Owns the words between those who ask (feed, writer) and those who carry the question to a server (stream, http): Question and Result.
// Called by all of them; plain data.
import type { SourceError } from '../../src/model/snapshot.ts';
import { codec, type DiscoverRequest, type DiscoverResponse, TYPE_SERVICES } from './protocol.ts';

/** What came back. `same`: 200001, the revision that we sent is current. */
export type Result =
  | { readonly kind: 'same' }
  | { readonly kind: 'answer'; readonly answer: DiscoverResponse }
  | { readonly kind: 'failed'; readonly error: SourceError };

const { encodeRequest } = codec('Discover');

/** One thing that is asked again and again, with the revision that was seen last. */
export class Question {
  readonly type: number;
  /** '' asks for services of all namespaces. */
  readonly namespace: string;
  /** '' for the list of services. */
  readonly name: string;
  // Bytes as text, one character each: a buffer of a few bytes is a part of a slab, and keeps all of its 64 KiB.
  /** Of the last 200001 to this revision. */
  #same: string | null = null;
  #revision = '';
  #bytes: string | null = null;

  constructor(type: number, namespace: string, name: string) {
    this.type = type;
    this.namespace = namespace;
    this.name = name;
  }

  /** '' for none: the answer is then a full one. */
  get revision(): string {
    return this.#revision;
  }

  set revision(revision: string) {
    if (revision === this.#revision) return;
    this.#revision = revision;
    this.#bytes = null;
    this.#same = null;
  }

  /** Keeps the bytes of a 200001 to this revision: the same bytes need no decoding. */
  keepSame(message: Buffer): void {
    this.#same = message.toString('latin1');
  }

  isSame(message: Buffer): boolean {
    return this.#same?.length === message.length && this.#same === message.toString('latin1');
  }

  /** As a request; `service` is always there: without it 1.18.1 ends the stream. */
  get request(): DiscoverRequest {
    return {
      type: this.type,
      service: {
        ...(this.type === TYPE_SERVICES ? {} : { name: { value: this.name } }),
        ...(this.namespace === '' ? {} : { namespace: { value: this.namespace } }),
        ...(this.#revision === '' ? {} : { revision: { value: this.#revision } }),
      },
    };
  }

  /** Encoded; made once per revision. */
  get bytes(): Buffer {
    const bytes = this.#bytes ?? encodeRequest(this.request).toString('latin1');
    this.#bytes = bytes;
    return Buffer.from(bytes, 'latin1');
  }

  /** For messages: what this is about. */
  get about(): string {
    if (this.type !== TYPE_SERVICES) return `service ${this.namespace}/${this.name}`;
    return this.namespace === '' ? 'the list of services' : `the list of services of namespace ${this.namespace}`;
  }
}

/** Carries questions to one server. Every question that was asked is settled exactly once. */
export interface Asker {
  readonly server: string;
  ask(question: Question, settle: (result: Result) => void): void;
  /** Answers what is open, then ends; nothing more is asked. */
  drain(): void;
  /** Settles what is open with this error and takes no more. */
  close(error: SourceError): void;
}
