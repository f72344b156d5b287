// The table of latest values. Rows are kept and changed in place, so that a poll neither flickers nor loses the
// focus; every text from outside becomes a text node. Must not know where the rows come from.

import { tagsKey } from "./choice.js";
import * as format from "./format.js";

const ROWS_MAX = 200;

export class Latest {
  #body;
  #none;
  #about;
  #choose;
  #rows = [];
  #truncated = false;
  #answered = false;
  #shown = new Map();
  #filter = "";
  #chosen = null;

  /** `choose(row)` hears which row the reader wants on the chart. */
  constructor(body, none, about, choose) {
    this.#body = body;
    this.#none = none;
    this.#about = about;
    this.#choose = choose;
  }

  show(answer) {
    this.#rows = answer.rows
      .map((row) => ({ ...row, key: keyOf(row), at: Date.parse(row.time), words: wordsOf(row) }))
      .sort((a, b) => (a.words < b.words ? -1 : a.words > b.words ? 1 : 0));
    this.#truncated = answer.truncated;
    this.#answered = true;
    this.#draw();
  }

  filter(text) {
    this.#filter = text.trim().toLowerCase();
    this.#draw();
  }

  /** Marks the series that the chart shows. */
  mark(chosen) {
    this.#chosen = chosen ? keyOf(chosen) : null;
    for (const [key, row] of this.#shown) row.mark(key === this.#chosen);
  }

  /** The ages go on between two polls. */
  tick(now) {
    for (const row of this.#shown.values()) row.tick(now);
  }

  #draw() {
    const wanted = this.#filter.split(/\s+/).filter(Boolean);
    const fitting = this.#rows.filter((row) => wanted.every((word) => row.words.includes(word)));
    const visible = fitting.slice(0, ROWS_MAX);
    const now = Date.now();
    const keep = new Set();
    let after = null;
    for (const row of visible) {
      keep.add(row.key);
      let element = this.#shown.get(row.key);
      if (!element) {
        element = new Row(row, this.#choose);
        this.#shown.set(row.key, element);
      }
      element.update(row, now);
      element.mark(row.key === this.#chosen);
      const place = after === null ? this.#body.firstElementChild : after.nextElementSibling;
      if (place !== element.node) this.#body.insertBefore(element.node, place);
      after = element.node;
    }
    for (const [key, element] of this.#shown) {
      if (!keep.has(key)) {
        element.node.remove();
        this.#shown.delete(key);
      }
    }
    this.#none.hidden = visible.length > 0;
    if (this.#rows.length === 0) {
      this.#none.textContent = this.#answered ? "No values yet in this bucket." : "Waiting for the first answer.";
    } else {
      this.#none.textContent = "No value fits the filter.";
    }
    const all = `${format.count(this.#rows.length)}${this.#truncated ? " or more" : ""}`;
    if (!this.#answered) this.#about.textContent = "";
    else if (visible.length < this.#rows.length || this.#truncated) this.#about.textContent = `${format.count(visible.length)} of ${all} series`;
    else this.#about.textContent = `${all} series`;
  }
}

class Row {
  node = document.createElement("tr");
  #cells = {};
  #row = null;
  #text = null;

  constructor(row, choose) {
    const cell = (name, className = "") => {
      const made = document.createElement("td");
      made.className = `${name} ${className}`.trim();
      this.node.append(made);
      this.#cells[name] = made;
      return made;
    };
    cell("measurement").textContent = format.shortened(row.measurement, 60);
    describe(cell("tags"), row.tags);
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = format.shortened(row.field, 60);
    button.title = "Show on the chart";
    cell("field").append(button);
    cell("value", "number");
    cell("time");
    cell("age", "number");
    this.node.addEventListener("click", (event) => {
      // A reader who selects text to copy it is not asking for another chart.
      if (event.target === button || String(getSelection()) === "") choose(this.#row);
    });
  }

  update(row, now) {
    const text = valueText(row);
    if (this.#text !== null && this.#text !== text) {
      this.#cells.value.classList.remove("changed");
      // Reading a size makes the browser apply the removal, so that the fade starts anew.
      void this.#cells.value.offsetWidth;
      this.#cells.value.classList.add("changed");
    }
    this.#row = row;
    this.#text = text;
    this.#cells.value.textContent = text;
    this.#cells.value.classList.toggle("text", row.type === "string");
    this.#cells.time.textContent = Number.isFinite(row.at) ? format.moment(Math.floor(row.at / 1000) * 1000) : format.shortened(row.time, 40);
    this.#cells.time.title = row.time;
    this.tick(now);
  }

  tick(now) {
    this.#cells.age.textContent = Number.isFinite(this.#row.at) ? format.age(now - this.#row.at) : "";
  }

  mark(chosen) {
    if (chosen) this.node.setAttribute("aria-current", "true");
    else this.node.removeAttribute("aria-current");
  }
}

const keyOf = (row) => JSON.stringify([row.measurement, row.field, tagsKey(row.tags)]);

function wordsOf(row) {
  const tags = Object.entries(row.tags).map(([key, value]) => `${key}=${value}`).sort();
  return [row.measurement, ...tags, row.field].join(" ").toLowerCase();
}

function valueText(row) {
  if (typeof row.value === "number") {
    const unit = format.unit(row.field);
    return unit ? `${format.reading(row.value)} ${unit}` : format.reading(row.value);
  }
  return format.shortened(String(row.value), 80);
}

// The device stands first and plain; the other tags follow with their names.
function describe(cell, tags) {
  const entries = Object.entries(tags).sort(([a], [b]) => (a === "device_id" ? -1 : b === "device_id" ? 1 : a < b ? -1 : 1));
  if (entries.length === 0) {
    cell.textContent = "no tags";
    cell.classList.add("without");
    return;
  }
  for (const [key, value] of entries) {
    const tag = document.createElement("span");
    tag.className = key === "device_id" ? "tag device" : "tag";
    if (key !== "device_id") {
      const name = document.createElement("span");
      name.className = "name";
      name.textContent = format.shortened(key, 40);
      tag.append(name, " ");
    }
    tag.append(document.createTextNode(format.shortened(value, 60)));
    cell.append(tag);
  }
}
