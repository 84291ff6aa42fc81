// Failures of a run, those of one kind together.

import { count, element, plural, say } from "page/dom";

const TASKS_SHOWN = 30;

export class Failures {
  // `retry(body)` lets tasks wait again; null where the user may not.
  constructor(retry) {
    this.retry = retry;
    this.groups = new Map();
    this.words = element("p", { class: "note" });
    this.list = element("div", {});
    this.node = element("section", {}, element("h2", {}, "Failures"), this.words, this.list);
  }

  update(groups) {
    const sum = (name) => groups.reduce((all, group) => all + group[name], 0);
    const said = `${plural(sum("attempts"), "attempt")} failed, for ${plural(groups.length, "reason")}; ${plural(sum("count"), "task")} failed for good.`;
    say(this.words, groups.length === 0 ? "No attempt has failed." : said);
    const old = this.groups;
    this.groups = new Map();
    for (const group of groups) {
      const view = old.get(group.group) ?? new Group(this.retry);
      old.delete(group.group);
      view.update(group);
      this.groups.set(group.group, view);
      // Appending a node that is in its place would close what the reader has opened.
      const at = this.groups.size - 1;
      if (this.list.children[at] !== view.node) this.list.insertBefore(view.node, this.list.children[at] ?? null);
    }
    old.forEach((view) => view.node.remove());
  }
}

class Group {
  constructor(retry) {
    this.title = element("summary", {});
    this.error = element("pre", { tabindex: "0" });
    this.facts = element("p", {});
    this.group = null;
    const act = () => retry({ group: this.group.group });
    this.again = retry === null ? null : element("button", { type: "button", onclick: act }, "Try these again");
    this.tasks = element("p", {});
    this.retry = retry;
    this.node = element("details", {}, this.title, this.facts, this.error, this.tasks, this.again);
  }

  update(group) {
    const changed = this.group === null || String(this.group.tasks) !== String(group.tasks);
    this.group = group;
    say(this.title, `${group.count > 0 ? plural(group.count, "task") : plural(group.attempts, "attempt")}: ${group.error}`);
    say(this.facts, `${plural(group.attempts, "attempt")} on ${group.hosts.join(", ") || "no host"}; ${plural(group.count, "task")} failed for good.`);
    if (this.again !== null) this.again.hidden = group.count === 0;
    say(this.error, group.text);
    if (!changed) return;
    this.tasks.hidden = group.tasks.length === 0;
    const some = group.tasks.slice(0, TASKS_SHOWN);
    const more = group.count > some.length ? ` and ${count(group.count - some.length)} more` : "";
    const one = (task) =>
      this.retry === null
        ? `${task} `
        : element("button", { type: "button", class: "small", "aria-label": `Try task ${task} again`, onclick: () => this.retry({ tasks: [task] }) }, String(task));
    this.tasks.replaceChildren(this.retry === null ? "Tasks: " : "Try again task ", ...some.map(one), more);
  }
}
