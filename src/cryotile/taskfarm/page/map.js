// The map of tiles: one picture with a point a tile, which the browser scales, so that 400 000 tiles cost what ten cost; thumbnails
// are drawn over it where tiles are large on the screen.

import { element } from "page/dom";
import { theme } from "page/colours";

const LARGE = 12; // Points of the screen from which a tile shows its thumbnail.
const LARGEST = 240;
const MOST_PLACES = 16e6;

// Where the tasks of a run without a map lie: in a square, row by row, from the top.
export function square(count) {
  const side = Math.max(1, Math.ceil(Math.sqrt(count)));
  const columns = Array.from({ length: count }, (_, index) => index % side);
  const rows = Array.from({ length: count }, (_, index) => side - 1 - Math.floor(index / side));
  return { crs: null, tile_size: 1, origin: [0, 0], columns, rows, outline: [], variables: {} };
}

export class TileMap {
  // `onTile(index, place)` is called when a tile is pointed at (null: none), `onMark(index, place)` when it is marked,
  // `onChoose(index, place)` when its post is to be explained, and `onView(indices)` with the tiles that are large enough for a thumbnail. A place is x and y in the CRS of the map.
  constructor(layout, { onTile, onMark, onChoose, onView }) {
    this.layout = layout;
    this.on = { onTile, onMark, onChoose, onView };
    this.canvas = element("canvas", { tabindex: "0", role: "application", "aria-roledescription": "map", "aria-describedby": "map-keys" });
    const button = (label, title, act) => element("button", { type: "button", "aria-label": title, title, onclick: act }, label);
    this.node = element(
      "div",
      { class: "map" },
      this.canvas,
      element(
        "div",
        { class: "zoom" },
        button("+", "Zoom in", () => this.zoom(1.6)),
        button("−", "Zoom out", () => this.zoom(1 / 1.6)),
        button("⤢", "Show all tiles", () => this.fit()),
      ),
    );
    this.context = this.canvas.getContext("2d");
    this.place();
    this.chosen = null;
    this.pictures = null;
    this.view = null;
    this.pointers = new Map();
    this.listen();
    new ResizeObserver(() => this.resize()).observe(this.canvas);
  }

  // Find the place of each tile in the picture, north up.
  place() {
    const { columns, rows } = this.layout;
    const least = (list) => list.reduce((one, two) => Math.min(one, two), Infinity);
    const most = (list) => list.reduce((one, two) => Math.max(one, two), -Infinity);
    [this.left, this.bottom] = columns.length ? [least(columns), least(rows)] : [0, 0];
    [this.right, this.top] = columns.length ? [most(columns), most(rows)] : [0, 0];
    this.width = this.right - this.left + 1;
    this.height = this.top - this.bottom + 1;
    if (this.width * this.height > MOST_PLACES) throw new Error("the tiles lie too far apart for a map");
    this.at = new Uint32Array(columns.length);
    this.index = new Int32Array(this.width * this.height).fill(-1);
    for (let k = 0; k < columns.length; k += 1) {
      this.at[k] = (this.top - rows[k]) * this.width + (columns[k] - this.left);
      this.index[this.at[k]] = k;
    }
    this.picture = element("canvas", { width: this.width, height: this.height });
    this.image = new ImageData(this.width, this.height);
    this.points = new Uint32Array(this.image.data.buffer);
    this.path = new Path2D();
    const { origin, tile_size: size } = this.layout;
    for (const ring of this.layout.outline) {
      ring.forEach(([x, y], k) => {
        const [px, py] = [(x - origin[0]) / size - this.left, this.top + 1 - (y - origin[1]) / size];
        if (k === 0) this.path.moveTo(px, py);
        else this.path.lineTo(px, py);
      });
      this.path.closePath();
    }
  }

  // Colour all tiles: `colour(index)` gives a packed colour; `pictures(index)` a canvas, or null.
  paint(colour, pictures) {
    for (let k = 0; k < this.at.length; k += 1) this.points[this.at[k]] = colour(k);
    this.picture.getContext("2d").putImageData(this.image, 0, 0);
    this.pictures = pictures;
    this.draw();
  }

