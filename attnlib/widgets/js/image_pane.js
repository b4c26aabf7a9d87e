// ImagePane: one picture with one map over it; chooses patches, zooms, tells values. Draws what it is given.

const PANE_SIDE = 560; // pixels of the longer side

class ImagePane {
  /** `events`: onQuery(query), onRow(row), onZoom(zoom). */
  constructor(name, events) {
    this.name = name;
    this.events = events;
    this.canvas = make("canvas", { className: "av-canvas", tabIndex: 0 },
      { role: "application", "aria-roledescription": "attention map" });
    this.width = this.height = PANE_SIDE;
    this.caption = make("p", { className: "av-caption" });
    this.value = make("p", { className: "av-value" });
    this.message = make("p", { className: "av-message", hidden: true });
    this.strip = make("div", { className: "av-tokens", hidden: true }, { role: "group", "aria-label": "words" });
    this.strip.addEventListener("click", (event) => {
      const token = event.target.closest(".av-token");
      if (token) this.events.onRow(Number(token.dataset.at));
    });
    this.strip.addEventListener("keydown", (event) => this.walk(event));
    this.element = make("figure", { className: "av-pane" }, {}, this.strip,
      make("div", { className: "av-frame" }, {}, this.canvas, this.message), this.caption, this.value);
    this.small = document.createElement("canvas");
    this.cursor = null;
    this.told = null;
    this.drag = null;
    this.canvas.addEventListener("pointermove", (event) => this.move(event));
    this.canvas.addEventListener("pointerleave", () => { this.told = null; this.value.textContent = ""; });
    this.canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      this.drag = { x: event.clientX, y: event.clientY, moved: false };
      if (this.zoom?.scale > 1) this.canvas.setPointerCapture(event.pointerId); // a drag may leave the picture
    });
    this.canvas.addEventListener("pointerup", (event) => this.release(event));
    this.canvas.addEventListener("pointercancel", () => { this.drag = null; });
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  /** Give the pane its source and photo; sizes the canvas to the picture's shape. */
  use(source, photo) {
    if (this.source === source && this.photo === photo) return;
    if (this.source !== source) this.cursor = this.told = null;
    this.source = source;
    this.photo = photo;
    const [pw, ph] = photo ? [photo.width, photo.height] : [source.grid[1], source.grid[0]];
    const factor = PANE_SIDE / Math.max(pw, ph);
    this.width = Math.max(40, Math.round(pw * factor));
    this.height = Math.max(40, Math.round(ph * factor));
    this.canvas.style.setProperty("--av-aspect", String(this.width / this.height));
  }

  /** The photo without its colours, so that the colours of the map cannot be mistaken; made once. */
  greyPhoto() {
    if (this.grey?.photo !== this.photo) {
      const sheet = make("canvas", { width: this.photo.width, height: this.photo.height });
      const pen = sheet.getContext("2d");
      pen.drawImage(this.photo, 0, 0);
      const image = pen.getImageData(0, 0, sheet.width, sheet.height);
      for (let j = 0, p = image.data; j < p.length; j += 4) {
        p[j] = p[j + 1] = p[j + 2] = 0.299 * p[j] + 0.587 * p[j + 1] + 0.114 * p[j + 2];
      }
      pen.putImageData(image, 0, 0);
      this.grey = { photo: this.photo, sheet };
    }
    return this.grey.sheet;
  }

  /** Where the patch grid lies on the canvas, zoom included. */
  box() {
    const [left, top, right, bottom] = this.source.spec.window;
    const { width, height } = this;
    const { scale, x, y } = this.zoom;
    return { x: (left * width - x) * scale, y: (top * height - y) * scale,
      width: (right - left) * width * scale, height: (bottom - top) * height * scale };
  }

  draw(map, selection, look, zoom, difference = null) {
    this.map = map;
    this.selection = selection;
    this.zoom = zoom;
    const { canvas, width, height } = this;
    const pen = sharpPen(canvas, width, height);
    canvas.style.touchAction = zoom.scale > 1 ? "none" : ""; // a finger moves what is magnified, else the page
    pen.globalAlpha = 1;
    pen.fillStyle = "#888";
    pen.fillRect(0, 0, width, height);
    const { scale, x, y } = zoom;
    if (this.photo) {
      pen.imageSmoothingEnabled = true;
      pen.drawImage(look.grey ? this.greyPhoto() : this.photo, -x * scale, -y * scale, width * scale, height * scale);
    }
    this.message.hidden = !map.missing;
    this.message.textContent = map.missing ?? "";
    if (map.lift) this.overlay(pen, map, look, difference);
    if (look.regions) this.outlines(pen, zoom);
    this.marks(pen);
    canvas.setAttribute("aria-label", this.describe(map, look, difference));
    this.words = `${this.name ? `${this.name}: ` : ""}${canvas.getAttribute("aria-label")}`;
    if (this.told) this.value.textContent = this.tell(this.told); // the map under a resting pointer has changed
    this.caption.textContent = map.missing ? "" : `${this.name ? `${this.name}: ` : ""}${map.label}`;
    this.strip.hidden = map.difference || !this.source.spec.words?.length;
    if (!this.strip.hidden) this.drawWords(look);
  }

  /** The words that look at the picture: the chosen one is pressed; a chosen patch colours its lookers. */
  drawWords(look) {
    const { strip, selection, source } = this;
    const { words, cross } = source.spec;
    fillTokens(strip, words);
    const { query } = selection;
    const lookers = cross && query && selection.map === 0 ? source.lookers(selection) : null;
    paintTokens([...strip.children], lookers?.lift ?? new Float32Array(words.length), look);
    [...strip.children].forEach((token, i) => {
      const here = i === selection.row && selection.map === 0 && (cross || !query);
      token.setAttribute("aria-pressed", String(here));
      token.tabIndex = i === selection.row ? 0 : -1;
      token.title = lookers ? `${short(lookers.raw[i])}, ${short(lookers.lift[i])} times the even share` : "";
    });
    if (!lookers) return;
    const best = [...lookers.lift.keys()].sort((a, b) => lookers.lift[b] - lookers.lift[a]).slice(0, 3);
    this.caption.textContent += `. Patch (${query.join(", ")}) is looked at most by ${best.map((i) =>
      `${quoted(words[i])} (${short(lookers.lift[i])}x)`).join(", ")}.`;
  }

  walk(event) {
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, Home: -1e6, End: 1e6 }[event.key];
    if (!step) return;
    const last = this.strip.children.length - 1;
    this.events.onRow(Math.max(0, Math.min(last, this.selection.row + step)));
    this.strip.children[this.selection.row]?.focus();
    event.preventDefault();
    event.stopPropagation();
  }

  overlay(pen, map, look, difference) {
    const [height, width] = map.grid;
    const { small } = this;
    if (small.width !== width || small.height !== height) {
      small.width = width;
      small.height = height;
      this.image = null;
    }
    const brush = small.getContext("2d");
    this.image = this.image ?? brush.createImageData(width, height);
    if (difference) paintDifference(this.image, difference, look.diverging, look.cuts[2]);
    else paintLift(this.image, map.lift, look.colours, look);
    brush.putImageData(this.image, 0, 0);
    const box = this.box();
    pen.globalAlpha = look.alpha;
    pen.imageSmoothingEnabled = look.smooth && look.colours.kind !== "bands"; // a difference as its two maps
    pen.drawImage(small, box.x, box.y, box.width, box.height);
    pen.globalAlpha = 1;
    if (look.pattern) (difference ? drawSigns : drawPattern)(pen, difference ?? map.lift, map.grid, box, look);
  }

  outlines(pen, { scale, x, y }) {
    const { width, height } = this;
    pen.lineWidth = 3.5;
    for (const ink of ["#000", "#fff"]) {
      pen.strokeStyle = ink;
      pen.beginPath();
      for (const region of this.source.spec.regions) {
        for (const [x0, y0, x1, y1] of region.outline) {
          pen.moveTo((x0 * width - x) * scale, (y0 * height - y) * scale);
          pen.lineTo((x1 * width - x) * scale, (y1 * height - y) * scale);
        }
      }
      pen.stroke();
      pen.lineWidth = 1.5;
    }
    this.numbers(pen, (px, py) => [(px * width - x) * scale, (py * height - y) * scale]);
  }

  /** The number of each region, as in the table, at the upper left end of its outline, or beside one there. */
  numbers(pen, place) {
    pen.font = "bold 13px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    const taken = [];
    this.source.spec.regions.forEach((region, n) => {
      if (!region.outline.length) return;
      const top = Math.min(...region.outline.map((piece) => piece[1]));
      const left = Math.min(...region.outline.filter((piece) => piece[1] === top).map((piece) => piece[0]));
      const [from, py] = place(left, top);
      const wide = pen.measureText(n + 1).width + 8;
      let px = from;
      const covers = ([x, y, w]) => Math.abs(y - py) < 16 && px < x + w && x < px + wide;
      for (let other = taken.find(covers); other; other = taken.find(covers)) px = other[0] + other[2] + 1;
      taken.push([px, py, wide]);
      pen.fillStyle = "#000";
      pen.fillRect(px - 1, py - 1, wide, 16);
      pen.fillStyle = "#fff";
      pen.fillText(n + 1, px - 1 + wide / 2, py + 7.5);
    });
  }

  /** The query patch (solid) and the keyboard's place (dashed). */
  marks(pen) {
    const box = this.box();
    const { grid } = this.source;
    const frame = ([r, c], dash) => {
      const w = box.width / grid[1];
      const h = box.height / grid[0];
      for (const [ink, wide] of [["#000", 4], ["#fff", 2]]) {
        pen.strokeStyle = ink;
        pen.lineWidth = wide;
        pen.setLineDash(dash && ink === "#fff" ? [4, 3] : []);
        pen.strokeRect(box.x + c * w, box.y + r * h, w, h);
      }
      pen.setLineDash([]);
    };
    if (this.selection.query && this.selection.map === 0) frame(this.selection.query, false);
    if (this.cursor && document.activeElement === this.canvas) frame(this.cursor, true);
  }

  describe(map, look, difference) {
    if (map.missing) return `no map: ${map.missing}`;
    const [, width] = map.grid;
    let best = 0;
    for (let i = 1; i < map.lift.length; i++) if (map.lift[i] > map.lift[best]) best = i;
    const patch = `patch (${Math.floor(best / width)}, ${best % width})`;
    const shares = this.source.shares(map).sort((a, b) => b.lift - a.lift).slice(0, 3)
      .map((one) => `${one.name} ${percent(one.share)} of the mass on ${percent(one.area)} of the area`);
    if (difference) return `${map.label}. Most in A at ${patch}: ${short(map.lift[best])} times the even share more.`;
    return `${map.label}. Highest at ${patch}: ${short(map.lift[best])} times the even share.`
      + (shares.length ? ` Regions: ${shares.join("; ")}.` : "")
      + (map.prefix === null ? "" : ` Outside the patches: ${percent(map.prefix)}.`);
  }

  /** The patch under a pointer, or null beside the grid. */
  patchAt(event) {
    const bounds = this.canvas.getBoundingClientRect();
    const px = ((event.clientX - bounds.left) * this.width) / bounds.width;
    const py = ((event.clientY - bounds.top) * this.height) / bounds.height;
    const box = this.box();
    const grid = this.map?.grid ?? this.source.grid;
    const c = Math.floor(((px - box.x) / box.width) * grid[1]);
    const r = Math.floor(((py - box.y) / box.height) * grid[0]);
    return r < 0 || c < 0 || r >= grid[0] || c >= grid[1] ? null : [r, c];
  }

  tell([r, c]) {
    const { map } = this;
    if (!map || !map.lift || r >= map.grid[0] || c >= map.grid[1]) return "";
    const i = r * map.grid[1] + c;
    if (map.difference) {
      return `patch (${r}, ${c}): A ${map.lift[i] < 0 ? "less" : "more"} than B by ${
        short(Math.abs(map.lift[i]))} times the even share (${map.precision})`;
    }
    const value = (map.raw ?? map.values)[i];
    const about = map.precision === "exact" || map.precision === "to 3 digits" ? "" : "about ";
    return `patch (${r}, ${c}): ${about}${short(value)} (${map.precision}), ${short(map.lift[i])} times the even share`;
  }

  move(event) {
    if (this.drag && event.buttons === 1 && this.zoom.scale > 1) {
      const bounds = this.canvas.getBoundingClientRect();
      const dx = ((event.clientX - this.drag.x) * this.width) / bounds.width;
      const dy = ((event.clientY - this.drag.y) * this.height) / bounds.height;
      if (Math.abs(dx) + Math.abs(dy) > 3 || this.drag.moved) {
        this.drag = { x: event.clientX, y: event.clientY, moved: true };
        this.pan(-dx / this.zoom.scale, -dy / this.zoom.scale);
      }
      return;
    }
    const patch = this.map && this.patchAt(event);
    this.told = patch;
    this.value.textContent = patch ? this.tell(patch) : "";
  }

  release(event) {
    if (!this.drag || event.button !== 0) return; // the press was somewhere else
    const { moved } = this.drag;
    this.drag = null;
    if (moved || !this.map) return;
    const patch = this.patchAt(event);
    const { grid } = this.map; // a layer may have a finer or coarser grid than the queries of the source
    if (patch) this.choose(patch.map((at, k) => Math.floor(((at + 0.5) / grid[k]) * this.source.grid[k])));
  }

  choose(patch) {
    this.cursor = patch;
    this.told = patch;
    this.events.onQuery(patch);
  }

  key(event) {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const { grid } = this.source;
    if (step) {
      const now = this.selection.query ?? this.cursor; // the query may have been chosen elsewhere since
      const from = now ?? grid.map((n) => Math.floor(n / 2));
      this.choose(now ? from.map((v, k) => Math.max(0, Math.min(grid[k] - 1, v + step[k]))) : from);
      this.bringIntoSight(this.cursor);
    } else if (event.key === "Escape") {
      this.cursor = this.told = null;
      this.value.textContent = "";
      this.events.onQuery(null);
    } else if (event.key === "+" || event.key === "=") this.magnify(1.5);
    else if (event.key === "-") this.magnify(1 / 1.5);
    else if (event.key === "0") this.events.onZoom({ scale: 1, x: 0, y: 0 });
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  wheel(event) {
    if (!event.deltaY || (!event.ctrlKey && this.zoom.scale === 1)) return; // a page must stay scrollable over a picture
    event.preventDefault();
    const bounds = this.canvas.getBoundingClientRect();
    this.magnify(event.deltaY < 0 ? 1.2 : 1 / 1.2, (event.clientX - bounds.left) / bounds.width,
      (event.clientY - bounds.top) / bounds.height);
  }

  /** Zoom about a point given in fractions of the canvas. */
  magnify(factor, fx = 0.5, fy = 0.5) {
    const { width, height } = this;
    const scale = Math.max(1, Math.min(12, this.zoom.scale * factor));
    const x = this.zoom.x + (fx * width) / this.zoom.scale - (fx * width) / scale;
    const y = this.zoom.y + (fy * height) / this.zoom.scale - (fy * height) / scale;
    this.settle(scale, x, y);
  }

  pan(dx, dy) { this.settle(this.zoom.scale, this.zoom.x + dx, this.zoom.y + dy); }

  /** Move a magnified picture so that a patch is seen. */
  bringIntoSight([r, c]) {
    const { scale } = this.zoom;
    if (scale === 1) return;
    const [left, top, right, bottom] = this.source.spec.window;
    const [rows, columns] = this.source.grid;
    const at = [(left + ((c + 0.5) / columns) * (right - left)) * this.width,
      (top + ((r + 0.5) / rows) * (bottom - top)) * this.height];
    const seen = [this.width / scale, this.height / scale];
    const corner = [this.zoom.x, this.zoom.y];
    const moved = corner.map((from, k) =>
      (at[k] < from + 0.05 * seen[k] || at[k] > from + 0.95 * seen[k] ? at[k] - seen[k] / 2 : from));
    if (moved.some((to, k) => to !== corner[k])) this.settle(scale, ...moved);
  }

  settle(scale, x, y) {
    const { width, height } = this;
    const limit = (value, size) => Math.max(0, Math.min(size - size / scale, value));
    this.events.onZoom({ scale, x: limit(x, width), y: limit(y, height) });
  }
}
