// Owns what speaks against a migration in its two sources as such, whatever services they have: what the kinds can do, how the sources are
// now, and whether we may write to them. Called by plan.ts; must never write.
import type { Adapter } from '../adapter/contract.ts';
import { withDeadline } from '../kernel/cancel.ts';
import { messageOf } from '../kernel/errors.ts';
import type { ServiceKey } from '../model/service.ts';
import { asSourceError } from '../model/snapshot.ts';
import type { PlanInput } from './plan.ts';

/** A registry that does not say in this time what we may is not waited for, ms. */
const RIGHTS_MS = 10_000;

/** The plan's lists, in the making. */
export interface Faults {
  /** Each forbids the start. */
  readonly errors: string[];
  readonly warnings: string[];
}

/** By what the kinds can do, and how the sources are now. */
export function sideFaults(input: PlanInput, from: Adapter, to: Adapter, faults: Faults): void {
  capabilityFaults(input, from, to, faults);
  markerFaults(input, from, to, faults);
  for (const source of [input.spec.from, input.spec.to]) {
    const trouble = input.sources.trouble?.(source) ?? null;
    if (trouble !== null) faults.warnings.push(`${source} is ${trouble}: nothing is written before it is live`);
  }
}

function capabilityFaults({ spec, shared }: PlanInput, from: Adapter, to: Adapter, { errors, warnings }: Faults): void {
  if (!to.capabilities.register || to.put === undefined || to.remove === undefined) {
    errors.push(`${spec.to} (${to.kind}) cannot register: it can be \`from\` only`);
  }
  const returns = takesReturns(from);
  if (!returns) {
    warnings.push(
      `${spec.from} (${from.kind}) cannot register: there are no return copies, and what moves early is listed by status`,
    );
    if (spec.direction === 'twoWay') errors.push(`direction twoWay: ${spec.from} (${from.kind}) cannot register`);
  }
  if (!from.capabilities.list && from.services === undefined) {
    warnings.push(`${spec.from} (${from.kind}) lists no names: only services that are watched by name are seen`);
  }
  if (spec.liveness === 'connection') {
    if (shared)
      errors.push('liveness connection: a copy would be lost with its owner, and a fleet changes owners (state.shared)');
    if (to.capabilities.heartbeat !== 'server')
      errors.push(`liveness connection: ${spec.to} (${to.kind}) does not tie records to a connection`);
  }
  if (spec.liveness === 'persistent' && to.kind === 'nacos' && to.capabilities.heartbeat === 'server' && returns) {
    errors.push(
      `liveness persistent: ${spec.to} would turn its services persistent and refuse the providers' own registrations with 400; ` +
        `it is for a \`from\` that cannot register`,
    );
  }
}

/** Without metadata a copy carries no marker, and the ledger alone tells copies from natives (rule 5): by address, where ids are addresses. */
function markerFaults({ spec, shared }: PlanInput, from: Adapter, to: Adapter, { errors, warnings }: Faults): void {
  for (const [source, adapter] of [[spec.to, to] as const, [spec.from, from] as const]) {
    if (!adapter.capabilities.register || adapter.capabilities.keeps.has('metadata')) continue;
    const which = `${source} (${adapter.kind}) keeps no metadata, so that copies carry no markers there`;
    if (spec.direction === 'twoWay')
      errors.push(`direction twoWay: ${which}: a provider that registers there by itself could not be told from a copy`);
    if (shared) warnings.push(`${which}: only the sidecar that writes knows what is a copy, the others take it for native`);
    if (adapter === to) {
      warnings.push(
        `${which}: a provider that registers there under the id of its copy is taken for the copy and goes when its origin goes. ` +
          'finish with keepCopies before providers move. Copies that others make there look native and are returned',
      );
    } else warnings.push(`${which}: what returns to it under the id of a return copy is taken for the copy`);
  }
}

/** Whether we may write where copies and return copies go: asked before anything is written. */
export async function askRights(
  { spec, scope, clock }: PlanInput,
  from: Adapter,
  to: Adapter,
  { errors, warnings }: Faults,
  signal: AbortSignal,
): Promise<void> {
  const sides = [
    { path: 'to', source: spec.to, adapter: to, what: 'copies' },
    ...(takesReturns(from) ? [{ path: 'from', source: spec.from, adapter: from, what: 'return copies' }] : []),
  ];
  const keysIn = (source: string): ServiceKey[] => scope.services().flatMap((service) => scope.key(source, service) ?? []);
  await Promise.all(
    sides.map(async ({ path, source, adapter, what }) => {
      if (adapter.mayWrite === undefined) return;
      const keys = keysIn(source);
      if (keys.length === 0) return;
      try {
        const ask = async (until: AbortSignal) => adapter.mayWrite?.(keys, until) ?? [];
        for (const { causeKind, message } of await withDeadline(clock, RIGHTS_MS, signal, ask)) {
          const code = causeKind === 'denied' ? 'SOURCE_DENIED' : 'SOURCE_REFUSED';
          errors.push(`${path}: ${source} (${adapter.kind}) takes no ${what} from us, ${code}: ${message}`);
        }
      } catch (thrown) {
        signal.throwIfAborted();
        warnings.push(
          `${path}: whether ${source} takes ${what} from us cannot be asked now: ${messageOf(asSourceError(thrown))}`,
        );
      }
    }),
  );
}

function takesReturns({ capabilities, put }: Adapter): boolean {
  return capabilities.register && put !== undefined;
}
