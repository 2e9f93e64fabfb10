// Owns the gate of a measured figure. Called by tests that measure time or CPU; must never hide a number: it is always printed.
//
// A figure of ours is meant for a quiet machine. Machines of CI are slower and share their cores, so there the gate is an alarm for
// a regression (`ALARM` times the figure); `WEIR_FIGURES=strict` holds the run to the figure itself.
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';

const ALARM = 2.5;

/** Prints `what: value unit (figure: limit)` and fails above the limit (strict) or above 2.5 times of it (elsewhere). */
export function assertFigure(t: Pick<TestContext, 'diagnostic'>, what: string, value: number, limit: number, unit: string): void {
  const strict = process.env['WEIR_FIGURES'] === 'strict';
  const shown = value >= 100 ? value.toFixed(0) : value.toFixed(2);
  t.diagnostic(`${what}: ${shown} ${unit} (figure: ${limit} ${unit})`);
  assert.ok(value <= limit * (strict ? 1 : ALARM), `${what}: ${shown} ${unit}, figure ${limit} ${unit}`);
}
