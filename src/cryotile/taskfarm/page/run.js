// One run: its map of tiles, which fills while the farm works, its charts, workers, failures and actions.

import { bytes, decode, embedded, get } from "page/api";
import { attempt, button, change, confirm, form } from "page/actions";
import { Costs, Streams, Throughput } from "page/charts";
import { DISTINCT, SEQUENTIAL, SIGNED, css, flagColours, theme } from "page/colours";
import { ago, count, element, figure, percent, plural, rate, say } from "page/dom";
import { Failures } from "page/failures";
import { TileMap, square } from "page/map";
import { left, titleOf } from "page/runs";
import { BATCH, DONE, STATES, Thumbnails, Tiles } from "page/tiles";
import { Workers } from "page/workers";

const FULL = 2000; // Largest number of tasks whose thumbnails are asked for at once; of more, one value each.
const MOST_ASKED = 1000;
const SAMPLE = 20_000; // Tasks by which a scale is chosen.
const EXPLAINING = 150_000; // Milliseconds; the server takes up to two minutes.

const OF_TASKS = {
  state: "State",
  seconds: "Seconds",
  cost: "Expected cost",
  worker: "Worker",
  attempts: "Attempts",
};

const NAMES = { dhdt: "Rate of elevation change", dhdt_sigma: "Uncertainty of the rate", status: "Status of the posts" };

// Where the answers about a run come from: a server, or the file itself.
function sourceOf(run) {
  const path = (part) => `/runs/${run}/${part}`;
  if (embedded === null) {
    return {
      map: () => get(path("map")),
      tiles: (since) => bytes(path(`tiles${since === null ? "" : `?since=${since}`}`)),
      thumbnails: (query) => bytes(path(`thumbnails?${query}`)),
      history: () => get(path("history")),
      workers: () => get(path("workers")),
      failures: () => get(path("failures")),
      explain: ([x, y]) => get(path(`explain?x=${x}&y=${y}`), EXPLAINING),
    };
  }
  return {
    map: async () => embedded.map,
    tiles: async () => decode(embedded.tiles),
    thumbnails: async (query) => decode(embedded.thumbnails[new URLSearchParams(query).get("variable")]),
    history: async () => embedded.history,
    workers: async () => embedded.workers,
    failures: async () => embedded.failures,
    explain: null,
  };
}

export class Run {
  constructor(run) {
    this.id = run.run;
    this.run = run;
    this.source = sourceOf(run.run);
    this.tiles = new Tiles(run.tasks);
    this.thumbnails = {};
    this.workers = [];
    this.shown = "state";
    this.asked = new Set();
    this.closed = false;
    this.place = null;
    this.mapBox = element("div", {});
    this.legend = element("div", { class: "legend" });
    this.tile = element("p", { class: "tile", "aria-live": "polite" }, "");
    this.explanation = element("div", { "aria-live": "polite" });
    this.charts = [new Throughput(), new Costs(), new Streams()];
    this.workerList = new Workers();
    const owns = run.role === "owner" && embedded === null;
    this.failures = new Failures(owns ? (body) => this.retry(body) : null);
    this.title = element("h1", {});
    this.facts = element("p", { class: "facts" });
    this.progress = element("progress", {});
    this.actions = element("div", { class: "row" });
    this.node = element(
      "div",
      {},
      this.title,
      this.progress,
      this.facts,
      this.actions,
      element("div", { class: "beside" }, this.mapBox, element("div", { class: "side" }, this.legend, this.tile, this.explanation)),
      element("div", { class: "charts" }, ...this.charts.map((chart) => chart.node)),
      this.workerList.node,
      this.failures.node,
      owns ? this.members() : null,
    );
    if (owns) this.makeActions();
  }

