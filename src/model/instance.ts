// Owns what one registry says of one address. Plain readonly data; made by adapters, never changed.

/** A registry's own id of a record; opaque, unique within one service of one source. */
export type NativeId = string;

/** The registry's word on health. `unknown`: it has none, or its word is not to be trusted now (Nacos protection). */
export type RegistryHealth = 'healthy' | 'unhealthy' | 'unknown';

/** Where an instance stands; each part may be missing. */
export interface Locality {
  readonly region?: string;
  readonly zone?: string;
  readonly campus?: string;
}

/** One address that a registry reports. */
export interface Instance {
  readonly id: NativeId;
  /** Canonical host (kernel/address.ts): IP literal without brackets, or a name where the source allows names. */
  readonly host: string;
  /** 1..65535. */
  readonly port: number;
  readonly transport: 'tcp' | 'udp';
  /** Integer 0..65535, 100 = normal; 0 takes no traffic. */
  readonly weight: number;
  readonly health: RegistryHealth;
  /** The operator's word in the registry: disabled, maintenance, isolated. */
  readonly isolated: boolean;
  /** Application protocol (http, grpc, …), where the registry knows it. */
  readonly protocol?: string;
  readonly version?: string;
  readonly locality?: Locality;
  /** At most 64 keys of 128 B with values of 1 KiB (catalog-rules M4); see metadata.ts. */
  readonly metadata: ReadonlyMap<string, string>;
}

/** Shared empty metadata: most instances of a large catalog have none of their own. */
export const NO_METADATA: ReadonlyMap<string, string> = new Map();

/** The normal weight. */
export const NORMAL_WEIGHT = 100;
export const MAX_WEIGHT = 65_535;

/** catalog-rules M4: `round(100 · native / normal)`, clamped; 0 stays 0, > 0 never becomes 0; null for NaN, negative, infinite. */
export function scaleWeight(native: number, normal: number): number | null {
  if (!Number.isFinite(native) || native < 0) return null;
  if (native === 0) return 0;
  return Math.min(MAX_WEIGHT, Math.max(1, Math.round((NORMAL_WEIGHT * native) / normal)));
}

/** The inverse of {@link scaleWeight}: our weight on a registry's scale; > 0 never becomes 0. `step` is the registry's smallest step. */
export function nativeWeight(weight: number, normal: number, step: number): number {
  if (weight === 0) return 0;
  return Math.max(step, Math.round((weight * normal) / NORMAL_WEIGHT / step) * step);
}

export function sameLocality(a: Locality | undefined, b: Locality | undefined): boolean {
  if (a === b) return true;
  return a?.region === b?.region && a?.zone === b?.zone && a?.campus === b?.campus;
}
