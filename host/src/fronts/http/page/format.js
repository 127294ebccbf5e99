// Numbers and times as people read them.

const NUMBER = new Intl.NumberFormat("en");
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const SHORT_CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

export const number = (value) => NUMBER.format(value);

/** "1 service", "2 services". */
export const count = (value, one, many = `${one}s`) => `${number(value)} ${value === 1 ? one : many}`;

/** A length of time in seconds, to its greatest unit. */
export function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 120) return `${whole} s`;
  if (whole < 7200) return `${Math.floor(whole / 60)} min`;
  if (whole < 172800) return `${Math.floor(whole / 3600)} h`;
  return `${number(Math.floor(whole / 86400))} d`;
}

/** A time in seconds since 1970, with its day if that is not today. */
export function clock(unix) {
  const date = new Date(unix * 1000);
  const is_today = date.toDateString() === new Date().toDateString();
  return is_today ? CLOCK.format(date) : `${DAY.format(date)}, ${SHORT_CLOCK.format(date)}`;
}

export const short_clock = (unix) => SHORT_CLOCK.format(new Date(unix * 1000));

/** An address to connect to, IPv6 in brackets. */
export const address = (host, port) => (String(host).includes(":") ? `[${host}]:${port}` : `${host}:${port}`);

/** The URL, if a text is one that may be followed: nothing but http and https. */
export function link(text) {
  if (typeof text !== "string" || !/^https?:\/\/\S+$/i.test(text)) return null;
  try {
    const url = new URL(text);
    return url.protocol === "http:" || url.protocol === "https:" ? url.href : null;
  } catch {
    return null;
  }
}