  describe(words) {
    if (this.canvas.getAttribute("aria-label") !== words) this.canvas.setAttribute("aria-label", words);
  }

  resize() {
    const scale = devicePixelRatio || 1;
    const { clientWidth, clientHeight } = this.canvas;
    if (clientWidth === 0) return;
    this.canvas.width = Math.round(clientWidth * scale);
    this.canvas.height = Math.round(clientHeight * scale);
    if (this.view === null || this.view.whole) this.fit();
    else this.draw();
  }

  fit() {
    const { width, height } = this.canvas;
    const size = Math.min(width / (this.width + 1), height / (this.height + 1), LARGEST);
    this.view = {
      size,
      x: (width - size * this.width) / 2,
      y: (height - size * this.height) / 2,
      whole: true,
    };
    this.draw();
  }

  zoom(factor, x = this.canvas.width / 2, y = this.canvas.height / 2) {
    if (this.view === null) return;
    const { view } = this;
    const least = Math.min(this.canvas.width / this.width, this.canvas.height / this.height) / 2;
    const size = Math.min(LARGEST * 4, Math.max(Math.min(least, LARGEST / 2), view.size * factor));
    view.x = x - ((x - view.x) * size) / view.size;
    view.y = y - ((y - view.y) * size) / view.size;
    view.size = size;
    view.whole = false;
    this.draw();
  }

  pan(dx, dy) {
    this.view.x += dx;
    this.view.y += dy;
    this.view.whole = false;
    this.draw();
  }

