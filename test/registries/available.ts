// Which real registries are at hand. Called by the test runners; starts nothing.
import { REGISTRIES } from './table.ts';

export interface AvailableRegistry {
  readonly name: string;
  readonly available: boolean;
  /** The binary, the address, or what is missing. */
  readonly how: string;
}

/** Asks every row of the table; with `build` what can be built is built (minutes at the first time, seconds later). */
export async function availableRegistries(options: { build?: boolean } = {}): Promise<readonly AvailableRegistry[]> {
  const found: AvailableRegistry[] = [];
  for (const row of REGISTRIES) found.push({ name: row.name, ...(await row.find(options.build === true)) });
  return found;
}
