// Owns the golden vectors of the central protocol: composed by hand from the schema, and answered like this by a running Polaris
// 1.18.1 (protocol notes, sections 12 and 15). Whole frames, hexadecimal. Read by tests only.

const D = '18ff80801020903f28640a1a08c1f4c65b10cddf1d18c0d1c2e0faffffffff0120ffff032832';
const SERV = `1a310a1308c1f4c65b10cddf1d${D}`;
const SID = '22160a1408c1f4c65b10cddf1d1a0764656d6f2e6c352001';
const BOTH_PLACES = '2a200a0b08ff8080101000180020000a1108c0d1c2e0faffffffff01100018002000';
const HERE = '3a0508ff808008';

/** Request 100 for one SID. */
export const V1 = '0100250000000807106428ff808008521408ff80800810011a0b0a0908c1f4c65b10cddf1d';
/** Two instances (one with a negative address), name, nearby on, one place, one server. */
export const V2 = `01007b00000008071065186428ff8080085a6808ff8080081002${SERV}${SID}2a0d0a0b08ff808010100018002000${HERE}`;
/** Request 104 for one name. */
export const V3 = '0100210000000808106828ff808008721008ff80800812090a0764656d6f2e6c35';
export const V4 = '01003000000008081069186428ff8080087a1d08ff8080081a160a1408c1f4c65b10cddf1d1a0764656d6f2e6c352000';
/** Unknown SID, or nothing healthy. */
export const V5 = '01001a00000008071065186428ff8080085a0708ff8080081002';
/** Known, nothing for this caller. */
export const V6 = `01003200000008071065186428ff8080085a1f08ff8080081002${SID}`;
/** A 104 whose name nobody knows. */
export const NO_NAME = '01001800000008081069186428ff8080087a0508ff808008';
/** V2 as a server answers it: both places, no server list. */
export const V2_SERVER = `01008700000008071065186428ff8080085a7408ff8080081002${SERV}${SID}${BOTH_PLACES}`;
/** And with the server list. */
export const V2_SERVER_LIST = `01008e00000008071065186428ff8080085a7b08ff8080081002${SERV}${SID}${BOTH_PLACES}${HERE}`;
/** V5 with the server list. */
export const V5_LIST = '01002100000008071065186428ff8080085a0e08ff80800810023a0508ff808008';
/** Heads at which both sides close. */
export const BAD_HEADS = ['010006000000', '010000000000', '0100ffffffff'] as const;

export const ANSWERS = [V2, V4, V5, V6, NO_NAME, V2_SERVER, V2_SERVER_LIST, V5_LIST] as const;

export function bytes(hex: string): Buffer {
  return Buffer.from(hex, 'hex');
}