  async start() {
    let layout = square(this.run.tasks);
    if (this.run.map) layout = await this.source.map();
    if (this.run.map && layout.columns.length < this.run.tasks) this.tiles = new Tiles(layout.columns.length);
    this.layout = layout;
    this.map = new TileMap(layout, {
      onTile: (index, place) => (index === null ? this.showTile(this.map.chosen, this.place) : this.showTile(index, place)),
      onMark: (index, place) => this.mark(index, place),
      onChoose: (index, place) => this.choose(index, place),
      onView: (indices) => this.seeClosely(indices),
    });
    this.mapBox.append(this.makeChoice(), this.map.node, this.keys());
    this.update(this.run);
    await this.refresh();
  }

  keys() {
    return element(
      "p",
      { class: "note", id: "map-keys" },
      "Drag to move; the wheel zooms after a click, with the Control key at once. Keys: arrows choose a tile, Enter explains it, + and − zoom, 0 shows all.",
    );
  }

  makeChoice() {
    const names = { ...OF_TASKS };
    for (const name of Object.keys(this.layout.variables)) names[name] = NAMES[name] ?? name;
    const select = element("select", { onchange: () => this.show(select.value) });
    for (const [name, words] of Object.entries(names)) select.append(element("option", { value: name }, words));
    return element("div", { class: "row" }, element("label", {}, "Colour tiles by", select));
  }

  async show(name) {
    this.shown = name;
    await attemptQuietly(() => this.refreshThumbnails());
    this.paint();
  }

  // --- what the server says -------------------------------------------------------------------------------------

  update(run) {
    const before = this.run;
    this.run = run;
    say(this.title, titleOf(run));
    document.title = `${percent(run.done, run.tasks)} % ${titleOf(run)}`;
    this.progress.max = Math.max(1, run.tasks);
    this.progress.value = run.done;
    this.progress.setAttribute("aria-label", `Progress of ${titleOf(run)}`);
    const seen = run.seen === null ? "never" : ago(Math.max(0, run.clock - run.seen));
    say(
      this.facts,
      [
        `${percent(run.done, run.tasks)} % of ${plural(run.tasks, "task")}: ${count(run.waiting)} waiting, ${count(run.leased)} running, ${count(run.done)} done, ${count(run.failed)} failed.`,
        `Rate: ${rate(run.rate)}. Time left: ${left(run)}. Last sign of life: ${seen}.`,
        run.owner === null ? "" : `Owner: ${run.owner}.`,
      ].join(" "),
    );
    this.pause?.replaceChildren(run.paused ? "Resume" : "Pause");
    const changed = ["waiting", "leased", "done", "failed", "epoch"].some((name) => before[name] !== run[name]);
    if (changed && this.map !== undefined) this.refreshSoon();
  }

  refreshSoon() {
    if (this.soon || this.closed) return;
    this.soon = true;
    setTimeout(async () => {
      await attemptQuietly(() => this.refresh());
      this.soon = false;
    }, 1000);
  }

  // Ask for what may have changed; called with each change of the counts, and now and then.
  async refresh() {
    if (this.closed) return;
    let again = this.tiles.take(await this.source.tiles(this.tiles.next));
    if (again) {
      this.tiles.clear();
      this.thumbnails = {};
      this.tiles.take(await this.source.tiles(null));
    }
    await this.refreshThumbnails();
    const [history, workers, failures] = await Promise.all([this.source.history(), this.source.workers(), this.source.failures()]);
    this.workers = workers.workers;
    const [throughput, costs, streams] = this.charts;
    throughput.update(history);
    costs.update(history);
    streams.update(history, this.workers);
    this.workerList.update(this.workers);
    this.failures.update(failures.groups);
    this.paint();
  }

  async refreshThumbnails() {
    const variable = this.layout.variables[this.shown];
    if (variable === undefined) return;
    const known = (this.thumbnails[this.shown] ??= new Thumbnails(this.tiles.count, variable.flags !== null && variable.flags !== undefined));
    const detail = this.tiles.count > FULL && embedded === null ? "&detail=1" : "";
    let taken = BATCH;
    while (taken === BATCH) {
      const since = known.next === null ? "" : `&since=${known.next}`;
      taken = known.take(await this.source.thumbnails(`variable=${this.shown}${detail}${since}`));
      if (embedded !== null) break;
    }
  }

