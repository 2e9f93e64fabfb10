// Owns the server's side of the messages: requests in, answers out, as cl5.proto has them. Called by fake.ts and tests only.
import { dottedQuad } from './sid.ts';
import { BYTES, VARINT, WireFault, WireReader, WireWriter } from './wire.ts';

/** As sent: integers are int32, null where a field is absent. */
export interface FakeRequest {
  readonly seqno: number;
  readonly cmd: number;
  readonly ip: number | null;
  /** agent_ip or caller_ip. */
  readonly agentIp: number;
  readonly syncFlow: number;
  readonly sids: readonly (readonly [modId: number, cmdId: number])[];
  readonly names: readonly string[];
}

export interface FakeServ {
  readonly modId: number;
  readonly cmdId: number;
  readonly ip: number;
  readonly port: number;
  readonly weight: number;
}

export interface FakeSid {
  readonly modId: number;
  readonly cmdId: number;
  readonly name: string;
  readonly policy: number;
}

/** ip, area, city, idc. */
export type FakeIpc = readonly [number, number, number, number];

export interface FakeAnswer {
  readonly seqno: number;
  readonly cmd: 101 | 105;
  readonly result: number;
  readonly error?: string;
  readonly ip: number;
  readonly agentIp: number;
  readonly syncFlow: number;
  readonly serv: readonly FakeServ[];
  readonly sids: readonly FakeSid[];
  readonly ipc: readonly FakeIpc[];
  readonly servers: readonly number[];
}

const int = (field: number): number => (field << 3) | VARINT;
const nested = (field: number): number => (field << 3) | BYTES;

/** Throws WireFault where the real server would close. */
export function decodeRequest(body: Buffer): FakeRequest {
  const reader = new WireReader(body);
  let seqno: number | undefined;
  let cmd: number | undefined;
  let ip: number | null = null;
  let asked: Pick<FakeRequest, 'agentIp' | 'syncFlow' | 'sids' | 'names'> = { agentIp: 0, syncFlow: 0, sids: [], names: [] };
  while (reader.more) {
    const tag = reader.tag();
    if (tag === int(1)) seqno = reader.int32();
    else if (tag === int(2)) cmd = reader.int32();
    else if (tag === int(5)) ip = reader.int32();
    else if (tag === nested(10)) asked = { ...decodeSync(reader.message()), names: [] };
    else if (tag === nested(14)) asked = { ...decodeNames(reader.message()), syncFlow: 0, sids: [] };
    else reader.skip(tag);
  }
  return { seqno: need(seqno), cmd: need(cmd), ip, ...asked };
}

function decodeSync(reader: WireReader): Pick<FakeRequest, 'agentIp' | 'syncFlow' | 'sids'> {
  const numbers: (number | undefined)[] = [];
  const sids: [number, number][] = [];
  while (reader.more) {
    const tag = reader.tag();
    if (tag === int(1) || tag === int(2)) numbers[tag >>> 3] = reader.int32();
    else if (tag === nested(3)) {
      for (const list = reader.message(); list.more; ) {
        const item = list.tag();
        if (item !== nested(1)) list.skip(item);
        else {
          const pair: (number | undefined)[] = [];
          for (const one = list.message(); one.more; ) {
            const field = one.tag();
            if (field === int(1) || field === int(2)) pair[(field >>> 3) - 1] = one.int32();
            else one.skip(field);
          }
          sids.push([need(pair[0]), need(pair[1])]);
        }
      }
    } else reader.skip(tag);
  }
  return { agentIp: need(numbers[1]), syncFlow: need(numbers[2]), sids };
}

function decodeNames(reader: WireReader): Pick<FakeRequest, 'agentIp' | 'names'> {
  let agentIp: number | undefined;
  const names: string[] = [];
  while (reader.more) {
    const tag = reader.tag();
    if (tag === int(1)) agentIp = reader.int32();
    else if (tag === nested(2)) {
      for (const list = reader.message(); list.more; ) {
        const item = list.tag();
        if (item === nested(1)) names.push(list.text());
        else list.skip(item);
      }
    } else reader.skip(tag);
  }
  return { agentIp: need(agentIp), names };
}

function need(value: number | undefined): number {
  if (value === undefined) throw new WireFault('a required field is missing');
  return value;
}

/** The body of an answer; empty lists are absent. */
export function encodeAnswer(answer: FakeAnswer): Buffer {
  const message = new WireWriter().int32(1, answer.seqno).int32(2, answer.cmd).int32(3, answer.result);
  if (answer.error !== undefined) message.text(4, answer.error);
  message.int32(5, answer.ip);
  message.message(answer.cmd === 101 ? 11 : 15, (ack) => {
    ack.int32(1, answer.agentIp);
    if (answer.cmd === 101) ack.int32(2, answer.syncFlow);
    list(ack, 3, answer.serv, (out, { modId, cmdId, ip, port, weight }) => {
      out.int32(1, modId).int32(2, cmdId).int32(3, ip).int32(4, port).int32(5, weight);
    });
    // In a 105 the SIDs are field 3.
    list(ack, answer.cmd === 101 ? 4 : 3, answer.sids, (out, { modId, cmdId, name, policy }) => {
      out.int32(1, modId).int32(2, cmdId).text(3, name).int32(4, policy);
    });
    list(ack, 5, answer.ipc, (out, [ip, area, city, idc]) => {
      out.int32(1, ip).int32(2, area).int32(3, city).int32(4, idc);
    });
    if (answer.servers.length === 0) return;
    ack.message(7, (servers) => {
      for (const ip of answer.servers) servers.int32(1, ip);
    });
  });
  return message.toBuffer();
}

/** A list message whose field 1 repeats; absent when it would be empty. */
function list<T>(ack: WireWriter, field: number, items: readonly T[], write: (out: WireWriter, item: T) => void): void {
  if (items.length === 0) return;
  ack.message(field, (inner) => {
    for (const item of items) inner.message(1, (out) => write(out, item));
  });
}

/**
 * The address that a Polaris server makes of a host: it takes any text for a dotted quad and checks nothing, so that names and IPv6
 * become garbage (seen, 1.18.1).
 */
export function serverIp(host: string): number {
  let ip = 0n;
  let part = 0n;
  let shift = 0n;
  for (const char of host) {
    if (char === '.') {
      ip |= part << shift;
      shift += 8n;
      part = 0n;
    } else part = BigInt.asIntN(64, part * 10n + BigInt(char.charCodeAt(0) - 48));
  }
  ip |= part << shift;
  return Number(BigInt.asIntN(32, ip));
}

/** `serverIp` for people. */
export function servedAs(host: string): string {
  return dottedQuad(serverIp(host));
}