  draw() {
    if (this.view === null || this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.drawNow();
    });
  }

  drawNow() {
    const { context, view, canvas } = this;
    const colours = theme();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = view.size < 1;
    context.drawImage(this.picture, view.x, view.y, view.size * this.width, view.size * this.height);
    context.imageSmoothingEnabled = false;
    const large = view.size >= LARGE ? this.visible() : [];
    for (const index of this.pictures === null ? [] : large) {
      const picture = this.pictures(index);
      if (picture !== null) context.drawImage(picture, ...this.corner(index), view.size, view.size);
    }
    if (view.size >= LARGE) this.drawEdges(large);
    context.setTransform(view.size, 0, 0, view.size, view.x, view.y);
    context.strokeStyle = colours.line;
    context.lineWidth = 1.5 / view.size;
    context.stroke(this.path);
    context.setTransform(1, 0, 0, 1, 0, 0);
    if (this.chosen !== null) {
      context.strokeStyle = colours.mark;
      context.lineWidth = 3;
      context.strokeRect(...this.corner(this.chosen), view.size, view.size);
    }
    this.on.onView(large);
  }

  drawEdges(indices) {
    const { context, view } = this;
    context.strokeStyle = "rgba(128, 128, 128, 0.45)";
    context.lineWidth = 1;
    context.beginPath();
    for (const index of indices) context.rect(...this.corner(index), view.size, view.size);
    context.stroke();
  }

  corner(index) {
    const { view } = this;
    const at = this.at[index];
    return [view.x + (at % this.width) * view.size, view.y + Math.floor(at / this.width) * view.size];
  }

  visible() {
    const { view, canvas } = this;
    const clip = (value, top) => Math.max(0, Math.min(top, value));
    const columns = [clip(Math.floor(-view.x / view.size), this.width), clip(Math.ceil((canvas.width - view.x) / view.size), this.width)];
    const rows = [clip(Math.floor(-view.y / view.size), this.height), clip(Math.ceil((canvas.height - view.y) / view.size), this.height)];
    const found = [];
    for (let row = rows[0]; row < rows[1]; row += 1) {
      for (let column = columns[0]; column < columns[1]; column += 1) {
        const index = this.index[row * this.width + column];
        if (index >= 0) found.push(index);
      }
    }
    return found;
  }

  // Return the tile at a point of the canvas, and its place; the tile is null beside all tiles.
  find(x, y) {
    const { view, layout } = this;
    const [column, row] = [(x - view.x) / view.size, (y - view.y) / view.size];
    const place = [
      layout.origin[0] + (column + this.left) * layout.tile_size,
      layout.origin[1] + (this.top + 1 - row) * layout.tile_size,
    ];
    const inside = column >= 0 && row >= 0 && column < this.width && row < this.height;
    const index = inside ? this.index[Math.floor(row) * this.width + Math.floor(column)] : -1;
    return { index: index < 0 ? null : index, place };
  }

  // Mark a tile, and tell its facts.
  mark(index, place) {
    this.chosen = index;
    this.draw();
    this.on.onMark(index, place);
  }

  choose(index, place) {
    this.mark(index, place);
    this.on.onChoose(index, place);
  }

  // Mark the next tile in a direction, and bring it into view.
  step(dx, dy) {
    let at = this.chosen === null ? null : this.at[this.chosen];
    if (at === null) return this.mark(0, this.centre(0));
    let [column, row] = [at % this.width, Math.floor(at / this.width)];
    do {
      column += dx;
      row += dy;
      if (column < 0 || row < 0 || column >= this.width || row >= this.height) return;
      at = this.index[row * this.width + column];
    } while (at < 0);
    const [x, y] = this.corner(at);
    if (x < 0 || y < 0 || x + this.view.size > this.canvas.width || y + this.view.size > this.canvas.height) {
      this.pan(this.canvas.width / 2 - x, this.canvas.height / 2 - y);
    }
    this.mark(at, this.centre(at));
  }

  centre(index) {
    const { columns, rows, origin, tile_size: size } = this.layout;
    return [origin[0] + (columns[index] + 0.5) * size, origin[1] + (rows[index] + 0.5) * size];
  }

  listen() {
    const scaled = (event) => {
      const scale = this.canvas.width / this.canvas.clientWidth;
      return [event.offsetX * scale, event.offsetY * scale];
    };
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, scaled(event));
      this.moved = 0;
    });
    canvas.addEventListener("pointermove", (event) => {
      const at = scaled(event);
      if (this.pointers.has(event.pointerId)) this.drag(event.pointerId, at);
      else if (this.view !== null) {
        const { index, place } = this.find(...at);
        this.on.onTile(index, place);
      }
    });
    const end = (event) => this.pointers.delete(event.pointerId);
    canvas.addEventListener("pointercancel", end);
    canvas.addEventListener("pointerup", (event) => {
      if (this.pointers.size === 1 && this.moved < 6) {
        const { index, place } = this.find(...scaled(event));
        if (index !== null) this.choose(index, place);
      }
      end(event);
    });
    canvas.addEventListener("pointerleave", () => this.on.onTile(null, null));
    // A page that scrolls is not caught: the wheel zooms with the Control key, or once the map has the focus.
    canvas.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey && document.activeElement !== canvas) return;
        event.preventDefault();
        this.zoom(Math.exp(-event.deltaY / 300), ...scaled(event));
      },
      { passive: false },
    );
    const keys = {
      ArrowLeft: () => this.step(-1, 0),
      ArrowRight: () => this.step(1, 0),
      ArrowUp: () => this.step(0, -1),
      ArrowDown: () => this.step(0, 1),
      "+": () => this.zoom(1.6),
      "=": () => this.zoom(1.6),
      "-": () => this.zoom(1 / 1.6),
      0: () => this.fit(),
      Enter: () => this.chosen !== null && this.choose(this.chosen, this.centre(this.chosen)),
    };
    canvas.addEventListener("keydown", (event) => {
      if (event.key in keys && !event.ctrlKey && !event.metaKey) {
        event.preventDefault();
        keys[event.key]();
      }
    });
  }

  drag(id, at) {
    const before = this.pointers.get(id);
    const [dx, dy] = [at[0] - before[0], at[1] - before[1]];
    this.moved += Math.abs(dx) + Math.abs(dy);
    if (this.pointers.size === 2) {
      const other = [...this.pointers].find(([key]) => key !== id)[1];
      const distance = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]);
      this.zoom(distance(at) / Math.max(1, distance(before)), ...other);
    } else if (this.moved >= 6) this.pan(dx, dy);
    this.pointers.set(id, at);
  }
}
