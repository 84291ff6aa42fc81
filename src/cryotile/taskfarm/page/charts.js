// Charts of a run: tasks by minute, cost against time, and what each worker did in the last hour.

import { count, element, figure, percent, plural, say } from "page/dom";
import { css, theme } from "page/colours";

const HEIGHT = 200;
const MOST_WORKERS = 200;
const LINE = 14;
const [SHORTEST, LONGEST] = [10, 5000]; // Minutes.

// A chart of uPlot, which is made again where the page changes between light and dark.
class Chart {
  constructor(title, options) {
    this.options = options;
    this.words = element("p", { class: "note" });
    this.box = element("div", { class: "chart", role: "img", "aria-label": title });
    this.node = element("section", {}, element("h2", {}, title), this.box, this.words);
    this.title = title;
    this.plot = null;
    this.data = null;
    new ResizeObserver(() => {
      if (this.plot !== null && this.box.clientWidth > 0) this.plot.setSize({ width: this.box.clientWidth, height: HEIGHT });
      else this.show(this.data);
    }).observe(this.box);
  }

  show(data, words) {
    this.data = data;
    if (words !== undefined) {
      say(this.words, words);
      this.box.setAttribute("aria-label", `${this.title}: ${words}`);
    }
    if (data === null || this.box.clientWidth === 0) return;
    if (this.plot === null) this.plot = new uPlot(this.options(this.box.clientWidth), data, this.box);
    else this.plot.setData(data);
  }

  restyle() {
    this.plot?.destroy();
    this.plot = null;
    this.show(this.data);
  }
}

function axis(options = {}) {
  const line = theme().line;
  return { stroke: line, grid: { stroke: `${line}33`, width: 1 }, ticks: { stroke: `${line}66`, width: 1 }, ...options };
}

// The local time of day; at midnight, the day.
function clockTime(seconds) {
  const time = new Date(seconds * 1000);
  const two = (number) => String(number).padStart(2, "0");
  const words = `${two(time.getHours())}:${two(time.getMinutes())}`;
  return words === "00:00" ? `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}` : words;
}

export class Throughput extends Chart {
  constructor() {
    super("Tasks by minute", (width) => ({
      width,
      height: HEIGHT,
      cursor: { drag: { x: true, y: false } },
      legend: { live: false },
      scales: { y: { range: (_, low, high) => [0, Math.max(1, high * 1.05)] } },
      axes: [axis({ values: (_, ticks) => ticks.map(clockTime) }), axis({ size: 60, values: (_, ticks) => ticks.map(count) })],
      series: [
        {},
        { label: "done", stroke: css(theme().states[2]), fill: `${css(theme().states[2])}33`, width: 2, paths: uPlot.paths.stepped({ align: 1 }), points: { show: false } },
        { label: "failed", stroke: css(theme().states[3]), width: 2, paths: uPlot.paths.stepped({ align: 1 }), points: { show: false } },
      ],
    }));
  }

  update({ minutes, clock }) {
    if (minutes.length === 0) return this.show(null, "No task has ended yet.");
    const known = new Map(minutes.map(([minute, done, failed]) => [minute, [done, failed]]));
    const last = Math.max(minutes.at(-1)[0], Math.floor(clock / 60));
    const first = Math.min(minutes[0][0], last - SHORTEST);
    const length = last - minutes[0][0] + 1;
    // Minutes in which nothing ended count as zero; of a run that stood still for days only the ends are drawn.
    const every = length <= LONGEST ? Array.from({ length: last - first + 1 }, (_, k) => first + k) : minutes.map(([minute]) => minute);
    const ended = (minute, which) => known.get(minute)?.[which] ?? 0;
    const done = every.map((minute) => ended(minute, 0));
    const failed = every.map((minute) => ended(minute, 1));
    const sum = (list) => list.reduce((one, two) => one + two, 0);
    return this.show(
      [every.map((minute) => minute * 60), done, failed],
      `${plural(sum(done), "task")} done and ${count(sum(failed))} failed in ${plural(length, "minute")}; at most ${count(Math.max(...done))} a minute.`,
    );
  }
}

