// Owns what the fake agent itself has registered: services, TTL checks, maintenance, reaping, and the push into the catalog.
// Called by fake.ts; time comes from its clock.
import type { Clock, Timer } from '../../src/kernel/clock.ts';
import { AGENT_NODE, type FakeStore } from './fake-store.ts';

type Body = Readonly<Record<string, unknown>>;

interface AgentCheck {
  readonly id: string;
  readonly name: string;
  readonly serviceId: string;
  readonly ttlMs: number;
  readonly reapMs: number;
  status: string;
  output: string;
  notes: string;
  expiry: Timer | null;
  reaper: Timer | null;
}

const REAP_TICK_MS = 30_000;
const MIN_REAP_MS = 60_000;

/** `15s`, `500ms`, `10m` → ms; null for what is none. */
export function goDuration(text: unknown): number | null {
  const match = typeof text === 'string' ? /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text) : null;
  const unit = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 }[match?.[2] ?? ''] ?? 0;
  return match === null ? null : Number(match[1]) * unit;
}

export class FakeAgent {
  readonly services = new Map<string, Body>();
  readonly checks = new Map<string, AgentCheck>();
  readonly #store: FakeStore;
  readonly #clock: Clock;

  constructor(store: FakeStore, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
  }

  /** Null when it was accepted, else the text of the 400. */
  register(body: Body, replaceChecks: boolean): string | null {
    const name = String(body['Name'] ?? '');
    if (name === '') return 'Missing service name';
    const id = String(body['ID'] ?? name);
    const { ID: _id, Name: _name, Check: single, Checks: several, ...fields } = body;
    const wanted = [...(single === undefined ? [] : [single]), ...(Array.isArray(several) ? several : [])].filter(isBody);
    for (const check of wanted) if ((goDuration(check['TTL']) ?? 0) <= 0) return 'Invalid check: TTL must be > 0 for TTL checks';
    const service = { ...fields, ID: id, Service: name };
    this.services.set(id.toLowerCase(), service);
    this.#store.setService(AGENT_NODE, service);
    const names = new Set(wanted.map((check) => String(check['CheckID'] ?? `service:${id}`)));
    for (const check of [...this.checks.values()]) {
      if (replaceChecks && check.serviceId === id && !names.has(check.id)) this.#dropCheck(check);
    }
    for (const check of wanted) this.#addCheck(id, name, check);
    return null;
  }

  deregister(id: string): boolean {
    if (!this.services.delete(id.toLowerCase())) return false;
    for (const check of [...this.checks.values()]) if (check.serviceId.toLowerCase() === id.toLowerCase()) this.#dropCheck(check);
    this.#store.removeService(AGENT_NODE, id);
    return true;
  }

  update(checkId: string, status: string, output: string): boolean {
    const check = this.checks.get(checkId);
    if (check === undefined) return false;
    this.#state(check, status, output);
    this.#arm(check);
    return true;
  }

  maintenance(id: string, on: boolean, reason: string): boolean {
    const service = this.services.get(id.toLowerCase());
    if (service === undefined) return false;
    const checkId = `_service_maintenance:${id}`;
    if (on && !this.checks.has(checkId)) {
      const check = {
        id: checkId,
        name: 'Service Maintenance Mode',
        serviceId: id,
        ttlMs: 0,
        reapMs: 0,
        status: 'critical',
        output: '',
      };
      const entry: AgentCheck = { ...check, notes: reason, expiry: null, reaper: null };
      this.checks.set(checkId, entry);
      this.#push(entry);
    }
    const present = this.checks.get(checkId);
    if (!on && present !== undefined) this.#dropCheck(present);
    return true;
  }

  /** Anti-entropy: what the catalog has under the agent's node and the agent does not know is removed. */
  sync(): void {
    for (const { id } of this.#store.servicesOf(AGENT_NODE)) {
      if (id !== 'consul' && !this.services.has(id.toLowerCase())) this.#store.removeService(AGENT_NODE, id);
    }
    for (const service of this.services.values()) this.#store.setService(AGENT_NODE, service);
    for (const check of this.checks.values()) this.#push(check);
  }

  /** Forgets everything, as a `-dev` agent does when it dies. */
  forget(): void {
    for (const check of this.checks.values()) this.#disarm(check);
    this.services.clear();
    this.checks.clear();
  }

  #addCheck(serviceId: string, serviceName: string, body: Body): void {
    const id = String(body['CheckID'] ?? `service:${serviceId}`);
    const before = this.checks.get(id);
    if (before !== undefined) this.#disarm(before);
    const check: AgentCheck = {
      id,
      name: String(body['Name'] ?? `Service '${serviceName}' check`),
      serviceId,
      ttlMs: goDuration(body['TTL']) ?? 0,
      reapMs:
        body['DeregisterCriticalServiceAfter'] === undefined
          ? 0
          : Math.max(MIN_REAP_MS, goDuration(body['DeregisterCriticalServiceAfter']) ?? 0),
      // Counts only when the check is new.
      status: before?.status ?? String(body['Status'] ?? 'critical'),
      output: before?.output ?? '',
      notes: '',
      expiry: null,
      reaper: null,
    };
    this.checks.set(id, check);
    this.#state(check, check.status, check.output);
    this.#arm(check);
  }

  #arm(check: AgentCheck): void {
    check.expiry?.cancel();
    if (check.ttlMs > 0) check.expiry = this.#clock.setTimer(check.ttlMs, () => this.#state(check, 'critical', 'TTL expired'));
  }

  #state(check: AgentCheck, status: string, output: string): void {
    check.status = status;
    check.output = output;
    if (status !== 'critical') {
      check.reaper?.cancel();
      check.reaper = null;
    } else if (check.reapMs > 0 && check.reaper === null) {
      check.reaper = this.#clock.setTimer(check.reapMs + REAP_TICK_MS, () => void this.deregister(check.serviceId));
    }
    this.#push(check);
  }

  #push({ id, name, serviceId, status, output, notes }: AgentCheck): void {
    const about = { Name: name, Status: status, Output: output, Notes: notes, ServiceID: serviceId };
    this.#store.setCheck({ Node: AGENT_NODE, CheckID: id, ...about });
  }

  #dropCheck(check: AgentCheck): void {
    this.#disarm(check);
    this.checks.delete(check.id);
    this.#store.removeCheck(AGENT_NODE, check.id);
  }

  #disarm(check: AgentCheck): void {
    check.expiry?.cancel();
    check.reaper?.cancel();
    check.expiry = null;
    check.reaper = null;
  }
}

function isBody(value: unknown): value is Body {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
