// The runs of the user: how far each is, how fast it goes and when it may end.

import { change, form } from "page/actions";
import { Table, ago, count, element, percent, plural, range, rate, say, text } from "page/dom";

export const titleOf = (run) => run.name || run.key;

export function left(run) {
  if (run.paused) return "paused";
  if (run.waiting + run.leased === 0) return "ended";
  return run.seconds_left === null ? "no worker" : range(run.seconds_left);
}

const seen = (run) => (run.seen === null ? "never" : ago(Math.max(0, now(run) - run.seen)));

// The clock of the server at this moment, from what it was when the answer came.
const now = (run) => run.clock + (performance.now() - run.received) / 1000;

const leftSeconds = (run) => (run.waiting + run.leased === 0 ? -1 : (run.seconds_left?.[1] ?? Infinity));

const COLUMNS = [
  {
    title: "Run",
    head: true,
    order: titleOf,
    fill: (cell, run) => {
      if (cell.firstChild === null) cell.append(element("a", { href: `#/runs/${run.run}` }));
      say(cell.firstChild, titleOf(run));
    },
  },
  text("Owner", (run) => run.owner ?? "", { order: (run) => run.owner ?? "" }),
  {
    title: "Progress",
    order: (run) => run.done / Math.max(1, run.tasks),
    fill: (cell, run) => {
      if (cell.firstChild === null) cell.append(element("progress", {}), element("span", {}));
      const [bar, words] = cell.children;
      bar.setAttribute("aria-label", `Progress of ${titleOf(run)}`);
      bar.max = Math.max(1, run.tasks);
      bar.value = run.done;
      // Rounded down: 100 % means that nothing is left.
      say(words, ` ${percent(run.done, run.tasks)} %`);
    },
  },
  text("Waiting", (run) => count(run.waiting), { number: true, order: (run) => run.waiting }),
  text("Running", (run) => count(run.leased), { number: true, order: (run) => run.leased }),
  text("Done", (run) => `${count(run.done)} of ${count(run.tasks)}`, { number: true, order: (run) => run.done }),
  {
    title: "Failed",
    number: true,
    order: (run) => run.failed,
    fill: (cell, run) => {
      say(cell, count(run.failed));
      cell.classList.toggle("bad", run.failed > 0);
    },
  },
  text("Rate", (run) => rate(run.rate), { number: true, order: (run) => run.rate }),
  text("Time left", left, { number: true, order: leftSeconds }),
  text("Last sign of life", seen, { number: true, order: (run) => run.seen ?? 0 }),
];

export class Runs {
  constructor() {
    this.runs = [];
    this.order = { column: null, falling: false };
    this.table = new Table("Runs", COLUMNS);
    COLUMNS.forEach((column, at) => this.makeSortable(column, this.table.head.cells[at]));
    this.filter = element("input", { type: "search", oninput: () => this.show() });
    this.words = element("p", { class: "note", role: "status" });
    this.node = element(
      "div",
      {},
      element("h1", {}, "Runs"),
      element("div", { class: "row" }, element("label", {}, "Show runs whose name, owner or id contains", this.filter)),
      this.words,
      this.table.node,
      newRun(),
    );
  }

  makeSortable(column, cell) {
    const sort = () => {
      this.order = { column, falling: this.order.column === column && !this.order.falling };
      for (const each of this.table.head.cells) each.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", this.order.falling ? "descending" : "ascending");
      this.show();
    };
    cell.replaceChildren(element("button", { type: "button", class: "sort", onclick: sort }, column.title));
  }

  update(runs) {
    this.runs = runs;
    this.show();
  }

  tick() {
    this.show();
  }

  show() {
    const wanted = this.filter.value.trim().toLowerCase();
    const found = this.runs.filter((run) => [titleOf(run), run.owner ?? "", run.run].some((word) => word.toLowerCase().includes(wanted)));
    const { column, falling } = this.order;
    const order = column === null ? (run) => -run.created : column.order;
    found.sort((one, two) => {
      const [a, b] = [order(one), order(two)];
      const sign = typeof a === "string" ? a.localeCompare(b) : a - b;
      return falling ? -sign : sign;
    });
    this.table.node.hidden = found.length === 0;
    const all = this.runs.length === 0 ? "There are no runs yet." : plural(this.runs.length, "run");
    say(this.words, found.length === this.runs.length ? all : `${found.length} of ${all}`);
    this.table.show(found.map((run) => [run.run, run]));
  }
}

function newRun() {
  const make = ({ name, tasks }) =>
    change("POST", "/runs", { key: `${name} ${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`, name, count: Number(tasks) }, (run) => `Run ${titleOf(run)} is made: ${run.run}`);
  return element(
    "details",
    {},
    element("summary", {}, "New run"),
    element("p", { class: "note" }, "For work of any kind: tasks are numbers, and a program of yours does them. Maps of ice are planned by the command line."),
    form("Create", [["name", "Name", { required: true, maxlength: 200 }], ["tasks", "Number of tasks", { type: "number", min: 1, max: 100000000, required: true }]], make),
  );
}
