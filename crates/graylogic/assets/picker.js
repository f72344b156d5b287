// The four lists that pick one series: bucket, measurement, tags, field. Each narrows the next; a change keeps what
// still fits of the rest. Must not know where the series come from.

import { sameSeries, tagsKey } from "./choice.js";
import * as format from "./format.js";

export class Picker {
  #bucket;
  #measurement;
  #tags;
  #field;
  #series = [];
  #chosen = null;
  #choose;

  /** `choose(series)` hears the series picked, `changeBucket(name)` the bucket. */
  constructor(parts, choose, changeBucket) {
    this.#bucket = parts["pick-bucket"];
    this.#measurement = parts["pick-measurement"];
    this.#tags = parts["pick-series"];
    this.#field = parts["pick-field"];
    this.#choose = choose;
    this.#bucket.addEventListener("change", () => changeBucket(this.#bucket.value));
    this.#measurement.addEventListener("change", () => this.#pick({ measurement: this.#measurement.value }));
    this.#tags.addEventListener("change", () => this.#pick({ tags: this.#tags.value }));
    this.#field.addEventListener("change", () => this.#pick({ field: this.#field.value }));
  }

  showBuckets(buckets, chosen) {
    fill(this.#bucket, buckets.map((bucket) => [bucket.name, `${format.shortened(bucket.name, 60)} (${kept(bucket)})`]), chosen);
  }

  showSeries(series, chosen) {
    this.#series = series;
    this.#chosen = chosen;
    const key = chosen ? tagsKey(chosen.tags) : null;
    const measurements = [...new Set(series.map((one) => one.measurement))].sort();
    fill(this.#measurement, measurements.map((name) => [name, format.shortened(name, 60)]), chosen?.measurement);
    const within = series.filter((one) => one.measurement === chosen?.measurement);
    const sets = new Map(within.map((one) => [tagsKey(one.tags), one.tags]));
    const named = [...sets].map(([value, tags]) => [value, tagsText(tags)]).sort((a, b) => a[1].localeCompare(b[1], "en", { numeric: true }));
    fill(this.#tags, named, key);
    const fields = within.filter((one) => tagsKey(one.tags) === key).map((one) => one.field).sort();
    fill(this.#field, fields.map((name) => [name, format.shortened(name, 60)]), chosen?.field);
  }

  // The nearest series to the one shown: the changed part must fit, of the rest as much as can.
  #pick(change) {
    const now = this.#chosen;
    const score = (one) => {
      if (change.measurement !== undefined) {
        if (one.measurement !== change.measurement) return -1;
        return (tagsKey(one.tags) === tagsKey(now?.tags) ? 2 : 0) + (one.field === now?.field ? 1 : 0);
      }
      if (one.measurement !== now?.measurement) return -1;
      if (change.tags !== undefined) return tagsKey(one.tags) === change.tags ? Number(one.field === now.field) : -1;
      return one.field === change.field && tagsKey(one.tags) === tagsKey(now.tags) ? 1 : -1;
    };
    let best = null;
    let most = -1;
    for (const one of this.#series) {
      const points = score(one);
      if (points > most) {
        best = one;
        most = points;
      }
    }
    if (best && !sameSeries(best, now)) this.#choose(best);
  }
}

function kept(bucket) {
  const series = `${format.count(bucket.series)} series`;
  return bucket.retention_seconds > 0 ? `${series}, kept ${format.span(bucket.retention_seconds * 1000)}` : series;
}

function tagsText(tags) {
  const entries = Object.entries(tags).sort(([a], [b]) => (a === "device_id" ? -1 : b === "device_id" ? 1 : a < b ? -1 : 1));
  if (entries.length === 0) return "no tags";
  return format.shortened(entries.map(([key, value]) => (key === "device_id" ? value : `${key} ${value}`)).join(" · "), 90);
}

const filled = new WeakMap();

// Options are only rebuilt when they changed: a list that is open must not close under the reader's hands.
function fill(select, options, chosen) {
  const content = JSON.stringify(options);
  if (filled.get(select) !== content) {
    filled.set(select, content);
    select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  }
  if (chosen !== null && chosen !== undefined && select.value !== chosen) select.value = chosen;
  select.disabled = options.length === 0;
}