  // Ask for the thumbnails of tiles that are large on the screen.
  seeClosely(indices) {
    const known = this.thumbnails[this.shown];
    if (known === undefined || this.tiles.count <= FULL || embedded !== null) return;
    const wanted = indices.filter((index) => this.tiles.state[index] === DONE && !known.fine.has(index) && !this.asked.has(index)).slice(0, MOST_ASKED);
    if (wanted.length === 0) return;
    wanted.forEach((index) => this.asked.add(index));
    const next = known.next;
    attemptQuietly(async () => {
      known.take(await this.source.thumbnails(`variable=${this.shown}&tasks=${wanted.join(",")}`));
      known.next = next;
      wanted.forEach((index) => this.asked.delete(index));
      this.paint();
    });
  }

  tick() {
    if (this.map !== undefined && embedded === null) this.refreshSoon();
  }

  restyle() {
    this.charts.forEach((chart) => chart.restyle());
    if (this.map !== undefined) this.paint();
  }

  close() {
    this.closed = true;
  }

  // --- the map --------------------------------------------------------------------------------------------------

  paint() {
    const { states, empty } = theme();
    const { state } = this.tiles;
    const byState = (index) => states[state[index]];
    const counts = this.tiles.tally();
    const { colour, pictures } = this.colouring(byState, empty, counts);
    this.map.paint(colour, pictures);
    const tallies = STATES.map((name, at) => `${count(counts[at])} ${name}`);
    this.map.describe(`Map of ${plural(this.tiles.count, "tile")}, coloured by ${(OF_TASKS[this.shown] ?? NAMES[this.shown] ?? this.shown).toLowerCase()}: ${tallies.join(", ")}.`);
    this.showTile(this.map.chosen, this.place);
  }

  colouring(byState, empty, counts) {
    const { tiles, shown } = this;
    const variable = this.layout.variables[shown];
    if (variable !== undefined) return this.colourByVariable(variable, byState, empty);
    if (shown === "state") {
      this.drawLegend(STATES.map((name, at) => [theme().states[at], `${name}: ${count(counts[at])}`]));
      return { colour: byState, pictures: null };
    }
    if (shown === "worker") {
      const known = this.workers.slice(0, DISTINCT.length).map(({ number, host, pid }) => [DISTINCT[number % DISTINCT.length], `${host} ${pid}`]);
      this.drawLegend([[theme().states[0], "no worker yet"], ...known]);
      return { colour: (index) => (tiles.worker[index] === 0 ? byState(index) : DISTINCT[tiles.worker[index] % DISTINCT.length]), pictures: null };
    }
    const values = tiles[shown];
    const step = Math.ceil(values.length / SAMPLE);
    const known = values.filter((value, index) => index % step === 0 && value > 0).sort();
    const highest = known.length === 0 ? 1 : known[Math.floor(0.98 * (known.length - 1))];
    this.drawRamp(SEQUENTIAL, 0, highest, OF_TASKS[shown].toLowerCase());
    const colour = (index) => {
      const value = values[index];
      return value > 0 ? SEQUENTIAL[1 + Math.round((254 * Math.min(value, highest)) / highest)] : byState(index);
    };
    return { colour, pictures: null };
  }

