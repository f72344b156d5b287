// The chart of one series: mean as a line, lowest to highest as a band, gaps as gaps. Draws what it is given and
// tells what the reader did to it; must not know where the numbers come from.

import * as format from "./format.js";
import { alone, columns, summary } from "./windows.js";

const HEIGHT_MIN = 220;
const DRAG_PIXELS_MIN = 6;

export class Chart {
  #place;
  #does;
  #plot = null;
  #drawn = null;
  #about = null;
  #cursor = null;

  /** `does` has `zoom(from, to)`, `reset()` and `read(text, spoken)`, times in milliseconds. */
  constructor(place, does) {
    this.#place = place;
    this.#does = does;
    new ResizeObserver(() => this.#fit()).observe(place);
    document.addEventListener("themechange", () => this.#redraw());
    place.addEventListener("mouseleave", () => this.#point(null));
  }

  /** How many windows this width can show apart: one for every two pixels. */
  windowsWanted() {
    return Math.max(100, Math.min(2000, Math.round((this.#place.clientWidth - 60) / 2)));
  }

  /** Draws one answer of `ui/range`; answers its summary, null when there is no reading in it. */
  show(answer, about) {
    this.#drawn = columns(answer);
    this.#about = { ...about, window: answer.window_seconds };
    this.#cursor = null;
    this.#redraw();
    const total = summary(this.#drawn);
    this.#does.read(this.#overall(total), false);
    return { total, gaps: this.#drawn.gaps, windows: this.#drawn.time.length - this.#drawn.gaps };
  }

  clear() {
    this.#plot?.destroy();
    this.#plot = null;
    this.#drawn = null;
    this.#does.read("", false);
  }

  /** Moves the reading mark by one window; for the keyboard. */
  step(direction) {
    const drawn = this.#drawn;
    if (!this.#plot || !drawn || drawn.time.length === 0) return;
    let at = this.#cursor ?? (direction > 0 ? -1 : drawn.time.length);
    do {
      at += direction;
    } while (at >= 0 && at < drawn.time.length && drawn.mean[at] === null);
    if (at < 0 || at >= drawn.time.length) return;
    this.#plot.setCursor({ left: this.#plot.valToPos(drawn.time[at], "x"), top: this.#plot.valToPos(drawn.mean[at], "y") }, false);
    this.#point(at, true);
  }

  #point(at, spoken = false) {
    this.#cursor = at;
    const drawn = this.#drawn;
    if (!drawn) return;
    if (at === null || drawn.mean[at] === null) {
      this.#does.read(this.#overall(summary(drawn)), false);
      return;
    }
    const { unit, window } = this.#about;
    const from = drawn.time[at] * 1000;
    const when = window > 0 && drawn.count[at] > 1 ? format.between(from, from + window * 1000) : format.moment(from);
    const value = (number) => (unit ? `${format.reading(number)} ${unit}` : format.reading(number));
    const spread = drawn.count[at] > 1
      ? ` · lowest ${value(drawn.min[at])} · highest ${value(drawn.max[at])} · ${format.count(drawn.count[at])} readings`
      : "";
    this.#does.read(`${when} · ${drawn.count[at] > 1 ? "mean " : ""}${value(drawn.mean[at])}${spread}`, spoken);
  }

  #overall(total) {
    if (!total) return "";
    const { unit } = this.#about;
    const value = (number) => (unit ? `${format.reading(number, 4)} ${unit}` : format.reading(number, 4));
    return `Mean ${value(total.mean)} · lowest ${value(total.low)} · highest ${value(total.high)} · ${format.count(total.readings)} ${total.readings === 1 ? "reading" : "readings"}`;
  }

  #size() {
    return { width: Math.max(200, this.#place.clientWidth), height: Math.max(HEIGHT_MIN, this.#place.clientHeight) };
  }

  #fit() {
    if (!this.#plot) return;
    const size = this.#size();
    if (size.width !== this.#plot.width || size.height !== this.#plot.height) this.#plot.setSize(size);
  }

  #redraw() {
    this.#plot?.destroy();
    this.#plot = null;
    if (!this.#drawn) return;
    const { time, mean, min, max } = this.#drawn;
    this.#plot = new globalThis.uPlot(this.#options(), [time, min, max, mean], this.#place);
  }

  #options() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const { from, to, boolean, window } = this.#about;
    const ink = colour("--muted");
    const grid = { stroke: colour("--line"), width: 1 };
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const singles = alone(this.#drawn.mean);
    const stepped = boolean && window <= 1 ? globalThis.uPlot.paths.stepped({ align: 1 }) : undefined;
    return {
      ...this.#size(),
      pxAlign: true,
      legend: { show: false },
      scales: { x: { time: true, range: () => [from / 1000, to / 1000] }, y: { range: boolean ? [-0.05, 1.05] : padded } },
      axes: [
        {
          stroke: ink, font, grid: { show: false }, ticks: { ...grid, size: 6 }, size: 46, space: 84,
          values: (_plot, splits, _axis, _space, step) => format.ticks(splits, step),
        },
        {
          stroke: ink, font, grid, ticks: { show: false }, gap: 10,
          values: (_plot, splits) => splits.map((value) => (value === null ? "" : format.reading(value, 8))),
          size: (_plot, values) => 20 + 7.2 * Math.max(3, ...(values ?? []).map((text) => text.length)),
        },
      ],
      series: [
        {},
        { points: { show: false }, width: 0, stroke: "transparent" },
        { points: { show: false }, width: 0, stroke: "transparent" },
        {
          stroke: colour("--accent"), width: 1.6, paths: stepped,
          points: {
            show: true, size: 5, width: 0, fill: colour("--accent"),
            filter: (plot, _series, _show, _gaps) => visibleDots(plot, singles),
          },
        },
      ],
      bands: [{ series: [2, 1], fill: colour("--band") }],
      cursor: {
        y: false,
        drag: { x: true, y: false, setScale: false, dist: DRAG_PIXELS_MIN },
        // Only the mean gets a mark: those of the band's two edges are drawn in nothing.
        points: {
          size: 8, width: 2,
          fill: (_plot, series) => (series === 3 ? colour("--accent") : "transparent"),
          stroke: (_plot, series) => (series === 3 ? colour("--surface") : "transparent"),
        },
        bind: {
          dblclick: () => () => {
            this.#does.reset();
            return null;
          },
        },
        dataIdx: (plot, _series, at) => nearest(plot, this.#drawn.mean, at),
      },
      hooks: {
        setCursor: [(plot) => {
          if (plot.cursor.left >= 0 && plot.cursor.event) this.#point(nearest(plot, this.#drawn.mean, plot.cursor.idx));
        }],
        setSelect: [(plot) => {
          const { left, width } = plot.select;
          if (width < DRAG_PIXELS_MIN) return;
          const start = plot.posToVal(left, "x") * 1000;
          const stop = plot.posToVal(left + width, "x") * 1000;
          plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
          this.#does.zoom(start, stop);
        }],
      },
    };
  }
}

// A flat series still needs a scale with a height, and the line should not touch the frame.
function padded(_plot, low, high) {
  if (low === null || high === null || !Number.isFinite(low) || !Number.isFinite(high)) return [0, 1];
  if (low === high) {
    const room = Math.max(Math.abs(low) * 0.1, 1e-9) || 1;
    return low === 0 ? [-1, 1] : [low - room, high + room];
  }
  return globalThis.uPlot.rangeNum(low, high, 0.08, true);
}

// Dots on each reading while they stand well apart; otherwise only on those that no line reaches.
function visibleDots(plot, singles) {
  const [first, last] = plot.series[0].idxs;
  if (last - first < plot.bbox.width / devicePixelRatio / 14) return null;
  return singles.length > 0 ? singles : [];
}

// The place of the nearest reading: a mark on the null in a gap would have nothing to say.
function nearest(plot, values, at) {
  if (at === null || at === undefined || values[at] !== null) return at ?? null;
  for (let away = 1; away < values.length; away += 1) {
    for (const other of [at - away, at + away]) if (values[other] !== null && values[other] !== undefined) return other;
  }
  return null;
}
