// Calls of the server, and what it tells by itself; in one file, what is embedded in it stands for the server.

const stored = document.getElementById("embedded");
export const embedded = stored === null ? null : JSON.parse(stored.textContent);

const BASE = "/api/v1";

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function call(method, path, body) {
  const headers = { Accept: "application/json", "X-Requested-With": "fetch" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(BASE + path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Refused(0, "the server does not answer; your action may not have been done, look and repeat it");
  }
  if (answer.status === 401) {
    location.assign("/");
    throw new Refused(401, "the session has ended; log in again");
  }
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    throw new Refused(answer.status, said.error ?? `the server answers ${answer.status}`);
  }
  return answer;
}

export async function get(path) {
  return (await call("GET", path)).json();
}

export async function bytes(path) {
  return (await call("GET", path)).arrayBuffer();
}

export async function send(method, path, body) {
  const answer = await call(method, path, body);
  return answer.status === 204 ? null : answer.json();
}

export function decode(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)).buffer;
}

const PAUSE = 3000;
const POLLS = 10;

// Tell `onRuns` of the caller's runs, each time one has changed, and `onConnection` whether the server answers. Events are
// preferred; where they do not come, the runs are asked for every three seconds, and events are tried again now and then.
export function watchRuns(onRuns, onConnection) {
  let source = null;
  let polls = 0;
  const look = async () => {
    try {
      onRuns((await get("/runs")).runs);
      onConnection(true);
    } catch (error) {
      onConnection(false, error);
    }
  };
  const poll = async () => {
    await look();
    polls += 1;
    setTimeout(polls % POLLS === 0 ? connect : poll, PAUSE);
  };
  const connect = () => {
    source = new EventSource(`${BASE}/events`);
    source.onmessage = (event) => {
      onRuns(JSON.parse(event.data).runs);
      onConnection(true);
    };
    // A stream may end at any time, and the browser opens another one; a look tells whether the server is there.
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) poll();
      else look();
    };
  };
  connect();
}
