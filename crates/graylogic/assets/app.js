// The page's life: asks the store, hands the answers to their parts, follows what the reader does. The only file
// that knows all the others.

import * as api from "./api.js";
import { Chart } from "./chart.js";
import * as choice from "./choice.js";
import * as format from "./format.js";
import { Latest } from "./latest.js";
import { Picker } from "./picker.js";
import { Status } from "./status.js";

const POLL_MS = 2000;
const SERIES_AGE_MAX_MS = 30_000;
const ERROR_REST_MS = 10_000;
const BUSY_AFTER_MS = 150;
const SPAN_MIN_MS = 10;
const TIME_MAX_MS = 8.64e15;

const part = (id) => document.getElementById(id);
const parts = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));

const status = new Status(parts);
const chart = new Chart(part("canvas"), { zoom: (from, to) => zoomTo(from, to), reset: () => goHome(), read: showReadout });
const latest = new Latest(part("latest-rows"), part("latest-none"), part("latest-about"), (row) => chooseRow(row));
const picker = new Picker(parts, (chosen) => choose(chosen), (bucket) => changeBucket(bucket));

/** Everything the page remembers between two events. */
const page = {
  buckets: [], // as `ui/status` has them
  bucket: null,
  series: null, // as `ui/series` has them, of the bucket; null before the first answer
  chosen: null, // one of `series`, with its bucket
  range: { preset: "24h" },
  home: { preset: "24h" }, // the range to go back to after zooming
  shown: null, // the moments on the chart
  written: -1,
  answeredAt: null,
  seriesAt: -Infinity,
  seriesCount: -1,
  loadedAt: 0,
  loadedWritten: -1,
};
let loading = null;
let seriesLoading = null;

start();

function start() {
  const said = choice.read(location.hash);
  page.bucket = said.bucket;
  page.range = said.range;
  if (said.range.preset) page.home = said.range;
  part("zone").textContent = format.zone(Date.now());
  showRange();
  listen();
  poll();
  setInterval(() => latest.tick(Date.now()), 1000);
}

// Polling: one question after the other, never two at a time, and none while nobody looks.
async function poll() {
  if (!document.hidden) {
    try {
      const answer = await api.status();
      status.show(answer, performance.now());
      page.answeredAt = Date.now();
      await follow(answer);
    } catch (error) {
      status.fail(error, page.answeredAt);
      if (page.series === null) showMessage("Waiting for the store. The page tries again every two seconds.");
    }
  }
  setTimeout(poll, POLL_MS);
}

async function follow(answer) {
  page.buckets = answer.buckets;
  picker.showBuckets(answer.buckets, page.bucket);
  if (page.bucket === null || !answer.buckets.some((bucket) => bucket.name === page.bucket)) {
    // A bucket that is not there (an old link) gives way to the fullest one.
    const fullest = [...answer.buckets].sort((a, b) => b.series - a.series)[0];
    if (fullest) page.bucket = fullest.name;
    picker.showBuckets(answer.buckets, page.bucket);
  }
  const grown = answer.written_total !== page.written;
  page.written = answer.written_total;
  if (page.bucket === null) {
    latest.show({ rows: [], truncated: false });
    if (page.series === null) showNoSeries();
    return;
  }
  const aged = performance.now() - page.seriesAt > SERIES_AGE_MAX_MS;
  if (page.series === null || answer.series !== page.seriesCount || (aged && grown)) {
    page.seriesCount = answer.series;
    await loadSeries();
  }
  if (grown || page.series === null) latest.show(await api.latest(page.bucket));
  if (page.chosen && grown && isLive()) load({ quietly: true });
}

