// Owns the choice of the picker for a policy's word. Called by cluster only.
import type { LoadBalancerPolicy } from '../model/policy.ts';
import { LeastRequestPicker } from './least-request.ts';
import type { Candidate, Picker } from './picker.ts';
import { RandomPicker } from './random.ts';
import { RoundRobinPicker } from './round-robin.ts';

/** A picker over `candidates`; the array is kept and must not change afterwards. */
export function buildPicker(policy: LoadBalancerPolicy, candidates: readonly Candidate[]): Picker {
  switch (policy) {
    case 'leastRequest':
      return new LeastRequestPicker(candidates);
    case 'roundRobin':
      return new RoundRobinPicker(candidates);
    case 'random':
      return new RandomPicker(candidates);
  }
}
