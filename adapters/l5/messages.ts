// Owns the messages of the central protocol as the client sees them: requests 100 and 104 out, answers 101 and 105 in.
// Pure; called by link.ts and questions.ts. Rules are sent by some servers and ignored here, as weir has no use for them.
import { type Sid, sidOf } from './sid.ts';
import { BYTES, VARINT, WireFault, WireReader, WireWriter } from './wire.ts';

export const SYNC_BY_AGENT = 100;
export const SYNC_BY_AGENT_ACK = 101;
export const REGISTER_BY_NAME = 104;
export const REGISTER_BY_NAME_ACK = 105;
/** `result` of an answer that is good. */
export const RESULT_OK = 100;

/** An instance: numbers as they travel (`ip` int32, the rest unchecked). */
export interface ServEntry {
  readonly sid: Sid;
  readonly ip: number;
  readonly port: number;
  readonly weight: number;
}

/** A SID that is known; `name` is '' when it has none. */
export interface SidEntry {
  readonly sid: Sid;
  readonly name: string;
  readonly policy: number;
}

/** Where an address stands; 0 is unknown. */
export interface IpcEntry {
  readonly ip: number;
  readonly area: number;
  readonly city: number;
  readonly idc: number;
}

export interface SyncAnswer {
  readonly serv: readonly ServEntry[];
  readonly sids: readonly SidEntry[];
  readonly ipc: readonly IpcEntry[];
  /** Other L5 servers; null: not said. */
  readonly servers: readonly number[] | null;
}

export interface Answer {
  readonly seqno: number;
  readonly cmd: number;
  readonly result: number | null;
  readonly error: string;
  /** Of a 101. */
  readonly sync: SyncAnswer | null;
  /** Of a 105. */
  readonly names: readonly SidEntry[] | null;
}

/** The body of a request 100. `ip` is the caller's own address: it selects set and nearby location. */
export function encodeSync(seqno: number, ip: number, sids: readonly Sid[]): Buffer {
  const message = new WireWriter().int32(1, seqno).int32(2, SYNC_BY_AGENT).int32(5, ip);
  message.message(10, (sync) => {
    // sync_flow has no meaning for a server that keeps no sessions: it answers with one more.
    sync.int32(1, ip).int32(2, 1);
    if (sids.length === 0) return;
    sync.message(3, (list) => {
      for (const { modid, cmdid } of sids) list.message(1, (sid) => void sid.int32(1, modid).int32(2, cmdid));
    });
  });
  return message.toBuffer();
}

/** The body of a request 104. */
export function encodeNames(seqno: number, ip: number, names: readonly string[]): Buffer {
  const message = new WireWriter().int32(1, seqno).int32(2, REGISTER_BY_NAME).int32(5, ip);
  message.message(14, (ask) => {
    ask.int32(1, ip);
    if (names.length === 0) return;
    ask.message(2, (list) => {
      for (const name of names) list.text(1, name);
    });
  });
  return message.toBuffer();
}

const int = (field: number): number => (field << 3) | VARINT;
const nested = (field: number): number => (field << 3) | BYTES;

/** Throws WireFault for what is no `cl5_pkg`, a missing required field included. */
export function decodeAnswer(body: Buffer): Answer {
  const reader = new WireReader(body);
  let seqno: number | null = null;
  let cmd: number | null = null;
  let result: number | null = null;
  let error = '';
  let sync: SyncAnswer | null = null;
  let names: readonly SidEntry[] | null = null;
  while (reader.more) {
    const tag = reader.tag();
    if (tag === int(1)) seqno = reader.int32();
    else if (tag === int(2)) cmd = reader.int32();
    else if (tag === int(3)) result = reader.int32();
    else if (tag === nested(4)) error = reader.text();
    else if (tag === nested(11)) sync = decodeSync(reader.message());
    else if (tag === nested(15)) names = decodeNames(reader.message());
    else reader.skip(tag);
  }
  return { seqno: need(seqno, 'seqno'), cmd: need(cmd, 'cmd'), result, error, sync, names };
}

