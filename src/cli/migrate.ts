// Owns `weir migrate …` until migrations are built: it says so (contract.md: a command that is not built yet is refused with words).
import { usageFailure } from './io.ts';

/** Runs the command. */
export async function migrate(): Promise<never> {
  throw usageFailure('migrations (weir migrate) are not built yet in this version');
}
