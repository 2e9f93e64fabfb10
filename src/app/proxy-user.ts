// Owns what the data plane's second message says of the settings, and the data plane's part in a reload. Called by app.ts.
import type { DataPlane } from '../proxy/data-plane.ts';
import type { ProxyUpdate } from '../proxy/proxy-update.ts';
import type { Settings } from '../settings/settings.ts';
import type { PreparedChange, SettingsUser } from '../settings/store.ts';

/** Id of the main proxy port among the listeners. */
export const MAIN_LISTENER = 'main';

/** The message of these settings. */
export function proxyUpdate(settings: Settings): ProxyUpdate {
  return {
    kind: 'proxy',
    instanceId: settings.id,
    listeners: [
      { id: MAIN_LISTENER, listen: settings.proxy.listen, service: null, direction: 'outbound', trustedCidrs: [] },
      ...settings.listeners,
    ],
    accessLog: settings.accessLog,
    extraMethods: [],
  };
}

/**
 * New listeners open while the reload is prepared (a port in use refuses it); if another user can't prepare, the old set comes back.
 * Must be the last user, so that a refusal elsewhere opens nothing.
 */
export class ProxyUser implements SettingsUser {
  readonly name = 'listeners';
  readonly #dataPlane: DataPlane;

  constructor(dataPlane: DataPlane) {
    this.#dataPlane = dataPlane;
  }

  async prepare(next: Settings, current: Settings): Promise<PreparedChange | null> {
    const [update, before] = [proxyUpdate(next), proxyUpdate(current)];
    if (JSON.stringify(update) === JSON.stringify(before)) return null;
    await this.#dataPlane.apply(update);
    return { commit() {}, discard: () => this.#dataPlane.apply(before) };
  }
}
