// What the reader has chosen: one series and one range, as kept in the address after the `#`, so that a link or
// a reload shows the same. Must not know the page.

export const PRESETS = { "1h": 3_600_000, "6h": 21_600_000, "24h": 86_400_000, "7d": 604_800_000, "30d": 2_592_000_000 };
const SECOND = 1000;

/** One text per tag set, whatever the order its tags arrive in. */
export function tagsKey(tags) {
  return JSON.stringify(Object.entries(tags ?? {}).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)));
}

export const sameSeries = (a, b) =>
  a !== null && b !== null && a.measurement === b.measurement && a.field === b.field && tagsKey(a.tags) === tagsKey(b.tags);

/** What the address says: `{bucket, measurement, tags, field}` with nulls for what it does not, and a range. */
export function read(hash) {
  const said = new URLSearchParams(hash.replace(/^#/, ""));
  let tags = null;
  try {
    const parsed = JSON.parse(said.get("tags") ?? "null");
    if (parsed !== null && typeof parsed === "object" && !Array.isArray(parsed)) tags = parsed;
  } catch {
    // A damaged address chooses nothing; the page then picks a series itself.
  }
  const from = Date.parse(said.get("from") ?? "");
  const to = Date.parse(said.get("to") ?? "");
  const preset = said.get("range");
  let range = { preset: "24h" };
  if (Number.isFinite(from) && Number.isFinite(to) && from < to) range = { from, to };
  else if (preset === "all" || Object.hasOwn(PRESETS, preset ?? "")) range = { preset };
  return { bucket: said.get("bucket"), measurement: said.get("measurement"), field: said.get("field"), tags, range };
}

/** The address that says it. */
export function write(chosen, range) {
  const said = new URLSearchParams();
  said.set("bucket", chosen.bucket);
  if (chosen.field) {
    said.set("measurement", chosen.measurement);
    said.set("field", chosen.field);
    said.set("tags", JSON.stringify(chosen.tags));
  }
  if (range.preset) {
    said.set("range", range.preset);
  } else {
    said.set("from", new Date(range.from).toISOString());
    said.set("to", new Date(range.to).toISOString());
  }
  return `#${said}`;
}

/**
 * The moments a range means for a series with readings from `oldest` to `newest`.
 *
 * A preset ends now while the series has readings in it. A recording from another year would show nothing so: then
 * the preset ends at the last reading, and `live` is false.
 */
export function resolve(range, oldest, newest, now) {
  if (!range.preset) return { from: range.from, to: range.to, live: false };
  const end = Number.isFinite(newest) ? newest + SECOND : now;
  if (range.preset === "all") {
    const start = Number.isFinite(oldest) ? oldest : end - PRESETS["24h"];
    return { from: Math.min(start, end - 60 * SECOND), to: end, live: now - end < 60 * SECOND };
  }
  const length = PRESETS[range.preset];
  const live = !Number.isFinite(newest) || (newest <= now && newest >= now - length);
  const to = live ? now : end;
  return { from: to - length, to, live };
}
