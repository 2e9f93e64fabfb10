// Owns what an adapter can do, as data: shown by the API, used by the conformance suite and the migration planner.

/** Fields of an instance that a registry may or may not keep. */
export type InstanceField = 'weight' | 'health' | 'isolated' | 'protocol' | 'version' | 'locality' | 'metadata';

export interface Capabilities {
  /** How a change reaches us. */
  readonly watch: 'push' | 'longPoll' | 'poll';
  /** Can list the names of services. */
  readonly list: boolean;
  /** Can put and remove instances. */
  readonly register: boolean;
  /** Who must keep a registration alive: nobody, the core's keeper by `renew`, or the adapter's own connection to the server. */
  readonly heartbeat: 'none' | 'core' | 'server';
  /** True where copies have no lease and stand until they are removed, whatever `heartbeat` says of own instances. */
  readonly copiesStand?: boolean;
  /** Records of one `put` that go into one call to the registry; absent: one each. */
  readonly writesPerCall?: number;
  /** True where all records of a service that live by our connection go in one call, however many; whatever `writesPerCall` says. */
  readonly setsByConnection?: boolean;
  /** Fields that are read from the registry (and so have a voice in M4). */
  readonly reads: ReadonlySet<InstanceField>;
  /** Fields that survive a `put`. */
  readonly keeps: ReadonlySet<InstanceField>;
  /** True where the protocol tells a deregistration on purpose from expiry (R2). */
  readonly tellsDeregistration: boolean;
  /** True where an unknown service and one without instances look different. */
  readonly tellsAbsent: boolean;
}
