// Owns one fuzzy watch of all names of a namespace (3.0 and later, section 4): first list, changes, the comparison every minute.
// Called by names.ts; one pattern per source, since a server has room for 20 of all clients together.
import type { AdapterDeps } from '../../src/adapter/contract.ts';
import type { Timer } from '../../src/kernel/clock.ts';
import { isRecord } from '../../src/kernel/decode.ts';
import type { Mailbox } from '../../src/kernel/mailbox.ts';
import { asSourceError, SourceError } from '../../src/model/snapshot.ts';
import type { NacosConfig } from './config.ts';
import { FUZZY_NAMES_FULL, FUZZY_PATTERNS_FULL, NacosRefusal } from './errors.ts';
import type { NativeName } from './mapping.ts';
import { stringOf } from './native.ts';
import type { Session } from './session.ts';

const COMPARE_EVERY_MS = 60_000;
/** A pattern holds no more names: later ones are dropped without a sign. */
const MAX_KEYS = 500;

export class FuzzyNames {
  readonly #session: Session;
  readonly #pattern: string;
  readonly #deps: AdapterDeps;
  readonly #box: Mailbox<{ names: readonly NativeName[]; whole: boolean }>;
  readonly #keys = new Map<string, NativeName>();
  readonly #over = new AbortController();
  #whole = false;
  #timer: Timer | null = null;

  constructor(
    session: Session,
    config: NacosConfig,
    deps: AdapterDeps,
    box: Mailbox<{ names: readonly NativeName[]; whole: boolean }>,
  ) {
    this.#session = session;
    this.#pattern = `${config.namespace}>>*>>*`;
    this.#deps = deps;
    this.#box = box;
  }

  /** Rejects with SourceError when the server will not. */
  async start(signal: AbortSignal): Promise<void> {
    await this.#watch('WATCH', true, signal);
    this.#compareLater();
  }

  take(session: Session, type: string, body: Readonly<Record<string, unknown>>): void {
    if (session !== this.#session || this.#over.signal.aborted) return;
    if (type === 'NamingFuzzyWatchChangeNotifyRequest') {
      this.#change(body['serviceKey'], body['changedType']);
      this.#show();
      return;
    }
    if (body['groupKeyPattern'] !== this.#pattern) return;
    const contexts = Array.isArray(body['contexts']) ? body['contexts'] : [];
    for (const context of contexts) if (isRecord(context)) this.#change(context['serviceKey'], context['changedType']);
    if (body['syncType'] === 'FINISH_FUZZY_WATCH_INIT_NOTIFY') this.#whole = true;
    this.#show();
  }

  fail(error: SourceError): void {
    this.#box.fail(error);
  }

  /** Leaves the pattern to others. */
  close(): void {
    if (this.#over.signal.aborted) return;
    this.#timer?.cancel();
    this.#over.abort(new SourceError('lost', 'nacos: the names are followed no more'));
    if (!this.#session.alive) return;
    this.#watch('CANCEL_WATCH', false, new AbortController().signal).catch(() => this.#deps.count('fuzzy.cancelFailed'));
  }

  #change(key: unknown, change: unknown): void {
    const text = stringOf(key);
    const [, group, ...rest] = text?.split('@@') ?? [];
    const name = rest.join('@@');
    if (text === null || group === undefined || name === '') {
      this.#deps.count('fuzzy.malformed');
      return;
    }
    // It follows instances: a service whose last one left is still a service, but a list without it is what the others show later.
    if (change === 'DELETE_SERVICE') this.#keys.delete(text);
    else this.#keys.set(text, { group, name });
  }

  #show(): void {
    if (!this.#whole) return;
    if (this.#keys.size >= MAX_KEYS) {
      this.#box.fail(
        new NacosRefusal(FUZZY_NAMES_FULL, '', 'limit', 'nacos: more than 500 services: the fuzzy watch shows no more'),
      );
      return;
    }
    this.#box.put({ names: [...this.#keys.values()], whole: true });
  }

  async #watch(watchType: 'WATCH' | 'CANCEL_WATCH', initializing: boolean, signal: AbortSignal): Promise<void> {
    const receivedGroupKeys = initializing || watchType === 'CANCEL_WATCH' ? [] : [...this.#keys.keys()];
    const fields = { groupKeyPattern: this.#pattern, watchType, receivedGroupKeys, initializing };
    await this.#session.call('NamingFuzzyWatchRequest', fields, signal);
  }

  #compareLater(): void {
    if (this.#over.signal.aborted) return;
    this.#timer = this.#deps.clock.setTimer(COMPARE_EVERY_MS, () => void this.#compare());
  }

  async #compare(): Promise<void> {
    try {
      await this.#watch('WATCH', false, this.#over.signal);
      this.#compareLater();
    } catch (thrown) {
      if (this.#over.signal.aborted) return;
      const error = asSourceError(thrown);
      const full = error instanceof NacosRefusal && error.errorCode === FUZZY_PATTERNS_FULL;
      this.#box.fail(full ? new SourceError('lost', error.message) : error);
    }
  }
}
