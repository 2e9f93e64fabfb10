// Owns the settings that run and the protocol of a reload (R12): prepare every user (dry build), then commit all in one turn, or nobody.
// Called by app with what load.ts made; must never leave half of the users on new settings.
import type { Clock } from '../kernel/clock.ts';
import { messageOf } from '../kernel/errors.ts';
import type { Log } from '../kernel/log.ts';
import type { Events } from '../telemetry/events.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { fingerprint } from './compile.ts';
import { type ConfigFault, configFaultText } from './config-fault.ts';
import type { Loaded, LoadedSettings } from './load.ts';
import type { Settings } from './settings.ts';

/** What a user built for new settings and does not use yet. */
export interface PreparedChange {
  /** Swaps it in. Synchronous; must not throw. What has to end slowly (draining, closing) goes on by itself afterwards. */
  commit(): void;
  /** Throws it away: another user could not prepare. Must not throw. */
  discard?(): void | Promise<void>;
}

/** Someone who takes part in a reload. */
export interface SettingsUser {
  /** For logs and faults. */
  readonly name: string;
  /**
   * Builds what `next` needs without touching what runs (opens new listeners, makes new adapters). Rejects, or throws, when it cannot:
   * the reload is refused with the message. Null: nothing changes for this user.
   */
  prepare(next: Settings, current: Settings): Promise<PreparedChange | null> | PreparedChange | null;
}

/** The newest load or reload, for the API. */
export interface LastReload {
  /** Wall ms. */
  readonly at: number;
  /** False: the configuration before it keeps running. */
  readonly ok: boolean;
  readonly file: string | null;
  readonly faults: readonly ConfigFault[];
  readonly warnings: readonly ConfigFault[];
  /** Keys whose change takes effect at the next start only. */
  readonly needRestart: readonly string[];
}

export type ReloadResult =
  | { readonly kind: 'unchanged' }
  | { readonly kind: 'reloaded'; readonly needRestart: readonly string[] }
  | { readonly kind: 'refused'; readonly faults: readonly ConfigFault[] }
  /** A newer one came before this one was started. */
  | { readonly kind: 'superseded' };

const RESTART_KEYS = ['id', 'api', 'proxy', 'state'] as const;

export interface StoreDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly events: Events;
  readonly metrics: Metrics;
}

export class SettingsStore {
  readonly #deps: StoreDeps;
  readonly #file: string | null;
  readonly #users = new Set<SettingsUser>();
  #loaded: LoadedSettings;
  #settings: Settings;
  #last: LastReload;
  #running: Promise<void> = Promise.resolve();
  #waiting: { readonly loaded: Loaded; readonly done: (result: ReloadResult) => void } | null = null;
  #busy = false;

  /** `file`: name of the config file, null without one. */
  constructor(deps: StoreDeps, initial: LoadedSettings, file: string | null) {
    this.#deps = deps;
    this.#file = file;
    this.#loaded = initial;
    this.#settings = initial.settings;
    this.#last = { at: deps.clock.wallNow(), ok: true, file, faults: [], warnings: initial.warnings, needRestart: [] };
    this.#warn(initial.warnings);
  }

  /** What runs now. */
  get current(): Settings {
    return this.#settings;
  }

  get lastReload(): LastReload {
    return this.#last;
  }

  /** Plain data of the effective configuration, secrets hidden. */
  get effective(): unknown {
    return this.#loaded.effective;
  }

  /** Takes part in every later reload, in the order of adding, until the returned function is called. */
  addUser(user: SettingsUser): () => void {
    this.#users.add(user);
    return () => this.#users.delete(user);
  }

  /**
   * Makes `loaded` the running settings, or keeps the old ones and says why. One reload at a time; of those that wait the newest wins.
   * Never rejects.
   */
  reload(loaded: Loaded): Promise<ReloadResult> {
    return new Promise((resolve) => {
      this.#waiting?.done({ kind: 'superseded' });
      this.#waiting = { loaded, done: resolve };
      if (!this.#busy) this.#running = this.#work();
    });
  }

  /** Waits for the reload that is under way; for the end of the process. */
  async idle(): Promise<void> {
    await this.#running;
  }

  async #work(): Promise<void> {
    this.#busy = true;
    for (let next = this.#waiting; next !== null; next = this.#waiting) {
      this.#waiting = null;
      next.done(await this.#one(next.loaded));
    }
    this.#busy = false;
  }

  async #one(loaded: Loaded): Promise<ReloadResult> {
    if (!loaded.ok) return this.#refused(loaded.faults);
    if (loaded.fingerprint === this.#loaded.fingerprint) {
      // After a refused reload the old text is back: the fault is over.
      if (!this.#last.ok) this.#succeeded(loaded, []);
      return { kind: 'unchanged' };
    }
    const needRestart = RESTART_KEYS.filter((key) => fingerprint(loaded.settings[key]) !== fingerprint(this.#settings[key]));
    // What needs a restart stays as it runs, so that every user sees one consistent picture.
    const { id, api, proxy, state } = this.#settings;
    const next: Settings = { ...loaded.settings, id, api, proxy, state };
    const prepared: PreparedChange[] = [];
    for (const user of this.#users) {
      try {
        const change = await user.prepare(next, this.#settings);
        if (change !== null) prepared.push(change);
      } catch (thrown) {
        await this.#discard(prepared);
        return this.#refused([this.#userFault(user, thrown)]);
      }
    }
    for (const change of prepared) this.#commit(change);
    this.#settings = next;
    this.#loaded = loaded;
    this.#succeeded(loaded, needRestart);
    return { kind: 'reloaded', needRestart };
  }

  #commit(change: PreparedChange): void {
    try {
      change.commit();
    } catch (thrown) {
      this.#deps.log.error({ error: messageOf(thrown) }, 'a settings user failed to commit');
    }
  }

  async #discard(prepared: readonly PreparedChange[]): Promise<void> {
    for (const change of prepared.toReversed()) {
      try {
        await change.discard?.();
      } catch (thrown) {
        this.#deps.log.error({ error: messageOf(thrown) }, 'a settings user failed to discard');
      }
    }
  }

  #userFault(user: SettingsUser, thrown: unknown): ConfigFault {
    const file = this.#file ?? '(defaults)';
    return { file, line: 1, col: 1, path: user.name, expected: 'settings that can be put to use', got: messageOf(thrown) };
  }

  #succeeded(loaded: LoadedSettings, needRestart: readonly string[]): void {
    const { clock, events, metrics, log } = this.#deps;
    this.#last = { at: clock.wallNow(), ok: true, file: this.#file, faults: [], warnings: loaded.warnings, needRestart };
    metrics.counter('weir_config_reloads_total', 'ok').inc();
    events.emit('config_reloaded', { file: this.#file, needRestart });
    if (needRestart.length > 0) log.warn({ keys: needRestart }, 'these settings changed and take effect at the next start only');
    this.#warn(loaded.warnings);
  }

  #refused(faults: readonly ConfigFault[]): ReloadResult {
    const { clock, events, metrics } = this.#deps;
    this.#last = { ...this.#last, at: clock.wallNow(), ok: false, file: this.#file, faults };
    metrics.counter('weir_config_reloads_total', 'refused').inc();
    events.emit('config_reload_failed', { file: this.#file, faults: faults.slice(0, 20).map(configFaultText) });
    return { kind: 'refused', faults };
  }

  #warn(warnings: readonly ConfigFault[]): void {
    for (const warning of warnings) this.#deps.log.warn({ warning: configFaultText(warning) }, 'configuration');
  }
}