function decodeSync(reader: WireReader): SyncAnswer {
  const serv: ServEntry[] = [];
  const sids: SidEntry[] = [];
  const ipc: IpcEntry[] = [];
  let servers: number[] | null = null;
  const required = new Set(['agent_ip', 'sync_flow']);
  while (reader.more) {
    const tag = reader.tag();
    if (tag === int(1) || tag === int(2)) {
      reader.int32();
      required.delete(tag === int(1) ? 'agent_ip' : 'sync_flow');
    } else if (tag === nested(3)) each(reader.message(), (item) => serv.push(decodeServ(item)));
    else if (tag === nested(4)) each(reader.message(), (item) => sids.push(decodeSid(item)));
    else if (tag === nested(5)) each(reader.message(), (item) => ipc.push(decodeIpc(item)));
    else if (tag === nested(7)) {
      servers ??= [];
      integers(reader.message(), servers);
    } else reader.skip(tag);
  }
  for (const missing of required) throw new WireFault(`${missing} is missing`);
  return { serv, sids, ipc, servers };
}

function decodeNames(reader: WireReader): readonly SidEntry[] {
  const sids: SidEntry[] = [];
  let callerIp: number | null = null;
  while (reader.more) {
    const tag = reader.tag();
    if (tag === int(1)) callerIp = reader.int32();
    else if (tag === nested(3)) each(reader.message(), (item) => sids.push(decodeSid(item)));
    else reader.skip(tag);
  }
  need(callerIp, 'caller_ip');
  return sids;
}

function decodeServ(reader: WireReader): ServEntry {
  const [mod, cmd, ip, port, weight] = fields(reader, 5);
  return { sid: sidOf(need(mod, 'mod_id'), need(cmd, 'cmd_id')), ...addressOf(ip, port, weight) };
}

function addressOf(ip: number | undefined, port: number | undefined, weight: number | undefined): Omit<ServEntry, 'sid'> {
  return { ip: need(ip, 'ip'), port: need(port, 'port'), weight: need(weight, 'weight') };
}

function decodeIpc(reader: WireReader): IpcEntry {
  const [ip, area, city, idc] = fields(reader, 4);
  return { ip: need(ip, 'ip'), area: need(area, 'area_id'), city: need(city, 'city_id'), idc: need(idc, 'idc_id') };
}

function decodeSid(reader: WireReader): SidEntry {
  let mod: number | null = null;
  let cmd: number | null = null;
  let name = '';
  let policy = 0;
  while (reader.more) {
    const tag = reader.tag();
    if (tag === int(1)) mod = reader.int32();
    else if (tag === int(2)) cmd = reader.int32();
    else if (tag === nested(3)) name = reader.text();
    else if (tag === int(4)) policy = reader.int32();
    else reader.skip(tag);
  }
  return { sid: sidOf(need(mod, 'mod_id'), need(cmd, 'cmd_id')), name, policy };
}

/** Fields 1..count, all int32; the last one of a field wins. */
function fields(reader: WireReader, count: number): (number | undefined)[] {
  const values: (number | undefined)[] = [];
  while (reader.more) {
    const tag = reader.tag();
    if ((tag & 7) === VARINT && tag >>> 3 <= count) values[(tag >>> 3) - 1] = reader.int32();
    else reader.skip(tag);
  }
  return values;
}

/** Every item of a list message whose field 1 repeats. */
function each(reader: WireReader, item: (inner: WireReader) => void): void {
  while (reader.more) {
    const tag = reader.tag();
    if (tag === nested(1)) item(reader.message());
    else reader.skip(tag);
  }
}

/** Field 1, int32, one by one or packed. */
function integers(reader: WireReader, into: number[]): void {
  while (reader.more) {
    const tag = reader.tag();
    if (tag === int(1)) into.push(reader.int32());
    else if (tag === nested(1)) for (const packed = reader.message(); packed.more; ) into.push(packed.int32());
    else reader.skip(tag);
  }
}

function need(value: number | null | undefined, name: string): number {
  if (value === null || value === undefined) throw new WireFault(`${name} is missing`);
  return value;
}
