// Owns the list of real registries that tests can have. Called by available.ts and main.ts; a new registry is one more row here.
import { consul } from './consul.ts';
import { etcd34, etcd36 } from './etcd.ts';
import { polaris } from './polaris.ts';

/** A server that is running. */
export interface RunningRegistry {
  /** `host:port` that clients use. */
  readonly endpoint: string;
  /** Lines of configuration for a person who wants to try it. */
  readonly settings: readonly string[];
  /** What a shell wants to know: address, process, token; values are plain words. */
  readonly variables: Readonly<Record<string, string | number>>;
  stop(): Promise<void>;
}

export interface RegistryRow {
  /** As given to `npm run registries -- up <name>` and printed by the test runners. */
  readonly name: string;
  /** Where it can be had, or why not; builds it when `build`. */
  find(build: boolean): Promise<{ readonly available: boolean; readonly how: string }>;
  up(): Promise<RunningRegistry>;
}

export const REGISTRIES: readonly RegistryRow[] = [etcd36, etcd34, consul, polaris];
