// Calls of the server, and what it tells by itself; in one file, what is embedded in it stands for the server.

const stored = document.getElementById("embedded");
export const embedded = stored === null ? null : JSON.parse(stored.textContent);

const BASE = "/api/v1";

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// Milliseconds for an answer: a connection that has fallen silent would never say so.
const LIMIT = 60_000;

async function call(method, path, body, limit = LIMIT) {
  const headers = { Accept: "application/json", "X-Requested-With": "fetch" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(BASE + path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal: AbortSignal.timeout(limit) });
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

export async function get(path, limit) {
  return (await call("GET", path, undefined, limit)).json();
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
const SILENCE = 25_000; // The server sends an event every 15 s at least.
const PATIENCE = 10_000;

// Tell `onRuns` of the caller's runs, each time one has changed, and `onConnection` whether the server answers. Events are
// preferred; while none come, whatever the reason, the runs are asked for every three seconds, and the stream is opened
// again now and then.
export function watchRuns(onRuns, onConnection) {
  let source = null;
  let heard = -Infinity;
  let polls = 0;
  let looks = false;
  const tell = ({ runs }) => {
    onRuns(runs);
    onConnection(true);
  };
  const look = async () => {
    if (looks) return;
    looks = true;
    try {
      tell(await get("/runs", PATIENCE));
    } catch (error) {
      onConnection(false, error);
    }
    looks = false;
  };
  const connect = () => {
    source?.close();
    source = new EventSource(`${BASE}/events`);
    source.onmessage = (event) => {
      heard = performance.now();
      tell(JSON.parse(event.data));
    };
    // A stream may end at any time, and the browser opens another one; a look tells whether the server is there.
    source.onerror = () => {
      heard = -Infinity;
      look();
    };
  };
  connect();
  setInterval(() => {
    if (performance.now() - heard < SILENCE) return;
    look();
    polls += 1;
    if (polls % POLLS === 0) connect();
  }, PAUSE);
}
