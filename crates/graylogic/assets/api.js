// The JSON the page asks for. Knows addresses and errors; must not know the page.

const DEADLINE_MS = 20_000;

export const status = (signal) => get("ui/status", {}, signal);
export const series = (bucket, signal) => get("ui/series", { bucket }, signal);
export const latest = (bucket, signal) => get("ui/latest", { bucket }, signal);

/** Windows of one series: `start` and `stop` are milliseconds, `points` the most windows wanted. */
export function range(chosen, start, stop, points, signal) {
  return get("ui/range", {
    bucket: chosen.bucket,
    measurement: chosen.measurement,
    field: chosen.field,
    tags: JSON.stringify(chosen.tags),
    start: new Date(start).toISOString(),
    stop: new Date(stop).toISOString(),
    points: String(points),
  }, signal);
}

/** Whether an error only says that a newer question took the place of this one. */
export const isSuperseded = (error) => error?.name === "AbortError";

// The addresses are relative, so that the page also works below a path of a reverse proxy.
async function get(path, query, signal) {
  const timeout = AbortSignal.timeout(DEADLINE_MS);
  const both = signal ? eitherOf(signal, timeout) : timeout;
  let response;
  try {
    response = await fetch(`${path}?${new URLSearchParams(query)}`, { signal: both, headers: { accept: "application/json" } });
  } catch (error) {
    if (signal?.aborted) throw error.name === "AbortError" ? error : new DOMException("superseded", "AbortError");
    if (timeout.aborted) throw new Error(`No answer within ${DEADLINE_MS / 1000} seconds.`);
    throw new Error("The store's program does not answer.");
  }
  let body;
  try {
    body = await response.json();
  } catch (error) {
    if (signal?.aborted) throw new DOMException("superseded", "AbortError");
    throw new Error(`The answer to ${path} was not JSON (status ${response.status}).`);
  }
  if (!response.ok) {
    throw new Error(typeof body?.error === "string" ? body.error : `The store answered with status ${response.status}.`);
  }
  return body;
}

// AbortSignal.any() is younger than some wall tablets; this is all of it that is needed here.
function eitherOf(first, second) {
  const both = new AbortController();
  for (const signal of [first, second]) {
    if (signal.aborted) both.abort();
    signal.addEventListener("abort", () => both.abort(), { once: true });
  }
  return both.signal;
}
