// Owns the types by which an exchange reaches the rest of the data plane. Types only; data-plane.ts and listener.ts implement them.
import type { Clock } from '../kernel/clock.ts';
import type { Log } from '../kernel/log.ts';
import type { Random } from '../kernel/random.ts';
import type { TimerWheel } from '../kernel/timer-wheel.ts';
import type { ServiceId } from '../model/service.ts';
import type { Counter } from '../telemetry/metrics.ts';
import type { AccessLog } from './access-log.ts';
import type { LocalCode } from './local-reply.ts';
import type { OverloadGate } from './overload.ts';
import type { FilterContext } from './request-filter.ts';
import type { Router } from './route.ts';
import type { ServiceSlot } from './service-slot.ts';

/** Why there is no cluster: never heard of it, or no source has answered yet. */
export type NoCluster = 'unknown' | 'notReady';

/** What all exchanges share; one per data plane. */
export interface ProxyContext {
  readonly clock: Clock;
  readonly wheel: TimerWheel;
  readonly random: Random;
  readonly log: Log;
  readonly gate: OverloadGate;
  readonly router: Router;
  readonly accessLog: AccessLog;
  readonly dropped: { readonly twins: Counter; readonly identity: Counter; readonly named: Counter };
  /** A new x-request-id. */
  readonly newId: () => string;
  countLocalReply(code: LocalCode): void;
  /** `pending`: asked for at this first use, see `wait`. */
  find(service: ServiceId): ServiceSlot | NoCluster | 'pending';
  /** For a name that is `pending`: calls back once, within a second. The returned function cancels. */
  wait(service: ServiceId, waiter: (answer: ServiceSlot | NoCluster) => void): () => void;
}

/** What the exchanges of one listener share; replaced as a whole when the configuration changes. */
export interface ListenerFacts {
  readonly filter: FilterContext;
  /** Null on the main port. */
  readonly service: ServiceId | null;
  readonly isTrusted: (address: string) => boolean;
}
