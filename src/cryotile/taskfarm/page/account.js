// Pages of the user: tokens, and for an administrator users and the audit log.

import { get } from "page/api";
import { attempt, button, change, confirm, form } from "page/actions";
import { Table, count, element, instant, say, text } from "page/dom";
import { titleOf } from "page/runs";

const ENTRIES = 100;

export class Tokens {
  constructor() {
    const act = {
      title: "Action",
      fill: (cell, token) => {
        if (cell.firstChild === null) {
          const made = button("Revoke", () => this.revoke(token.id));
          made.setAttribute("aria-label", `Revoke token ${token.id}`);
          cell.append(made);
        }
      },
    };
    this.table = new Table("Tokens", [
      text("Id", ({ id, current }) => (current ? `${id} (this session)` : id), { head: true }),
      text("Made", ({ created }) => instant(created)),
      text("Expires", ({ expires }) => instant(expires)),
      act,
    ]);
    this.made = element("p", { role: "status" });
    this.node = element(
      "div",
      {},
      element("h1", {}, "Tokens"),
      element("p", {}, "A token stands for your name and password in programs. It is shown once."),
      form("Make a token", [["days", "Days", { type: "number", min: 1, max: 3650, value: 30, required: true }]], (values) => this.make(values)),
      this.made,
      this.table.node,
    );
  }

  async start() {
    const { tokens } = await get("/tokens");
    this.table.show(tokens.map((token) => [token.id, token]));
  }

  async make({ days }) {
    const answer = await change("POST", "/tokens", { lifetime: Number(days) * 86400 }, "The token is made.");
    if (answer !== null) this.made.replaceChildren("Copy it now: ", element("code", {}, answer.token));
    await this.start();
    return answer;
  }

  async revoke(id) {
    await change("DELETE", `/tokens/${id}`, undefined, `Token ${id} is revoked.`);
    await this.start();
  }
}

export class Users {
  // An admin cannot remove themselves.
  constructor(user) {
    this.table = new Table("Users", [
      text("Name", ({ name }) => name, { head: true }),
      text("Role", ({ role }) => role),
      text("Added", ({ created }) => instant(created)),
      {
        title: "Action",
        fill: (cell, { name }) => {
          if (cell.firstChild === null && name !== user.name) cell.append(button(`Remove ${name}`, () => this.remove(name), { danger: true }));
        },
      },
    ]);
    const fields = [
      ["name", "Name", { required: true, autocomplete: "off" }],
      ["password", "Password", { type: "password", autocomplete: "new-password" }],
      ["role", "Role", { options: ["user", "admin"] }],
    ];
    this.node = element(
      "div",
      {},
      element("h1", {}, "Users"),
      element("p", {}, "Give the name of a user who is there to change the role or the password; a new password ends all sessions and tokens of the user."),
      form("Save", fields, (values) => this.save(values)),
      this.table.node,
    );
  }

  async start() {
    const { users } = await get("/users");
    this.table.show(users.map((user) => [user.name, user]));
  }

  async save({ name, password, role }) {
    const body = password === "" ? { role } : { role, password };
    const done = await change("PUT", `/users/${encodeURIComponent(name)}`, body, `User ${name} is saved.`);
    await this.start();
    return done;
  }

  async remove(name) {
    if (!(await confirm(`Remove user ${name}? Runs of the user stay.`, "Remove"))) return;
    await change("DELETE", `/users/${encodeURIComponent(name)}`, undefined, `User ${name} is removed.`);
    await this.start();
  }
}

export class Audit {
  constructor() {
    this.entries = [];
    this.next = null;
    this.ids = null;
    this.titles = new Map();
    this.table = new Table("Actions, the last one first", [
      text("Time", ({ at }) => instant(at), { head: true }),
      text("User", ({ user }) => user),
      text("Address", ({ address }) => address),
      text("Action", ({ action }) => action),
      text("Subject", ({ subject }) => this.named(subject)),
    ]);
    this.words = element("p", { class: "note", role: "status" });
    this.more = button("Show earlier ones", () => this.load());
    this.node = element("div", {}, element("h1", {}, "Audit log"), this.words, this.table.node, this.more);
  }

  async start() {
    await this.load();
  }

  update(runs) {
    const ids = runs.map(({ run }) => run).join();
    if (ids === this.ids) return;
    this.ids = ids;
    this.titles = new Map(runs.map((run) => [run.run, titleOf(run)]));
    this.table.show(this.entries.map((entry) => [entry.id, entry]));
  }

  // Runs are known by their ids; those that are still there by their names, too.
  named(subject) {
    return subject.replace(/[0-9a-f]{32}/, (id) => (this.titles.has(id) ? `${this.titles.get(id)} (${id.slice(0, 8)}…)` : id));
  }

  async load() {
    await attempt(async () => {
      const { entries, next } = await get(`/audit?limit=${ENTRIES}${this.next === null ? "" : `&before=${this.next}`}`);
      this.entries.push(...entries);
      this.next = next;
    }, "");
    this.more.hidden = this.next === null;
    say(this.words, `${count(this.entries.length)} shown.`);
    this.table.show(this.entries.map((entry) => [entry.id, entry]));
  }
}