async function loadSeries() {
  seriesLoading?.abort();
  const mine = (seriesLoading = new AbortController());
  const bucket = page.bucket;
  try {
    const answer = await api.series(bucket, mine.signal);
    if (bucket !== page.bucket) return;
    page.seriesAt = performance.now();
    const first = page.series === null;
    page.series = answer.series;
    await countMeasurements(bucket, answer, mine.signal);
    if (answer.series.length === 0) {
      page.chosen = null;
      showNoSeries();
      return;
    }
    const before = page.chosen ?? wantedByAddress();
    const found = (before && answer.series.find((one) => choice.sameSeries(one, before))) || null;
    const same = page.chosen !== null && found !== null;
    page.chosen = { ...(found ?? preferred(answer.series)), bucket };
    picker.showSeries(answer.series, page.chosen);
    latest.mark(page.chosen);
    if (first || !same) load({ remember: "replace" });
  } catch (error) {
    if (api.isSuperseded(error)) return;
    page.series ??= [];
    showMessage(error.message, "Try again", () => {
      page.series = null;
      loadSeries();
    });
  }
}

// `ui/status` counts series, not measurements; they are few, so the names of every bucket are gathered once a change.
async function countMeasurements(bucket, answer, signal) {
  const names = new Set();
  let truncated = false;
  for (const one of page.buckets) {
    const list = one.name === bucket ? answer : await api.series(one.name, signal);
    for (const series of list.series) names.add(series.measurement);
    truncated ||= list.truncated;
  }
  status.showMeasurements(names.size, truncated);
}

function wantedByAddress() {
  const said = choice.read(location.hash);
  return said.measurement !== null && said.field !== null ? { ...said, tags: said.tags ?? {} } : null;
}

// Something to look at: numbers before texts, and the series with the most recent reading first.
function preferred(series) {
  const numbers = series.filter((one) => one.type !== "string" && one.type !== "boolean");
  return [...(numbers.length > 0 ? numbers : series)].sort((a, b) => Date.parse(b.newest) - Date.parse(a.newest))[0];
}

function isLive() {
  return page.shown?.live === true && performance.now() - page.loadedAt > Math.max(POLL_MS, Math.min(60_000, page.windowMs ?? 0) / 2);
}

/** Asks for the chosen series over the chosen range and shows the answer. */
async function load({ quietly = false, remember = null } = {}) {
  if (!page.chosen) return;
  loading?.abort();
  const mine = (loading = new AbortController());
  const { chosen } = page;
  page.shown = choice.resolve(page.range, Date.parse(chosen.oldest), Date.parse(chosen.newest), Date.now());
  if (remember) writeAddress(remember);
  if (!quietly) {
    showRange();
    hideMessage();
    part("chart-about").replaceChildren(...describe(chosen));
    setTimeout(() => {
      if (!mine.signal.aborted && loading === mine) busy(true);
    }, BUSY_AFTER_MS);
  }
  const { from, to } = page.shown;
  try {
    const answer = await api.range(chosen, from, to, chart.windowsWanted(), mine.signal);
    if (mine.signal.aborted) return;
    hideMessage();
    page.loadedAt = performance.now();
    page.windowMs = answer.window_seconds * 1000;
    showRange();
    if (answer.text) showTexts(answer, from, to);
    else showWindows(answer, from, to);
  } catch (error) {
    if (api.isSuperseded(error) || mine.signal.aborted) return;
    // A question that failed is not asked again at each poll.
    page.loadedAt = performance.now() + ERROR_REST_MS;
    chart.clear();
    part("texts").hidden = true;
    part("window-about").textContent = "\u00a0";
    showMessage(error.message, "Try again", () => load());
  } finally {
    if (loading === mine) {
      loading = null;
      busy(false);
    }
  }
}

function showWindows(answer, from, to) {
  part("texts").hidden = true;
  part("canvas").hidden = false;
  const about = { from, to, unit: format.unit(page.chosen.field), boolean: page.chosen.type === "boolean" };
  const { total, gaps, windows } = chart.show(answer, about);
  if (!total) {
    chart.clear();
    part("window-about").textContent = "\u00a0";
    showNoReadings(from, to);
    return;
  }
  const gapWords = gaps === 0 ? "" : ` · ${format.count(gaps)} ${gaps === 1 ? "gap" : "gaps"}`;
  const single = total.readings === windows ? "each reading" : `mean of ${format.width(answer.window_seconds)}, band from lowest to highest`;
  part("window-about").textContent = `${single} · ${format.count(windows)} ${windows === 1 ? "point" : "points"}${gapWords}`;
  part("plot").setAttribute("aria-label", `Chart of ${format.shortened(page.chosen.field, 60)}, ${format.between(from, to)}`);
}

