// Numbers, sizes, times and names as people read them. Pure functions; must not know the page.

const LOCALE = "en-GB";
export const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

const whole = new Intl.NumberFormat(LOCALE, { maximumFractionDigits: 0 });
const day = new Intl.DateTimeFormat(LOCALE, { day: "numeric", month: "short", year: "numeric" });
const dayShort = new Intl.DateTimeFormat(LOCALE, { day: "numeric", month: "short" });
const minute = new Intl.DateTimeFormat(LOCALE, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const second = new Intl.DateTimeFormat(LOCALE, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const month = new Intl.DateTimeFormat(LOCALE, { month: "short" });

/** `1,234,567`. */
export const count = (value) => whole.format(value);

/** A reading with at most `digits` significant digits, never rounded above the decimal point. */
export function reading(value, digits = 6) {
  if (!Number.isFinite(value)) return String(value);
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e15 || size < 1e-6) return String(Number(value.toPrecision(digits)));
  const decimals = Math.max(0, Math.min(12, digits - 1 - Math.floor(Math.log10(size))));
  return value.toLocaleString(LOCALE, { maximumFractionDigits: decimals });
}

/** `12.3 kB`, in thousands, as disks are sold. */
export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let step = 0;
  let size = value;
  while (size >= 999.5 && step < units.length - 1) {
    size /= 1000;
    step += 1;
  }
  const decimals = step === 0 || size >= 100 ? 0 : size >= 10 ? 1 : 2;
  return `${size.toFixed(decimals)} ${units[step]}`;
}

/** A span in its two largest units: `2 min 5 s`, `3 h 12 min`, `4 y 61 d`. */
export function span(milliseconds) {
  const units = [["y", 31_536_000], ["d", 86_400], ["h", 3_600], ["min", 60], ["s", 1]];
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  const first = units.findIndex(([, unit]) => seconds >= unit);
  if (first < 0) return "0 s";
  const [name, unit] = units[first];
  const large = `${count(Math.floor(seconds / unit))} ${name}`;
  const next = units[first + 1];
  const small = next ? Math.floor((seconds % unit) / next[1]) : 0;
  return small > 0 ? `${large} ${small} ${next[0]}` : large;
}

/** The width of a window, which may be a fraction of a second. */
export function width(seconds) {
  return seconds >= 1 ? span(seconds * 1000) : `${reading(seconds * 1000, 3)} ms`;
}

/** `3 min ago`, `in 2 h`, in one unit. */
export function age(milliseconds) {
  const size = Math.abs(milliseconds);
  if (size < 1500) return "now";
  const units = [["y", 31_557_600_000], ["d", 86_400_000], ["h", 3_600_000], ["min", 60_000], ["s", 1000]];
  const [name, unit] = units.find(([, unit]) => size >= unit) ?? ["s", 1000];
  const whole = size >= 10 * unit || name !== "y" ? Math.floor(size / unit).toLocaleString(LOCALE) : (size / unit).toFixed(1);
  return milliseconds >= 0 ? `${whole} ${name} ago` : `in ${whole} ${name}`;
}

export const date = (milliseconds) => day.format(milliseconds);

/** `31 Jan 2008, 18:05:30`: seconds only where there are any. */
export function moment(milliseconds) {
  return `${day.format(milliseconds)}, ${clock(milliseconds)}`;
}

export function clock(milliseconds) {
  const fraction = ((milliseconds % 1000) + 1000) % 1000;
  if (fraction >= 0.5) return `${second.format(milliseconds)}.${String(Math.round(fraction)).padStart(3, "0")}`;
  return milliseconds % 60_000 === 0 ? minute.format(milliseconds) : second.format(milliseconds);
}

/** Two moments with nothing said twice: `31 Jan 2008, 18:05 – 18:10`. */
export function between(from, to) {
  const end = day.format(from) === day.format(to) ? clock(to) : moment(to);
  return `${moment(from)} – ${end}`;
}

/** The labels of a time axis: `splits` in seconds, `step` the seconds between two of them. */
export function ticks(splits, step) {
  let before = null;
  return splits.map((at) => {
    if (at === null) return "";
    const time = new Date(at * 1000);
    const newDay = before === null || before.toDateString() !== time.toDateString();
    const newYear = before === null || before.getFullYear() !== time.getFullYear();
    const year = newYear ? ` ${time.getFullYear()}` : "";
    before = time;
    if (step >= 28 * 86_400) return newYear ? `${month.format(time)}\n${time.getFullYear()}` : month.format(time);
    if (step >= 86_400) return newYear ? `${dayShort.format(time)}\n${time.getFullYear()}` : dayShort.format(time);
    const text = step < 1 ? clock(at * 1000) : step < 60 ? second.format(time) : minute.format(time);
    return newDay ? `${text}\n${dayShort.format(time)}${year}` : text;
  });
}

/** `Europe/Paris, UTC+1`: the zone's name and its offset at the time shown. */
export function zone(milliseconds) {
  const minutes = -new Date(milliseconds).getTimezoneOffset();
  const sign = minutes < 0 ? "−" : "+";
  const hours = Math.floor(Math.abs(minutes) / 60);
  const rest = Math.abs(minutes) % 60;
  const offset = minutes === 0 ? "UTC" : `UTC${sign}${hours}${rest ? `:${String(rest).padStart(2, "0")}` : ""}`;
  return ZONE === "UTC" ? "UTC" : `${ZONE}, ${offset}`;
}

/** At most `most` characters of a text from outside, saying what was left out. Names can be 64 KiB long. */
export function shortened(text, most = 120) {
  if (text.length <= most) return text;
  // A cut between the halves of a surrogate pair would show a broken character.
  let end = most;
  if (text.charCodeAt(end - 1) >= 0xd800 && text.charCodeAt(end - 1) <= 0xdbff) end -= 1;
  return `${text.slice(0, end)}… (${count(text.length)} characters)`;
}

const UNITS = [
  ["kwh", "kWh"], ["wh", "Wh"], ["watts", "W"], ["kw", "kW"], ["w_m2", "W/m²"], ["w", "W"], ["kvar", "kvar"], ["volts", "V"], ["v", "V"],
  ["amps", "A"], ["a", "A"], ["hz", "Hz"], ["celsius", "°C"], ["c", "°C"], ["percent", "%"], ["l_per_s", "l/s"], ["m_s", "m/s"], ["seconds", "s"],
];

/** The unit that a field's name ends in (`power_watts`: `W`), or nothing. */
export function unit(field) {
  const name = field.toLowerCase();
  return UNITS.find(([suffix]) => name === suffix || name.endsWith(`_${suffix}`))?.[1] ?? "";
}
