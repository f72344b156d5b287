// The figures at the top: what is stored, how fast it grows, how the store is. Must not know the chart or the table.

import * as format from "./format.js";

const SAMPLES_MAX = 60;

export class Status {
  #parts;
  #before = null;
  #rates = [];
  #state = "waiting";

  /** `parts` are the elements by id. */
  constructor(parts) {
    this.#parts = parts;
    new ResizeObserver(() => this.#spark()).observe(parts.spark);
    document.addEventListener("themechange", () => this.#spark());
  }

  /** One answer of `ui/status`, received at `now` (milliseconds of a clock that only goes forward). */
  show(answer, now) {
    const set = (id, text) => {
      if (this.#parts[id].textContent !== text) this.#parts[id].textContent = text;
    };
    set("points", format.count(answer.points));
    set("series-count", format.count(answer.series));
    set("chunks", format.count(answer.chunks));
    set("bytes-on-disk", format.bytes(answer.bytes_on_disk));
    set("bytes-per-point", answer.points > 0 ? format.reading(answer.bytes_per_point, 3) : "–");
    set("log-bytes", format.bytes(answer.log_bytes));
    set("memory-bytes", format.bytes(answer.memory_bytes));
    set("uptime", format.span(Date.now() - Date.parse(answer.started)));
    set("version", `version ${format.shortened(answer.version, 30)}`);
    const oldest = Date.parse(answer.oldest ?? "");
    const newest = Date.parse(answer.newest ?? "");
    set("extent", Number.isFinite(oldest) && Number.isFinite(newest) ? `${format.date(oldest)} – ${format.date(newest)}` : "nothing stored yet");

    // The program started anew when its count went back; the difference would be no rate.
    if (this.#before && now > this.#before.now && answer.written_total >= this.#before.written && answer.started === this.#before.started) {
      this.#rates.push(((answer.written_total - this.#before.written) * 1000) / (now - this.#before.now));
      if (this.#rates.length > SAMPLES_MAX) this.#rates.shift();
    }
    this.#before = { now, written: answer.written_total, started: answer.started };
    const rate = this.#rates.at(-1);
    set("rate", rate === undefined ? "–" : format.reading(rate, rate >= 100 ? 3 : 2));
    const refused = answer.rejected_total > 0 ? ` · ${format.count(answer.rejected_total)} refused` : "";
    set("written", `${format.count(answer.written_total)} since start${refused}`);
    this.#parts.written.classList.toggle("bad", answer.rejected_total > 0);
    this.#spark();

    const degraded = answer.state !== "ok";
    this.#say(degraded ? "degraded" : "ok", degraded ? "Degraded" : "Storing");
    this.#notice(degraded ? format.shortened(answer.state_reason || "The store says it is degraded and gives no reason.", 400) : "");
  }

  showMeasurements(number, truncated) {
    this.#parts["measurement-count"].textContent = `${format.count(number)}${truncated ? "+" : ""}`;
  }

  /** No answer: the figures stay, and the page says how old they are. */
  fail(error, since) {
    this.#before = null;
    this.#say("unreachable", "No answer");
    this.#notice(since ? `${error.message} The figures below are of ${format.clock(since)}.` : error.message);
  }

  #say(state, word) {
    if (this.#state === state) return;
    this.#state = state;
    this.#parts.state.dataset.state = state;
    this.#parts["state-word"].textContent = word;
  }

  #notice(text) {
    this.#parts.notice.hidden = text === "";
    if (this.#parts.notice.textContent !== text) this.#parts.notice.textContent = text;
  }

  #spark() {
    const canvas = this.#parts.spark;
    const ratio = devicePixelRatio || 1;
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (width === 0 || height === 0) return;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const style = getComputedStyle(document.documentElement);
    const bottom = height - 1;
    pen.strokeStyle = style.getPropertyValue("--line-strong").trim();
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(0, bottom + 0.5);
    pen.lineTo(width, bottom + 0.5);
    pen.stroke();
    if (this.#rates.length < 2) return;
    const high = Math.max(...this.#rates, 1e-9);
    const step = width / (SAMPLES_MAX - 1);
    const place = (at) => [width - (this.#rates.length - 1 - at) * step, bottom - (this.#rates[at] / high) * (height - 4)];
    pen.beginPath();
    this.#rates.forEach((_, at) => pen.lineTo(...place(at)));
    pen.strokeStyle = style.getPropertyValue("--accent").trim();
    pen.lineWidth = 1.5;
    pen.lineJoin = "round";
    pen.stroke();
    pen.lineTo(width, bottom);
    pen.lineTo(place(0)[0], bottom);
    pen.fillStyle = style.getPropertyValue("--band").trim();
    pen.fill();
    canvas.setAttribute("aria-label", `Write rate over the last two minutes: now ${format.reading(this.#rates.at(-1), 3)}, highest ${format.reading(high, 3)} points per second`);
  }
}