// Texts have no mean: they are listed, the newest first.
function showTexts(answer, from, to) {
  const most = 500;
  chart.clear();
  part("canvas").hidden = true;
  part("texts").hidden = false;
  const rows = answer.time.map((time, at) => ({ time: time * 1000, text: answer.text[at] })).reverse();
  part("texts").replaceChildren(...rows.slice(0, most).map((row) => {
    const line = document.createElement("p");
    const when = document.createElement("time");
    when.textContent = format.moment(row.time);
    line.append(when, document.createTextNode(format.shortened(row.text ?? "", 300)));
    return line;
  }));
  part("window-about").textContent = rows.length > most ? `newest ${most} of ${format.count(rows.length)} texts` : `${format.count(rows.length)} texts`;
  if (rows.length === 0) showNoReadings(from, to);
}

function showNoReadings(from, to) {
  const oldest = Date.parse(page.chosen.oldest);
  const newest = Date.parse(page.chosen.newest);
  showMessage(`No readings in ${format.between(from, to)}. This series has readings from ${format.moment(oldest)} to ${format.moment(newest)}.`, "Show all", () =>
    setRange({ preset: "all" }));
}

function showNoSeries() {
  chart.clear();
  picker.showSeries([], null);
  part("chart-about").textContent = "";
  showMessage("Nothing is stored here yet. Run “graylogic demo” to fill the store with recordings, or “graylogic write” to add a reading of your own.");
}

function describe(chosen) {
  const name = document.createElement("b");
  name.textContent = format.shortened(chosen.field, 60);
  const tags = Object.entries(chosen.tags).map(([key, value]) => (key === "device_id" ? value : `${key} ${value}`));
  return [name, ` of ${format.shortened([chosen.measurement, ...tags].join(" · "), 160)}`];
}

function busy(on) {
  part("busy").hidden = !on;
  part("plot").toggleAttribute("aria-busy", on);
}

function showReadout(text, spoken) {
  part("readout").textContent = text || "\u00a0";
  if (spoken) part("spoken").textContent = text;
}

function showMessage(text, action = null, act = null) {
  part("message-text").textContent = text;
  part("message").hidden = false;
  part("message-action").hidden = action === null;
  part("message-action").textContent = action ?? "";
  part("message-action").onclick = act;
}

function hideMessage() {
  part("message").hidden = true;
}

// What the reader does.

function choose(chosen) {
  page.chosen = { ...chosen, bucket: page.bucket };
  latest.mark(page.chosen);
  picker.showSeries(page.series, page.chosen);
  load({ remember: "push" });
}

function chooseRow(row) {
  const found = page.series?.find((one) => choice.sameSeries(one, row));
  // A series can be younger than the list of series; its one reading is all that is known of it then.
  choose(found ?? { ...row, oldest: row.time, newest: row.time });
  const plot = part("chart-heading").getBoundingClientRect();
  if (plot.top < 0 || plot.top > innerHeight * 0.6) part("chart-heading").scrollIntoView({ block: "start" });
}

async function changeBucket(bucket) {
  page.bucket = bucket;
  page.series = null;
  page.chosen = null;
  page.seriesAt = -Infinity;
  history.pushState(null, "", choice.write({ bucket }, page.range));
  await loadSeries();
  try {
    latest.show(await api.latest(bucket));
  } catch (error) {
    status.fail(error, page.answeredAt);
  }
}

function setRange(range, { keepHome = false } = {}) {
  page.range = range;
  if (!keepHome) page.home = range;
  load({ remember: "push" });
}

function zoomTo(from, to) {
  const middle = (from + to) / 2;
  const half = Math.max((to - from) / 2, SPAN_MIN_MS / 2);
  const start = Math.max(-TIME_MAX_MS, Math.floor(middle - half));
  const stop = Math.min(TIME_MAX_MS, Math.ceil(middle + half));
  if (start < stop) setRange({ from: start, to: stop }, { keepHome: true });
}