export class Costs extends Chart {
  constructor() {
    super("Expected and real cost", (width) => ({
      width,
      height: HEIGHT,
      // Room for half of the last label.
      padding: [null, 44, null, null],
      cursor: { drag: { x: false, y: false } },
      legend: { show: false },
      scales: { x: { time: false }, y: { range: (_, low, high) => [0, high * 1.05 || 1] } },
      axes: [
        axis({ label: "expected cost", labelSize: 18, space: 90, values: (_, ticks) => ticks.map((tick) => tick.toLocaleString("en", { maximumSignificantDigits: 6 })) }),
        axis({ label: "seconds", labelSize: 18, size: (_, labels) => 20 + 7 * Math.max(0, ...(labels ?? []).map((label) => label.length)), values: (_, ticks) => ticks.map(figure) }),
      ],
      series: [
        {},
        {
          label: "seconds",
          stroke: css(theme().states[1]),
          paths: () => null,
          points: { show: true, size: 5, fill: `${css(theme().states[1])}66` },
        },
      ],
    }));
  }

  update({ samples }) {
    const some = samples.filter(([cost, seconds]) => cost > 0 && seconds !== null).sort((one, two) => one[0] - two[0]);
    this.node.hidden = some.length < 2;
    if (some.length < 2) return;
    const ratios = some.map(([cost, seconds]) => seconds / cost).sort((one, two) => one - two);
    const at = (share) => ratios[Math.floor(share * (ratios.length - 1))];
    this.show(
      [some.map(([cost]) => cost), some.map(([, seconds]) => seconds)],
      `${plural(some.length, "task")}: ${figure(at(0.5))} s for a unit of cost, 90 % within ${figure(at(0.05))} to ${figure(at(0.95))} s.`,
    );
  }
}

// One line a worker over the last hour; white (or black) is idle.
export class Streams {
  constructor() {
    this.canvas = element("canvas", { role: "img", class: "streams" });
    this.words = element("p", { class: "note" });
    this.node = element("section", { class: "across" }, element("h2", {}, "Workers in the last hour"), this.canvas, this.words);
    this.history = null;
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  update(history, workers) {
    // Of a run that is younger than an hour, its life.
    const first = history.streams.reduce((least, { spans }) => spans.reduce((one, [start]) => Math.min(one, start), least), Infinity);
    const streams_from = Math.min(Math.max(history.streams_from, first), history.clock - 60);
    this.history = { ...history, streams_from };
    this.names = new Map(workers.map(({ number, host, pid }) => [number, `${host} ${pid}`]));
    const { streams, clock, streams_from: from } = this.history;
    const busy = streams.reduce((sum, { spans }) => sum + spans.reduce((one, [start, end]) => one + end - start, 0), 0);
    const length = Math.max(1, clock - from) * Math.max(1, streams.length);
    const cut = streams.length > MOST_WORKERS ? `, of which the first ${MOST_WORKERS} are drawn` : "";
    const words =
      streams.length === 0
        ? "No worker has worked in the last hour."
        : `${plural(streams.length, "worker")}${cut}, busy for ${percent(busy, length)} % of the last ${Math.max(1, Math.round((clock - from) / 60))} min.`;
    say(this.words, words);
    this.canvas.setAttribute("aria-label", words);
    this.draw();
  }

  draw() {
    const { canvas, history } = this;
    if (history === null || canvas.clientWidth === 0) return;
    const streams = history.streams.slice(0, MOST_WORKERS);
    const height = Math.max(1, streams.length) * LINE + 18;
    canvas.style.height = `${height}px`;
    const scale = devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * scale;
    canvas.height = height * scale;
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    const width = canvas.clientWidth;
    const edge = Math.min(170, width * 0.35);
    const colours = theme();
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    const place = (time) => edge + ((width - edge) * (time - history.streams_from)) / Math.max(1, history.clock - history.streams_from);
    streams.forEach(({ worker, spans }, row) => {
      const top = row * LINE;
      context.fillStyle = colours.line;
      context.fillText(this.names.get(worker) ?? `worker ${worker}`, 0, top + LINE / 2, edge - 8);
      context.fillStyle = css(colours.states[1]);
      for (const [start, end] of spans) {
        const left = Math.max(edge, place(start));
        context.fillRect(left, top + 2, Math.max(0.5, place(end) - left), LINE - 4);
      }
    });
    context.fillStyle = colours.line;
    const minutes = Math.round((history.clock - history.streams_from) / 60);
    context.textAlign = "left";
    context.fillText(`${minutes} min ago`, edge, height - 8);
    context.textAlign = "right";
    context.fillText("now", width, height - 8);
    context.textAlign = "left";
  }

  restyle() {
    this.draw();
  }
}