  colourByVariable(variable, byState, empty) {
    const known = this.thumbnails[this.shown];
    const [low, high] = variable.range ?? [0, 1];
    const flags = variable.flags ?? null;
    const table = flags !== null ? flagColours(flags) : low < 0 ? SIGNED : SEQUENTIAL;
    if (flags !== null) this.drawLegend(Object.entries(flags).map(([name, value]) => [table[value + 1], name.replaceAll("_", " ")]));
    else this.drawRamp(table, low, high, `${(NAMES[this.shown] ?? this.shown).toLowerCase()}, ${variable.units.replace("-1", "⁻¹")}`);
    const { state } = this.tiles;
    const value = (index) => known?.coarse[index] ?? 0;
    const colour = (index) => (state[index] !== DONE ? byState(index) : value(index) === 0 ? empty : table[value(index)]);
    return { colour, pictures: (index) => this.pictureOf(known, index, table, empty) };
  }

  // Return the thumbnail of a tile as a canvas; null if it is not known.
  pictureOf(known, index, table, empty) {
    const fine = known?.fine.get(index);
    if (fine === undefined || this.tiles.state[index] !== DONE) return null;
    if (fine.picture === null || fine.empty !== empty) {
      const [ny, nx] = known.shape;
      const image = new ImageData(nx, ny);
      const points = new Uint32Array(image.data.buffer);
      for (let row = 0; row < ny; row += 1) {
        for (let column = 0; column < nx; column += 1) {
          const value = fine.values[(ny - 1 - row) * nx + column];
          points[row * nx + column] = value === 0 ? empty : table[value];
        }
      }
      fine.picture = element("canvas", { width: nx, height: ny });
      fine.picture.getContext("2d").putImageData(image, 0, 0);
      fine.empty = empty;
    }
    return fine.picture;
  }

  drawLegend(entries) {
    const rows = entries.map(([colour, words]) => {
      const swatch = element("span", { class: "swatch" });
      swatch.style.background = css(colour);
      return element("li", {}, swatch, words);
    });
    this.legend.replaceChildren(element("ul", {}, ...rows));
  }

  drawRamp(table, low, high, words) {
    const bar = element("canvas", { width: 255, height: 1, role: "img", "aria-label": `colours from ${figure(low)} to ${figure(high)}` });
    const image = new ImageData(255, 1);
    new Uint32Array(image.data.buffer).set(table.subarray(1));
    bar.getContext("2d").putImageData(image, 0, 0);
    const ends = element("div", { class: "ends" }, element("span", {}, figure(low)), ...(low < 0 ? [element("span", {}, "0")] : []), element("span", {}, figure(high)));
    const keys = theme().states.map((colour, at) => [colour, STATES[at]]).filter((_, at) => at !== DONE);
    if (this.layout.variables[this.shown] !== undefined) keys.push([theme().empty, "done, no value"]);
    this.drawLegend(keys);
    this.legend.prepend(element("div", { class: "ramp" }, words, bar, ends));
  }

  showTile(index, place) {
    if (index === null || index === undefined) {
      say(this.tile, "");
      return;
    }
    const { tiles } = this;
    const worker = this.workers.find(({ number }) => number === tiles.worker[index]);
    const facts = [`Task ${index}: ${STATES[tiles.state[index]]}`];
    if (place !== null && this.layout.crs !== null) facts.push(`x ${count(Math.round(place[0]))} m, y ${count(Math.round(place[1]))} m`);
    if (tiles.attempts[index] > 0) facts.push(plural(tiles.attempts[index], "attempt"));
    if (tiles.seconds[index] > 0) facts.push(`${figure(tiles.seconds[index])} s`);
    if (tiles.cost[index] > 0) facts.push(`expected cost ${figure(tiles.cost[index])}`);
    if (worker !== undefined) facts.push(`${worker.host} ${worker.pid}`);
    const value = this.valueOf(index);
    if (value !== null) facts.push(value);
    say(this.tile, `${facts.join("; ")}.`);
  }

  valueOf(index) {
    const variable = this.layout.variables[this.shown];
    const value = this.thumbnails[this.shown]?.coarse[index] ?? 0;
    if (variable === undefined || value === 0) return null;
    if (variable.flags) return Object.entries(variable.flags).find(([, flag]) => flag + 1 === value)?.[0].replaceAll("_", " ") ?? null;
    const [low, high] = variable.range;
    return `about ${figure(low + ((value - 1) / 254) * (high - low))} ${variable.units.replace("-1", "⁻¹")}`;
  }

