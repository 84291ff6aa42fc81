// Actions and forms: a button asks before it does what cannot be undone, and says what became of it.

import { send } from "page/api";
import { element, say } from "page/dom";

export function tell(message, bad = false) {
  const line = document.getElementById("status");
  line.hidden = false;
  line.classList.toggle("bad", bad);
  say(line.firstChild, message);
}

// Do something, and tell its end: `done` is what to say.
export async function attempt(what, done) {
  try {
    const answer = await what();
    tell(typeof done === "function" ? done(answer) : done);
    return answer ?? true;
  } catch (error) {
    tell(error.message, true);
    return null;
  }
}

// Ask, and return whether the answer is yes.
export function confirm(question, yes) {
  return new Promise((resolve) => {
    const dialog = element(
      "dialog",
      { "aria-labelledby": "question" },
      element("p", { id: "question" }, question),
      element(
        "form",
        { method: "dialog", class: "row" },
        element("button", { value: "no", autofocus: true }, "Cancel"),
        element("button", { value: "yes", class: "danger" }, yes),
      ),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

export function button(title, act, { danger = false } = {}) {
  const made = element("button", { type: "button", class: danger ? "danger" : null }, title);
  made.addEventListener("click", async () => {
    made.disabled = true;
    await act();
    made.disabled = false;
    // A button that is disabled loses the focus, and with it the place of those who use the keyboard.
    if (document.activeElement === document.body) made.focus();
  });
  return made;
}

// A form of labelled fields, [name, label, attributes]; `act` takes their values and returns whether it succeeded.
export function form(title, fields, act) {
  const inputs = fields.map(([name, label, attributes = {}]) => {
    const { options, ...others } = attributes;
    const input =
      options === undefined
        ? element("input", { name, ...others })
        : element("select", { name }, ...options.map((option) => element("option", {}, option)));
    return element("label", {}, label, input);
  });
  const made = element("form", { class: "row" }, ...inputs, element("button", {}, title));
  made.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (await act(Object.fromEntries(new FormData(made)))) made.reset();
  });
  return made;
}

export const change = (method, path, body, done) => attempt(() => send(method, path, body), done);
