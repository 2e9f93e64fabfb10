// Owns the state of the fake Consul: catalog tables with a raft-like index, apart from what the fake agent itself has registered.
// Called by fake.ts and tests; must never answer what the real one would not (observed with 1.14.11).

export interface FakeService {
  readonly node: string;
  readonly id: string;
  readonly name: string;
  readonly body: Readonly<Record<string, unknown>>;
  readonly create: number;
  readonly modify: number;
}

export interface FakeCheck {
  readonly node: string;
  readonly id: string;
  readonly body: Readonly<Record<string, unknown>>;
  readonly serviceId: string;
  readonly status: string;
  readonly create: number;
  readonly modify: number;
}

export interface FakeNode {
  readonly name: string;
  readonly address: string;
  readonly meta: unknown;
  readonly create: number;
  readonly modify: number;
}

const START_INDEX = 10;
export const AGENT_NODE = 'weir-fake';

/** Names, ids and nodes are looked up without regard to case. */
function low(...parts: readonly string[]): string {
  return parts.join('\u0000').toLowerCase();
}

export class FakeStore {
  index = START_INDEX;
  readonly nodes = new Map<string, FakeNode>();
  readonly services = new Map<string, FakeService>();
  readonly checks = new Map<string, FakeCheck>();
  /** Last change of a service, by name. */
  #serviceIndex = new Map<string, number>();
  /** Last event of a name, also of one that is gone: what streaming shows. */
  #streamIndex = new Map<string, number>();
  #extinction = 0;
  #servicesIndex = START_INDEX;
  #checksIndex = START_INDEX;
  readonly #listeners = new Set<() => void>();

  constructor() {
    this.#seed();
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  notify(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  /** All data lost, indexes from the start. */
  wipe(): void {
    this.nodes.clear();
    this.services.clear();
    this.checks.clear();
    this.#serviceIndex = new Map();
    this.#streamIndex = new Map();
    this.#extinction = 0;
    this.index = START_INDEX;
    this.#servicesIndex = START_INDEX;
    this.#checksIndex = START_INDEX;
    this.#seed();
  }

  #seed(): void {
    this.setNode(AGENT_NODE, '127.0.0.1', null);
    this.setService(AGENT_NODE, { ID: 'consul', Service: 'consul', Port: 8300 });
    this.setCheck({ Node: AGENT_NODE, CheckID: 'serfHealth', Name: 'Serf Health Status', Status: 'passing' });
  }

  setNode(name: string, address: string, meta: unknown): void {
    const before = this.nodes.get(low(name));
    if (before !== undefined && before.address === address && JSON.stringify(before.meta) === JSON.stringify(meta)) return;
    const modify = ++this.index;
    this.nodes.set(low(name), { name, address, meta, create: before?.create ?? modify, modify });
    for (const service of this.servicesOf(name)) this.#touched(service.name, modify);
    this.notify();
  }

  setService(node: string, body: Readonly<Record<string, unknown>>): void {
    const id = String(body['ID'] ?? body['Service']);
    const name = String(body['Service']);
    const key = low(node, id);
    const before = this.services.get(key);
    const same = before !== undefined && before.name === name && JSON.stringify(before.body) === JSON.stringify(body);
    if (same) return;
    const modify = ++this.index;
    if (before !== undefined && before.name !== name) this.#extinct(before.name, modify, key);
    this.services.set(key, { node, id, name, body, create: before?.create ?? modify, modify });
    this.#servicesIndex = modify;
    this.#touched(name, modify);
    this.notify();
  }

  setCheck(body: Readonly<Record<string, unknown>>): void {
    const node = String(body['Node']);
    const id = String(body['CheckID']);
    const serviceId = String(body['ServiceID'] ?? '');
    const status = String(body['Status'] ?? 'critical');
    const key = low(node, id);
    const before = this.checks.get(key);
    if (before !== undefined && JSON.stringify(before.body) === JSON.stringify(body)) return;
    const modify = ++this.index;
    this.checks.set(key, { node, id, body, serviceId, status, create: before?.create ?? modify, modify });
    this.#checksIndex = modify;
    this.#checkTouched(node, serviceId, modify);
    this.notify();
  }

  removeCheck(node: string, id: string): boolean {
    const check = this.checks.get(low(node, id));
    if (check === undefined) return false;
    const modify = ++this.index;
    this.checks.delete(low(node, id));
    this.#checksIndex = modify;
    if (check.serviceId === '') this.#servicesIndex = modify;
    this.#checkTouched(check.node, check.serviceId, modify);
    this.notify();
    return true;
  }

  removeService(node: string, id: string): boolean {
    const key = low(node, id);
    const service = this.services.get(key);
    if (service === undefined) return false;
    for (const check of [...this.checks.values()]) {
      if (low(check.node) === low(node) && low(check.serviceId) === low(id)) this.checks.delete(low(check.node, check.id));
    }
    const modify = ++this.index;
    this.services.delete(key);
    this.#servicesIndex = modify;
    this.#checksIndex = modify;
    this.#extinct(service.name, modify, key);
    this.notify();
    return true;
  }

  removeNode(node: string): void {
    for (const service of this.servicesOf(node)) this.removeService(node, service.id);
    for (const check of [...this.checks.values()]) if (low(check.node) === low(node)) this.removeCheck(node, check.id);
    this.nodes.delete(low(node));
    this.index++;
    this.notify();
  }

  service(node: string, id: string): FakeService | undefined {
    return this.services.get(low(node, id));
  }

  check(node: string, id: string): FakeCheck | undefined {
    return this.checks.get(low(node, id));
  }

  node(name: string): FakeNode | undefined {
    return this.nodes.get(low(name));
  }

  servicesOf(node: string): FakeService[] {
    return [...this.services.values()].filter((one) => low(one.node) === low(node));
  }

  servicesNamed(name: string): FakeService[] {
    return [...this.services.values()].filter((one) => low(one.name) === low(name));
  }

  names(): Map<string, string[]> {
    const names = new Map<string, string[]>();
    for (const { name, body } of this.services.values()) {
      const tags = Array.isArray(body['Tags']) ? body['Tags'].map(String) : [];
      names.set(name, [...new Set([...(names.get(name) ?? []), ...tags])]);
    }
    return names;
  }

  get servicesIndex(): number {
    return this.#servicesIndex;
  }

  get checksIndex(): number {
    return this.#checksIndex;
  }

  /** The plain index of a name: of its last change; of an absent one the last extinction of any, else the last change of any. */
  plainIndex(name: string): number {
    if (this.servicesNamed(name).length > 0) return Math.max(1, this.#serviceIndex.get(low(name)) ?? 1);
    return this.#extinction > 0 ? this.#extinction : this.#servicesIndex;
  }

  streamIndex(name: string): number {
    return this.#streamIndex.get(low(name)) ?? START_INDEX - 1;
  }

  #touched(name: string, modify: number): void {
    this.#serviceIndex.set(low(name), modify);
    this.#streamIndex.set(low(name), modify);
  }

  #extinct(name: string, modify: number, key: string): void {
    this.#streamIndex.set(low(name), modify);
    const others = this.servicesNamed(name).some((one) => low(one.node, one.id) !== key);
    if (others) this.#serviceIndex.set(low(name), modify);
    else {
      this.#serviceIndex.delete(low(name));
      this.#extinction = modify;
    }
  }

  #checkTouched(node: string, serviceId: string, modify: number): void {
    for (const service of this.servicesOf(node)) {
      if (serviceId === '' || low(service.id) === low(serviceId)) this.#touched(service.name, modify);
    }
  }
}
