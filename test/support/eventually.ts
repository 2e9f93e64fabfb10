// Waits in real time for a claim to become true; the only way in which tests wait.

/** Calls `claim` every few ms until it returns without throwing (and not `false`), or throws its last error after `deadlineMs`. */
export async function eventually<T>(claim: () => T | Promise<T>, deadlineMs = 15_000, everyMs = 10): Promise<T> {
  const end = performance.now() + deadlineMs;
  for (;;) {
    let failure: unknown;
    try {
      const value = await claim();
      if (value !== false) return value;
      failure = new Error(`still false after ${deadlineMs} ms: ${claim.toString().slice(0, 200)}`);
    } catch (thrown) {
      failure = thrown;
    }
    if (performance.now() >= end) throw failure;
    await new Promise<void>((resolve) => setTimeout(resolve, everyMs));
  }
}
