// Owns the checks of what this host registers: one ask per registration that has a check, its verdict handed to the registrations.
// Called by app.ts. The address was given by an operator or a local program, so loopback and names are allowed here.
import type { Ask } from '../health/ask.ts';
import { targetOf } from '../health/probe.ts';
import type { Prober } from '../health/prober.ts';
import { dialPolicy } from '../kernel/dial.ts';
import type { HealthCheckPolicy } from '../model/policy.ts';
import { serviceId } from '../model/service.ts';
import { type Registration, registrationKey } from '../registration/registration.ts';
import type { Registrations } from '../registration/registrations.ts';

/** Own checks must not mix with those of views in the prober's books: no view has this network label. */
const NETWORK = 'weir:registrations';

interface Kept {
  readonly registration: Registration;
  readonly check: HealthCheckPolicy;
  readonly ask: Ask;
}

export class RegistrationHealth {
  readonly #registrations: Registrations;
  readonly #prober: Prober;
  readonly #kept = new Map<string, Kept>();
  readonly #unsubscribe: () => void;
  readonly #dial = dialPolicy({ allowLoopback: true, allowNames: true, cidrs: [], ports: [] }, () => []);

  constructor(registrations: Registrations, prober: Prober) {
    this.#registrations = registrations;
    this.#prober = prober;
    this.#unsubscribe = registrations.subscribe(() => this.#sync());
    this.#sync();
  }

  close(): void {
    this.#unsubscribe();
    for (const { ask } of this.#kept.values()) this.#prober.end(ask);
    this.#kept.clear();
  }

  #sync(): void {
    const wanted = new Map(this.#registrations.wanted().map((one) => [registrationKey(one.service, one.id), one]));
    for (const [key, { registration, ask }] of this.#kept) {
      const next = wanted.get(key);
      if (next !== undefined && sameCheck(next, registration)) continue;
      this.#prober.end(ask);
      this.#kept.delete(key);
    }
    for (const [key, registration] of wanted) if (!this.#kept.has(key)) this.#begin(key, registration);
  }

  #begin(key: string, registration: Registration): void {
    const { healthCheck: check, service, id, host, port } = registration;
    if (check === null) return;
    const spec = {
      service: `${serviceId(service)}\0${id}`,
      target: targetOf(check, NETWORK, host, port),
      policy: check,
      dial: this.#dial,
      pace: check.interval,
    };
    const ask = this.#prober.ask(spec, ({ verdict }) => {
      if (verdict !== 'none') this.#registrations.setHealth(service, id, verdict === 'pass');
    });
    this.#kept.set(key, { registration, check, ask });
  }
}

function sameCheck(a: Registration, b: Registration): boolean {
  return a.host === b.host && a.port === b.port && JSON.stringify(a.healthCheck) === JSON.stringify(b.healthCheck);
}