  mark(index, place) {
    this.place = place;
    this.explanation.replaceChildren();
    this.showTile(index, place);
  }

  async choose(index, place) {
    if (this.layout.crs === null) return undefined;
    const command = `cryotile explain RUN --at ${place.map(Math.round).join(" ")}`;
    const remedy = element("p", {}, "Explain the post on a machine that has the run: ", element("code", {}, command));
    if (this.source.explain === null || this.tiles.state[index] !== DONE) return this.explanation.replaceChildren(remedy);
    this.explanation.replaceChildren(element("p", { class: "note" }, "The server explains the post…"));
    try {
      const { text } = await this.source.explain(place);
      if (this.place !== place) return;
      this.explanation.replaceChildren(element("pre", { tabindex: "0", "aria-label": "Explanation of the post" }, text));
    } catch {
      this.explanation.replaceChildren(remedy);
    }
  }

  // --- what an owner may do -------------------------------------------------------------------------------------

  makeActions() {
    const path = `/runs/${this.id}`;
    const name = () => titleOf(this.run);
    this.pause = button("Pause", () =>
      this.run.paused
        ? change("POST", `${path}/resume`, undefined, `Run ${name()} goes on.`)
        : change("POST", `${path}/pause`, undefined, `Run ${name()} is paused: tasks that run are finished, no other is handed out.`),
    );
    const retry = button("Try failed tasks again", () => this.retry({ all: true }));
    const reset = button(
      "Reset…",
      async () => {
        const sure = await confirm(`Put all ${plural(this.run.tasks, "task")} of ${name()} back to waiting? Done tasks are done again.`, "Reset");
        if (sure) await change("POST", `${path}/restart`, { all: true }, `All tasks of ${name()} wait again.`);
      },
      { danger: true },
    );
    const remove = button(
      "Delete…",
      async () => {
        const sure = await confirm(`Delete ${name()} and all that is known of its tasks? Files of the run are not touched.`, "Delete");
        if (sure && (await change("DELETE", path, undefined, `Run ${name()} is deleted.`))) location.hash = "#/";
      },
      { danger: true },
    );
    this.actions.append(this.pause, retry, reset, remove);
  }

  async retry(body) {
    const said = await change("POST", `/runs/${this.id}/retry`, body, ({ tasks }) => `${plural(tasks, "task")} wait${tasks === 1 ? "s" : ""} again.`);
    if (said !== null) this.refreshSoon();
  }

  members() {
    const path = `/runs/${this.id}/members`;
    const list = element("ul", {});
    const load = () =>
      attempt(async () => {
        const { members } = await get(path);
        list.replaceChildren(
          ...members.map(({ name, role }) =>
            element(
              "li",
              {},
              `${name}: ${role} `,
              // Who made a run stays its owner.
              name === this.run.owner
                ? null
                : button(`Remove ${name}`, async () => {
                    await change("DELETE", `${path}/${encodeURIComponent(name)}`, undefined, `${name} is no member any more.`);
                    await load();
                  }),
            ),
          ),
        );
      }, "");
    const add = form("Set role", [["name", "User", { required: true }], ["role", "Role", { options: ["viewer", "worker", "owner"] }]], async ({ name, role }) => {
      const done = await change("PUT", `${path}/${encodeURIComponent(name)}`, { role }, `${name} is ${role} of the run.`);
      await load();
      return done;
    });
    const details = element("details", {}, element("summary", {}, "Members"), list, add);
    details.addEventListener("toggle", () => details.open && load(), { once: true });
    return details;
  }
}

// A look that fails is repeated with the next change, and the line at the top says that the server does not answer.
async function attemptQuietly(what) {
  try {
    await what();
  } catch (error) {
    console.warn(error);
  }
}
