// What the answer of `ui/range` means to a chart: where the line is broken, which dots stand alone, what the whole
// range comes to. Pure functions; must not know the page.

/**
 * The columns to draw: `time`, `mean`, `min`, `max`, `count`, with one null between two windows that are further
 * apart than the series' own rhythm.
 *
 * A window narrower than the rhythm of the readings is empty without anything missing: an hourly series in windows of
 * a minute has 59 empty ones an hour. So where most windows hold one reading, a gap is what exceeds the usual
 * distance (the 95th percentile) by more than 40 %; where they hold several, each empty window is a gap.
 */
export function columns(answer) {
  const filled = [];
  for (let at = 0; at < answer.time.length; at += 1) {
    if (answer.mean[at] !== null && Number.isFinite(answer.mean[at])) filled.push(at);
  }
  const limit = gapLimit(answer, filled);
  const drawn = { time: [], mean: [], min: [], max: [], count: [], gaps: 0 };
  let before = null;
  for (const at of filled) {
    const time = answer.time[at];
    if (before !== null && time - before > limit) {
      push(drawn, (before + time) / 2, null, null, null, 0);
      drawn.gaps += 1;
    }
    push(drawn, time, answer.mean[at], answer.min[at], answer.max[at], answer.count[at]);
    before = time;
  }
  return drawn;
}

function push(drawn, time, mean, min, max, count) {
  drawn.time.push(time);
  drawn.mean.push(mean);
  drawn.min.push(min);
  drawn.max.push(max);
  drawn.count.push(count);
}

function gapLimit(answer, filled) {
  const window = answer.window_seconds;
  if (filled.length < 3) return Math.max(window * 1.5, Number.MIN_VALUE);
  const several = filled.filter((at) => answer.count[at] > 1).length;
  if (window > 0 && several * 2 >= filled.length) return window * 1.5;
  const steps = [];
  for (let at = 1; at < filled.length; at += 1) steps.push(answer.time[filled[at]] - answer.time[filled[at - 1]]);
  steps.sort((a, b) => a - b);
  return Math.max(window, steps[Math.floor((steps.length - 1) * 0.95)]) * 1.4;
}

/** The places of readings that no line reaches: a null, or nothing, on both sides. */
export function alone(values) {
  const found = [];
  for (let at = 0; at < values.length; at += 1) {
    if (values[at] !== null && (values[at - 1] ?? null) === null && (values[at + 1] ?? null) === null) found.push(at);
  }
  return found;
}

/** Mean over all readings (not over windows), lowest, highest, and how many there are; null without any. */
export function summary(drawn) {
  let readings = 0;
  let sum = 0;
  let low = Infinity;
  let high = -Infinity;
  for (let at = 0; at < drawn.time.length; at += 1) {
    if (drawn.mean[at] === null) continue;
    readings += drawn.count[at];
    sum += drawn.mean[at] * drawn.count[at];
    low = Math.min(low, drawn.min[at]);
    high = Math.max(high, drawn.max[at]);
  }
  return readings === 0 ? null : { readings, mean: sum / readings, low, high };
}
