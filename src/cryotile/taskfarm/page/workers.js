// The workers of a run.

import { Table, ago, bytes, count, element, plural, say, text } from "page/dom";

const SHOWN = 200;

function state(worker) {
  if (worker.stuck) return "stuck";
  return worker.leased > 0 ? "works" : "holds no task";
}

export class Workers {
  constructor() {
    this.table = new Table("Workers", [
      text("Host", (worker) => worker.host, { head: true }),
      text("Process", (worker) => String(worker.pid), { number: true }),
      {
        title: "State",
        fill: (cell, worker) => {
          say(cell, state(worker));
          cell.classList.toggle("bad", worker.stuck);
        },
      },
      text("Holds", (worker) => count(worker.leased), { number: true }),
      text("Done", (worker) => count(worker.done), { number: true }),
      text("Failed", (worker) => count(worker.failed), { number: true }),
      text("Memory", (worker) => (worker.memory === null ? "" : bytes(worker.memory)), { number: true }),
      text("Last sign of life", (worker) => ago(worker.age), { number: true }),
    ]);
    this.words = element("p", { class: "note" });
    this.node = element("section", {}, element("h2", {}, "Workers"), this.words, this.table.node);
  }

  update(workers) {
    const stuck = workers.filter((worker) => worker.stuck).length;
    const more = workers.length > SHOWN ? `; the ${SHOWN} that spoke last are listed` : "";
    say(this.words, workers.length === 0 ? "No worker has come yet." : `${plural(workers.length, "worker")}, ${count(stuck)} stuck${more}.`);
    const first = [...workers].sort((one, two) => two.stuck - one.stuck || one.age - two.age).slice(0, SHOWN);
    this.table.node.hidden = workers.length === 0;
    this.table.show(first.map((worker) => [worker.uuid, worker]));
  }
}
