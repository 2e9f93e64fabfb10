// Owns transactions of the fake Consul: all or nothing, refused with the texts of 1.14.11. Called by fake.ts.
import { isRecord } from '../../src/kernel/decode.ts';
import { metaFault } from './fake.ts';
import type { FakeKv } from './fake-kv.ts';
import type { FakeStore } from './fake-store.ts';

type Body = Readonly<Record<string, unknown>>;

const MAX_OPS = 128;
const MAX_BYTES = 524_288;

/** Checks every operation before it applies any. */
export function applyTxn(ops: readonly unknown[], store: FakeStore, kv: FakeKv): { status: number; answer: unknown } {
  if (ops.length > MAX_OPS)
    return { status: 413, answer: `Transaction contains too many operations (${ops.length} > ${MAX_OPS})` };
  const size = JSON.stringify(ops).length;
  if (size > MAX_BYTES) {
    return { status: 413, answer: `Request body(${size} bytes) too large, max size: ${MAX_BYTES} bytes. See txn_max_req_len.` };
  }
  const errors: unknown[] = [];
  const newNodes = new Set<string>();
  for (const [at, op] of ops.entries()) {
    const fault = isRecord(op) ? faultOf(op, store, kv, newNodes) : 'unknown operation';
    if (fault !== null) errors.push({ OpIndex: at, What: fault });
  }
  if (errors.length > 0) return { status: 409, answer: { Results: null, Errors: errors } };
  const results = ops.filter(isRecord).map((op) => apply(op, store, kv));
  return { status: 200, answer: { Results: results, Errors: null } };
}

function part(op: Body, key: string): Body | null {
  const value = op[key];
  return isRecord(value) ? value : null;
}

function inner(op: Body, key: string): Body {
  const value = op[key];
  return isRecord(value) ? value : {};
}

function faultOf(op: Body, store: FakeStore, kv: FakeKv, newNodes: Set<string>): string | null {
  const node = part(op, 'Node');
  if (node !== null) {
    newNodes.add(String(inner(node, 'Node')['Node']));
    return null;
  }
  const service = part(op, 'Service');
  if (service !== null) {
    const on = String(service['Node']);
    const body = inner(service, 'Service');
    const before = store.service(on, String(body['ID']));
    const verb = String(service['Verb']);
    if (verb.endsWith('cas') && (before?.modify ?? 0) !== Number(body['ModifyIndex'] ?? 0)) {
      return `failed to ${verb === 'cas' ? 'set' : 'delete'} service "${String(body['ID'])}" on node "${on}", index is stale`;
    }
    if (verb === 'cas' && store.node(on) === undefined && !newNodes.has(on)) return 'Missing node registration';
    return verb === 'cas' ? metaFault(body['Meta']) : null;
  }
  const check = part(op, 'Check');
  if (check !== null) {
    const body = inner(check, 'Check');
    const on = String(body['Node']);
    const before = store.check(on, String(body['CheckID']));
    if ((before?.modify ?? 0) === Number(body['ModifyIndex'] ?? 0)) return null;
    return `failed to set check "${String(body['CheckID'])}" on node "${on}", index is stale`;
  }
  const key = part(op, 'KV');
  return key === null ? 'unknown operation' : kvFault(key, kv);
}

function kvFault(op: Body, kv: FakeKv): string | null {
  const name = String(op['Key']);
  const before = kv.keys.get(name);
  if (op['Verb'] === 'check-session') {
    const wanted = String(op['Session']);
    const held = before?.session ?? '';
    return held === wanted ? null : `failed session check for key "${name}", current session "${held}" != "${wanted}"`;
  }
  if (op['Verb'] === 'delete' || (before?.modify ?? 0) === Number(op['Index'] ?? 0)) return null;
  return `failed to ${op['Verb'] === 'cas' ? 'set' : 'delete'} key "${name}", index is stale`;
}

function apply(op: Body, store: FakeStore, kv: FakeKv): unknown {
  const node = part(op, 'Node');
  if (node !== null) {
    const { Node: name, Address: address, Meta: meta } = inner(node, 'Node');
    store.setNode(String(name), String(address), meta ?? null);
    return { Node: { Node: name } };
  }
  const service = part(op, 'Service');
  if (service !== null) {
    const { ModifyIndex: _, ...body } = inner(service, 'Service');
    if (service['Verb'] === 'delete-cas') store.removeService(String(service['Node']), String(body['ID']));
    else store.setService(String(service['Node']), body);
    const { modify: ModifyIndex = 0 } = store.service(String(service['Node']), String(body['ID'])) ?? {};
    return { Service: { ...body, ModifyIndex } };
  }
  const check = part(op, 'Check');
  if (check !== null) {
    const { ModifyIndex: _, ...body } = inner(check, 'Check');
    store.setCheck(body);
    const { modify: ModifyIndex = 0 } = store.check(String(body['Node']), String(body['CheckID'])) ?? {};
    return { Check: { ...body, ModifyIndex } };
  }
  const key = inner(op, 'KV');
  const name = String(key['Key']);
  if (key['Verb'] === 'delete-cas' || key['Verb'] === 'delete') {
    kv.delete(name);
    return { KV: { Key: name } };
  }
  if (key['Verb'] !== 'cas') return { KV: { Key: name } };
  const entry = kv.set(name, Buffer.from(String(key['Value'] ?? ''), 'base64').toString('utf8'));
  return {
    KV: { Key: name, LockIndex: entry.lockIndex, Flags: 0, Value: null, CreateIndex: entry.create, ModifyIndex: entry.modify },
  };
}