function goHome() {
  if (JSON.stringify(page.range) === JSON.stringify(page.home)) load();
  else setRange(page.home);
}

function move(part) {
  if (!page.shown) return;
  const by = (page.shown.to - page.shown.from) * part;
  zoomTo(page.shown.from + by, page.shown.to + by);
}

function scale(by) {
  if (!page.shown) return;
  const middle = (page.shown.from + page.shown.to) / 2;
  const half = ((page.shown.to - page.shown.from) / 2) * by;
  zoomTo(middle - half, middle + half);
}

function writeAddress(how) {
  const address = choice.write(page.chosen, page.range);
  if (address === location.hash) return;
  if (how === "push") history.pushState(null, "", address);
  else history.replaceState(null, "", address);
}

function showRange() {
  for (const radio of document.querySelectorAll("#presets input")) radio.checked = radio.value === page.range.preset;
  if (!page.shown) return;
  part("zone").textContent = format.zone(page.shown.to);
  // A field that is being edited is not overwritten under the reader's hands.
  if (document.activeElement !== part("from")) part("from").value = localInput(page.shown.from);
  if (document.activeElement !== part("to")) part("to").value = localInput(page.shown.to);
}

function localInput(milliseconds) {
  const time = new Date(Math.floor(milliseconds / 1000) * 1000);
  const two = (number) => String(number).padStart(2, "0");
  const year = String(time.getFullYear()).padStart(4, "0");
  return `${year}-${two(time.getMonth() + 1)}-${two(time.getDate())}T${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
}

function listen() {
  part("filter").addEventListener("input", (event) => latest.filter(event.target.value));
  part("presets").addEventListener("change", (event) => setRange({ preset: event.target.value }));
  part("pick").addEventListener("submit", (event) => event.preventDefault());
  part("when").addEventListener("submit", (event) => {
    event.preventDefault();
    const from = new Date(part("from").value).getTime();
    const to = new Date(part("to").value).getTime();
    const wrong = !(from < to);
    part("to").setCustomValidity(wrong ? "The end must lie after the start." : "");
    if (wrong) part("to").reportValidity();
    else setRange({ from, to });
  });
  for (const id of ["from", "to"]) part(id).addEventListener("input", () => part("to").setCustomValidity(""));
  part("earlier").addEventListener("click", () => move(-0.5));
  part("later").addEventListener("click", () => move(0.5));
  part("closer").addEventListener("click", () => scale(0.5));
  part("wider").addEventListener("click", () => scale(2));
  part("reset").addEventListener("click", () => goHome());
  part("plot").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== part("plot")) return;
    const act = {
      ArrowLeft: () => (event.shiftKey ? move(-0.25) : chart.step(-1)),
      ArrowRight: () => (event.shiftKey ? move(0.25) : chart.step(1)),
      "+": () => scale(0.5),
      "=": () => scale(0.5),
      "-": () => scale(2),
      0: () => goHome(),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  addEventListener("popstate", () => {
    const said = choice.read(location.hash);
    page.range = said.range;
    if (said.range.preset) page.home = said.range;
    if (said.bucket !== null && said.bucket !== page.bucket) {
      page.bucket = said.bucket;
      page.series = null;
      page.chosen = null;
      picker.showBuckets(page.buckets, page.bucket);
      loadSeries();
      return;
    }
    const found = page.series?.find((one) => choice.sameSeries(one, { ...said, tags: said.tags ?? {} }));
    if (found) {
      page.chosen = { ...found, bucket: page.bucket };
      picker.showSeries(page.series, page.chosen);
      latest.mark(page.chosen);
    }
    load();
  });
  // A much wider chart has room for finer windows.
  let width = part("canvas").clientWidth;
  let settled = 0;
  new ResizeObserver(() => {
    clearTimeout(settled);
    settled = setTimeout(() => {
      const now = part("canvas").clientWidth;
      if (now > 0 && Math.abs(now - width) > width * 0.25) {
        width = now;
        load({ quietly: true });
      }
    }, 300);
  }).observe(part("canvas"));
}
