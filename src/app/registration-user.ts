// Owns the registrations' part in a reload: what weir.yaml declares, and new targets when sources come or go. Called by app.ts.
import type { Registrations } from '../registration/registrations.ts';
import type { Settings } from '../settings/settings.ts';
import type { PreparedChange, SettingsUser } from '../settings/store.ts';

export class RegistrationUser implements SettingsUser {
  readonly name = 'registrations';
  readonly #registrations: Registrations;
  #work: Promise<void> = Promise.resolve();

  constructor(registrations: Registrations) {
    this.#registrations = registrations;
  }

  /** Declares what the settings say; resolves when it is in the journal. */
  apply(settings: Settings): Promise<void> {
    this.#work = this.#work.then(() => this.#registrations.replaceDeclared(settings.registrations));
    return this.#work;
  }

  /** Sources came or went: targets are chosen anew, after what is under way. */
  sourcesChanged(): void {
    this.#work = this.#work.then(() => this.#registrations.retarget());
  }

  prepare(next: Settings, current: Settings): PreparedChange | null {
    if (next.registrations === current.registrations) return null;
    return { commit: () => void this.apply(next) };
  }
}
