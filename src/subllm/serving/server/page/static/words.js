// Numbers and reasons for people.

export const REASONS = {
  model: "named",
  language: "language given",
  path: "by the file's name",
  fence: "by a code block's tag",
  named: "by a language named in the text",
  content: "by what the code looks like",
  session: "the last language used",
  fallback: "no sub-model fits better",
};

export const ENDS = { stop: "done", length: "length reached", abort: "stopped" };

const UNITS = ["bytes", "kB", "MB", "GB", "TB"];

/** As the command line counts: decimal. */
export function size(bytes) {
  let unit = 0;
  while (bytes >= 1000 && unit < UNITS.length - 1) { bytes /= 1000; unit += 1; }
  return `${bytes.toFixed(unit < 2 ? 0 : 1)} ${UNITS[unit]}`;
}

export function count(tokens) {
  if (tokens >= 1e6) return `${(tokens / 1e6).toFixed(1)}M`;
  return tokens >= 1e4 ? `${Math.round(tokens / 1000)}k` : tokens.toLocaleString("en");
}

export const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;

export const rate = (speed) =>
  speed ? `${speed.toFixed(speed >= 20 ? 0 : 1)} tok/s` : "";

export function seconds(time) {
  if (time === null || time === undefined) return "";
  return time < 1 ? `${Math.round(1000 * time)} ms` : `${time.toFixed(1)} s`;
}

export function duration(time) {
  if (time < 90) return `${Math.round(time)} s`;
  if (time < 5400) return `${Math.round(time / 60)} min`;
  return `${(time / 3600).toFixed(1)} h`;
}
