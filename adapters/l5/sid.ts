// Owns the two kinds of numbers of L5: SIDs (`modid:cmdid`, both unsigned 32 bits) and addresses as int32 with the first octet in the
// lowest byte. Pure; called by everything in this folder.

/** A service id of L5. Both parts are unsigned here; on the wire they travel as int32. */
export interface Sid {
  readonly modid: number;
  readonly cmdid: number;
}

/** `modid:cmdid` in decimal; the key of every Map about SIDs. */
export type SidText = string;

const SID = /^(0|[1-9]\d{0,9}):(0|[1-9]\d{0,9})$/;
const MAX_UINT32 = 4_294_967_295;

/** Null for anything but two plain decimals of 0..4294967295. */
export function parseSid(text: string): Sid | null {
  const match = SID.exec(text);
  if (match === null) return null;
  const modid = Number(match[1]);
  const cmdid = Number(match[2]);
  return modid <= MAX_UINT32 && cmdid <= MAX_UINT32 ? { modid, cmdid } : null;
}

export function sidText({ modid, cmdid }: Sid): SidText {
  return `${modid}:${cmdid}`;
}

/** The SID of two integers of the wire. */
export function sidOf(modId: number, cmdId: number): Sid {
  return { modid: modId >>> 0, cmdid: cmdId >>> 0 };
}

/** By number, so that lists and requests look the same on every machine. */
export function compareSids(a: Sid, b: Sid): number {
  return a.modid - b.modid || a.cmdid - b.cmdid;
}

/** An int32 of the wire as a dotted quad: 16777343 is 127.0.0.1. */
export function dottedQuad(ip: number): string {
  return `${ip & 255}.${(ip >>> 8) & 255}.${(ip >>> 16) & 255}.${ip >>> 24}`;
}

/** A dotted quad (also as `::ffff:a.b.c.d`, which sockets report) as an int32 of the wire; null for anything else. */
export function ipNumber(text: string): number | null {
  const match = /^(?:::ffff:)?(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/i.exec(text);
  if (match === null) return null;
  let ip = 0;
  for (let n = 0; n < 4; n++) {
    const octet = Number(match[n + 1]);
    if (octet > 255) return null;
    ip |= octet << (8 * n);
  }
  return ip;
}
