// What is known of each task of a run, in compact arrays, and how the server's answers change it.

const WAITING = 0;
const LEASED = 1;
export const DONE = 2;
export const STATES = ["waiting", "running", "done", "failed"];

const TILES = 0x54435931;
const THUMBNAILS = 0x54435932;
export const BATCH = 20000;

function head(view, magic) {
  if (view.byteLength < 20 || view.getUint32(0, true) !== magic) throw new Error("the server's answer is damaged");
  return { count: view.getUint32(4, true), epoch: view.getUint32(8, true), next: view.getFloat64(12, true) };
}

export class Tiles {
  constructor(count) {
    this.count = count;
    this.clear();
  }

  clear() {
    this.state = new Uint8Array(this.count);
    this.attempts = new Uint8Array(this.count);
    this.seconds = new Float32Array(this.count).fill(NaN);
    this.cost = new Float32Array(this.count).fill(NaN);
    this.worker = new Uint32Array(this.count);
    this.next = null;
    this.epoch = null;
    this.leased = new Uint32Array(0);
  }

  // Return the number of tasks in each state.
  tally() {
    const counts = STATES.map(() => 0);
    for (const state of this.state) counts[state] += 1;
    return counts;
  }

  // Take in an answer; return whether the epoch is another one, so that all must be asked for again.
  take(buffer) {
    const view = new DataView(buffer);
    const { count, epoch, next } = head(view, TILES);
    if (this.epoch !== null && epoch !== this.epoch) return true;
    // Tasks that were held and are not in the answer wait again.
    for (const index of this.leased) if (this.state[index] === LEASED) this.state[index] = WAITING;
    const column = (Type, at) => new Type(buffer, at, count);
    const index = column(Uint32Array, 20);
    const seconds = column(Float32Array, 20 + 4 * count);
    const cost = column(Float32Array, 20 + 8 * count);
    const worker = column(Uint32Array, 20 + 12 * count);
    const state = column(Uint8Array, 20 + 16 * count);
    const attempts = column(Uint8Array, 20 + 17 * count);
    const held = [];
    for (let k = 0; k < count; k += 1) {
      const task = index[k];
      if (task >= this.count) continue;
      this.state[task] = state[k];
      this.attempts[task] = attempts[k];
      this.seconds[task] = seconds[k];
      this.cost[task] = cost[k];
      this.worker[task] = worker[k];
      if (state[k] === LEASED) held.push(task);
    }
    this.leased = Uint32Array.from(held);
    this.next = next;
    this.epoch = epoch;
    return false;
  }
}

// Thumbnails of one variable: the mean of each tile, and the values of those that were asked for.
export class Thumbnails {
  constructor(count, flags) {
    this.coarse = new Uint8Array(count);
    this.fine = new Map();
    this.flags = flags;
    this.next = null;
    this.shape = null;
  }

  // Take in an answer; return the number of its tiles.
  take(buffer) {
    const view = new DataView(buffer);
    const { count, next } = head(view, THUMBNAILS);
    const [ny, nx] = [view.getUint32(20, true), view.getUint32(24, true)];
    const index = new Uint32Array(buffer, 28, count);
    const values = new Uint8Array(buffer, 28 + 4 * count, count * ny * nx);
    for (let k = 0; k < count; k += 1) {
      if (index[k] >= this.coarse.length) continue;
      const some = values.subarray(k * ny * nx, (k + 1) * ny * nx);
      this.coarse[index[k]] = this.flags ? most(some) : mean(some);
      if (ny * nx > 1) this.fine.set(index[k], { values: some, picture: null });
    }
    if (ny * nx > 1) this.shape = [ny, nx];
    this.next = next;
    return count;
  }
}

function mean(values) {
  let sum = 0;
  let known = 0;
  for (const value of values) {
    sum += value;
    if (value > 0) known += 1;
  }
  return known === 0 ? 0 : Math.max(1, Math.round(sum / known));
}

function most(values) {
  const counts = new Uint32Array(256);
  for (const value of values) if (value > 0) counts[value] += 1;
  const best = counts.indexOf(Math.max(...counts));
  return counts[best] === 0 ? 0 : best;
}
