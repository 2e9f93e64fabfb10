// Owns how large the heap of a sidecar is: how far it grows before it is collected, and one collection that gives memory back after a
// burst. Called by run.ts, once, before the sidecar is loaded. Must never stop the event loop for a whole collection (100 ms and more).
import { getHeapSpaceStatistics, setFlagsFromString } from 'node:v8';

/** Time that the first answers of all sources take at most, ms. */
const START_BURST_MS = 15_000;
/** The heap is looked at this often, ms. The young generation may double several times between two looks of a burst. */
const LOOK_MS = 250;
const MIB = 1024 * 1024;
/** The young generation grows while it is smaller than this, bytes; it doubles, so the most is what comes after it. */
const YOUNG_ENOUGH = 12 * MIB;
const YOUNG_MOST = 16 * MIB;
/** The old generation is collected when it has grown by this much since the last time. */
const GROWTH_PERCENT = 30;

/**
 * A sidecar's heap grows in bursts (10,000 answers at a start, a reload, registries that are back) and is small otherwise. By default V8
 * lets the old generation nearly double before it looks again, and keeps a young generation of the size that the largest burst needed; a
 * host full of programs pays for both (560 MB instead of 360 with 100,000 instances from an etcd). After the start the young generation may
 * grow: requests live there, and a small one costs them a tenth. But not beyond what they need: a burst would leave it at 130 MB.
 */
export function keepHeapSmall(): void {
  setFlagsFromString(`--heap-growing-percent=${GROWTH_PERCENT}`);
  setFlagsFromString('--semi-space-growth-factor=1');
  setTimeout(() => {
    const shrinker = new Shrinker(setReducing);
    const look = (): void => {
      boundYoung();
      shrinker.look(process.memoryUsage());
    };
    setInterval(look, LOOK_MS).unref();
  }, START_BURST_MS).unref();
}

function boundYoung(): void {
  const young = getHeapSpaceStatistics().find(({ space_name }) => space_name === 'new_space')?.space_size ?? 0;
  setFlagsFromString(`--semi-space-growth-factor=${young < YOUNG_ENOUGH ? 2 : 1}`);
}

/**
 * While it is on, the next collections begin soon and give back what they free: pages with little on them, the pages that V8 keeps for the
 * next burst, the young generation. They mark beside the program as always; only their last step is longer (20 to 40 ms for 100 MB).
 */
function setReducing(on: boolean): void {
  setFlagsFromString(on ? '--optimize-for-size' : '--no-optimize-for-size');
  setFlagsFromString(`--incremental-marking-soft-trigger=${on ? 1 : 0}`);
}

/** A burst is over when the process has not grown for so many looks. */
const CALM_LOOKS = 2_000 / LOOK_MS;
/** A collection that gave this much back has done its work, bytes; another one may not come for so many looks. */
const GIVEN_BACK = 4 * MIB;
const MAX_LOOKS = 30_000 / LOOK_MS;

/**
 * When memory is worth being given back: once after the start, later when the process is larger than its garbage between two collections
 * explains, and grows no more. What it needs then is its new measure, so that it is not collected for that again.
 */
export class Shrinker {
  readonly #reduce: (on: boolean) => void;
  /** Bytes that are explained. */
  #expected = 0;
  #most = 0;
  #calm = 0;
  /** While it reduces: what it had at the beginning, and the looks since. */
  #reducing: { readonly from: number; looks: number } | null = null;

  constructor(reduce: (on: boolean) => void) {
    this.#reduce = reduce;
  }

  /** `rss`: resident memory now; `heapUsed`: objects, live or not, bytes. To be called every {@link LOOK_MS}. */
  look({ rss, heapUsed }: { readonly rss: number; readonly heapUsed: number }): void {
    const reducing = this.#reducing;
    if (reducing === null) this.#watch(rss);
    else if (reducing.from - rss >= GIVEN_BACK || ++reducing.looks >= MAX_LOOKS) {
      this.#reducing = null;
      this.#reduce(false);
      this.#expected = rss + (heapUsed * GROWTH_PERCENT) / 100 + YOUNG_MOST;
      this.#most = rss;
      this.#calm = 0;
    }
  }

  #watch(rss: number): void {
    this.#calm = rss > this.#most ? 0 : this.#calm + 1;
    this.#most = Math.max(this.#most, rss);
    if (this.#calm < CALM_LOOKS || rss <= this.#expected) return;
    this.#reducing = { from: rss, looks: 0 };
    this.#reduce(true);
  }
}
