// The page: it chooses the view by the address, and keeps it alive.

import { embedded, get, watchRuns } from "page/api";
import { Audit, Tokens, Users } from "page/account";
import { tell } from "page/actions";
import { onScheme } from "page/colours";
import { element, say } from "page/dom";
import { Run } from "page/run";
import { Runs } from "page/runs";

const EVERY = 10_000;

const main = document.getElementById("main");
let user = { name: "", admin: false };
let runs = null;
let view = null;

function stamped(list) {
  const received = performance.now();
  return list.map((run) => ({ ...run, received }));
}

function makeView(address) {
  const [, kind, id] = address.split("/");
  if (kind === "runs") {
    const run = runs.find((each) => each.run === id);
    return run === undefined ? null : new Run(run);
  }
  if (kind === "tokens") return new Tokens();
  if (kind === "users" && user.admin) return new Users(user);
  if (kind === "audit") return new Audit();
  return new Runs();
}

async function open() {
  if (runs === null) return;
  const address = location.hash.slice(1) || "/";
  view?.close?.();
  tell("");
  const made = makeView(address);
  view = made;

  document.title = "Runs";
  if (made === null) {
    main.replaceChildren(element("h1", {}, "No such run"), element("p", {}, "It was deleted, or you are not a member of it."));
    return;
  }
  main.replaceChildren(made.node);
  main.querySelector("h1")?.setAttribute("tabindex", "-1");
  main.querySelector("h1")?.focus({ preventScroll: true });
  for (const link of document.querySelectorAll("header nav a")) {
    if (link.getAttribute("href") === `#${address}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  try {
    await made.start?.();
  } catch (error) {
    tell(error.message, true);
  }
  show();
}

function show() {
  if (view instanceof Run) {
    const run = runs.find((each) => each.run === view.id);
    if (run === undefined) open();
    else view.update(run);
  } else view?.update?.(runs);
}

function onRuns(list) {
  runs = stamped(list);
  if (view === null) open();
  else show();
}

function onConnection(works, error) {
  const line = document.getElementById("connection");
  line.hidden = works;
  say(line, works ? "" : error?.status > 0 ? `The server answers: ${error.message}. The page tries again.` : "The connection to the server is lost; what you see is old. The page tries again.");
}

function frame() {
  const status = element("div", { id: "status", role: "status", hidden: true }, element("span", {}));
  main.before(element("div", { id: "connection", role: "alert", hidden: true }), status);
}

async function start() {
  frame();
  onScheme(() => view?.restyle?.());
  if (embedded !== null) {
    runs = stamped([embedded.run]);
    location.hash = `#/runs/${embedded.run.run}`;
    await open();
    return;
  }
  addEventListener("hashchange", open);
  user = await get("/me");
  for (const link of document.querySelectorAll("header [data-admin]")) link.hidden = !user.admin;
  watchRuns(onRuns, onConnection);
  setInterval(() => view?.tick?.(), EVERY);
}

start();
