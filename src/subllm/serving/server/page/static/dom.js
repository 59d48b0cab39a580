// Elements without markup in strings: whatever a model or a client says is text.

export const $ = (id) => document.getElementById(id);

/** An element with attributes (`class`, `data-label`, ...) and children, which may be text. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Put `rows` into a table's body; what is unchanged stays, so that a selection does too. */
export function fill(body, rows) {
  const html = rows.map((row) => row.outerHTML).join("");
  if (body.dataset.shown !== html) {
    body.dataset.shown = html;
    body.replaceChildren(...rows);
  }
}

export function row(cells) {
  return element("tr", { role: "row" }, ...cells.map(({ label, number, content }) =>
    element("td", { role: "cell", "data-label": label, class: number ? "number" : null },
      ...[content].flat())));
}

/** A line through points [x, y], as an image whose text is `label`. */
export function curve(points, label) {
  const space = "http://www.w3.org/2000/svg";
  const made = document.createElementNS(space, "svg");
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const [low, high] = [Math.min(...ys), Math.max(...ys)];
  const at = ([x, y]) =>
    `${(100 * (x - left) / (right - left || 1)).toFixed(1)} ${(20 - 18 * (y - low) / (high - low || 1)).toFixed(1)}`;
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", `M${points.map(at).join("L")}`);
  made.setAttribute("viewBox", "0 0 100 21");
  made.setAttribute("preserveAspectRatio", "none");
  made.setAttribute("class", "curve");
  made.setAttribute("role", "img");
  made.setAttribute("aria-label", label);
  made.append(path);
  return made;
}
