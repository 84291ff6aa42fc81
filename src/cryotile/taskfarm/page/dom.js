// Elements, and numbers, times and sizes in words. Text reaches the document as text, never as HTML.

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// Set a text only if it differs, so that screen readers and selections are left in peace.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export const count = (number) => number.toLocaleString("en");

export const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

const UNITS = [
  [1, "s", 120],
  [60, "min", 7200],
  [3600, "h", 172800],
  [86400, "days", Infinity],
];

function duration(seconds) {
  const [size, unit] = UNITS.find((each) => seconds < each[2]);
  return `${Math.max(0, Math.floor(seconds / size))} ${unit}`;
}

export const ago = (seconds) => `${duration(seconds)} ago`;

// A range such as "12 to 20 min"; the unit is that of the larger end.
export function range([low, high]) {
  const [size, unit] = UNITS.find((each) => high < each[2]);
  const ends = [Math.floor(low / size), Math.ceil(high / size)];
  return ends[0] === ends[1] ? `${ends[0]} ${unit}` : `${ends[0]} to ${ends[1]} ${unit}`;
}

export function rate(perSecond) {
  if (perSecond >= 10) return `${count(Math.round(perSecond))} a second`;
  if (perSecond * 60 >= 10) return `${Math.round(perSecond * 60)} a minute`;
  if (perSecond > 0) return `${Number((perSecond * 3600).toPrecision(2))} an hour`;
  return "none";
}

export function bytes(number) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = number > 0 ? Math.min(4, Math.floor(Math.log10(number) / 3)) : 0;
  return `${(number / 1000 ** power).toPrecision(3)} ${units[power]}`;
}

// Three significant digits, without a power of ten and without zeros at the end.
export function figure(value) {
  if (!Number.isFinite(value)) return "none";
  const size = Math.abs(value);
  return size >= 1000 ? count(Math.round(value)) : String(Number(value.toPrecision(3)));
}

export const instant = (seconds) =>
  `${new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ")} UTC`;

export const percent = (part, whole) => Math.floor((100 * part) / Math.max(1, whole));

// A table whose rows stay in place when values change: each row is known by its key.
export class Table {
  constructor(caption, columns) {
    this.columns = columns;
    this.rows = new Map();
    this.body = element("tbody");
    const head = columns.map(({ title, number }) =>
      element("th", { scope: "col", class: number ? "number" : null }, title),
    );
    this.head = element("tr", {}, ...head);
    this.table = element(
      "table",
      {},
      element("caption", {}, caption),
      element("thead", {}, this.head),
      this.body,
    );
    this.node = element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, this.table);
  }

  // Show items, a list of [key, item], in their order.
  show(items) {
    const old = this.rows;
    this.rows = new Map();
    for (const [key, item] of items) {
      const row = old.get(key) ?? this.newRow();
      old.delete(key);
      this.rows.set(key, row);
      this.columns.forEach((column, at) => column.fill(row.cells[at], item));
    }
    old.forEach((row) => row.remove());
    let before = this.body.firstChild;
    for (const row of this.rows.values()) {
      if (row === before) before = row.nextSibling;
      else this.body.insertBefore(row, before);
    }
  }

  newRow() {
    const cells = this.columns.map(({ title, number, head }) =>
      element(head ? "th" : "td", {
        scope: head ? "row" : null,
        class: number ? "number" : null,
        "data-label": title,
      }),
    );
    return element("tr", {}, ...cells);
  }
}

export const text = (title, value, options = {}) => ({
  title,
  ...options,
  fill: (cell, item) => say(cell, value(item)),
});
