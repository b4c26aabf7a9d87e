// TextPane: tokens and attention between them, as coloured text, as lines, or as a matrix.

const LINE_HEIGHT = 20;
const LINES_HEIGHT = 640;
const MOST_LINES = 800; // more would be one blot, and would freeze the page

class TextPane {
  constructor(name, events) {
    this.name = name;
    this.events = events;
    this.tokens = make("div", { className: "av-tokens" }, { role: "group", "aria-label": "tokens" });
    this.keys = make("div", { className: "av-tokens" }, { role: "group", "aria-label": "keys" });
    this.canvas = make("canvas", { className: "av-text-canvas", tabIndex: 0 },
      { role: "application", "aria-roledescription": "attention between tokens" });
    this.tall = make("div", { className: "av-tall" }, {}, this.canvas);
    this.scroll = make("div", { className: "av-scroll" }, {}, this.tall);
    this.scroll.addEventListener("scroll", () => {
      if (this.map && !this.map.missing && this.selection.view === "lines") this.drawLines();
    });
    this.caption = make("p", { className: "av-caption" });
    this.value = make("p", { className: "av-value" });
    this.message = make("p", { className: "av-message", hidden: true });
    this.element = make("figure", { className: "av-pane av-text" }, {}, this.message, this.tokens, this.keys,
      this.scroll, this.caption, this.value);
    this.told = null;
    this.room = 560; // how wide lines and matrix may be
    this.element.addEventListener("pointerleave", () => { this.told = null; this.value.textContent = ""; });
    this.canvas.addEventListener("click", (event) => this.click(event));
    this.canvas.addEventListener("pointermove", (event) => this.hover(event));
    for (const host of [this.tokens, this.keys]) {
      host.addEventListener("click", (event) => this.clickToken(event));
      for (const kind of ["pointerover", "focusin"]) host.addEventListener(kind, (event) => this.tellToken(event));
    }
    this.element.addEventListener("keydown", (event) => this.key(event));
  }

  use(source) { this.source = source; }

  draw(map, selection, look) {
    this.map = map;
    this.look = look;
    this.selection = selection;
    if (!map.missing && selection.query >= this.chosenTokens().length) this.selection = { ...selection, query: null };
    this.message.hidden = !map.missing;
    this.message.textContent = map.missing ?? "";
    this.sheet = null;
    const as = map.missing ? "none" : map.given ? "text" : selection.view;
    this.tokens.hidden = this.keys.hidden = as !== "text";
    this.scroll.hidden = as !== "lines" && as !== "matrix";
    const axes = as === "matrix" ? ". Each row looks at the columns" : "";
    this.caption.textContent = [this.name, map.label].filter(Boolean).join(": ") + axes;
    if (map.missing) { this.line = null; this.words = `${this.name}: no map: ${map.missing}`; return; }
    this.line = map.line ?? this.source.line(map, this.selection);
    map.summary = this.summary();
    if (as === "text") this.drawText();
    if (as === "lines") {
      this.left = "";
      this.drawLines();
      this.caption.textContent += this.left;
    }
    if (as === "matrix") { this.tall.style.height = "auto"; this.drawMatrix(); }
    this.words = `${this.name ? `${this.name}: ` : ""}${map.label}. ${map.summary}`;
    this.canvas.setAttribute("aria-label", this.words);
    if (this.told !== null) this.tell(this.told); // what lies under a resting pointer has changed
  }

  /** Which list of tokens is coloured: keys, or queries when asking who looks at a key. */
  coloured() {
    const to = this.selection.direction === "to" && this.selection.query !== null && !this.map.given;
    return to ? this.map.queryTokens : this.map.keyTokens;
  }

  chosenTokens() {
    return this.selection.direction === "to" ? this.map.keyTokens : this.map.queryTokens;
  }

  summary() {
    const tokens = this.coloured();
    if (this.map.difference) return differenceWords(this.line, tokens);
    const best = [...this.line.lift.keys()].sort((a, b) => this.line.raw[b] - this.line.raw[a]).slice(0, 3)
      .map((i) => `${quoted(tokens[i])} ${percent(this.line.raw[i])}`);
    const { query, direction } = this.selection;
    if (this.map.given) return `The map lies most on ${best.join(", ")}.`;
    const who = query === null ? "All tokens together look most at"
      : direction === "to" ? `${quoted(this.map.keyTokens[query])} is looked at most by`
      : `${quoted(this.map.queryTokens[query])} looks most at`;
    return `${who} ${best.join(", ")}.`;
  }

  // text -----------------------------------------------------------------------------------------

  drawText() {
    const { spec } = this.source;
    const one = spec.same && this.selection.pageQ === this.selection.pageK;
    fillTokens(this.tokens, one ? this.coloured() : this.chosenTokens());
    this.keys.hidden = one;
    if (!one) fillTokens(this.keys, this.coloured());
    const coloured = one ? this.tokens : this.keys;
    const titles = ["these tokens look", "at these tokens"];
    if (this.selection.direction === "to") titles.reverse();
    this.tokens.dataset.title = one ? "" : titles[0];
    this.keys.dataset.title = this.chosenTokens() === this.coloured() ? "at these tokens" : titles[1];
    paintTokens([...coloured.children], this.line.lift, this.look, this.map.difference);
    if (!one) {
      for (const token of this.tokens.children) { // what it was coloured with on another page
        token.style.backgroundColor = token.style.color = token.dataset.band = "";
      }
      const stop = [...this.keys.children].indexOf(document.activeElement); // one stop of the Tab key, not hundreds
      [...this.keys.children].forEach((token, i) => {
        token.tabIndex = i === Math.max(stop, 0) ? 0 : -1;
        token.setAttribute("aria-label", `${token.textContent}, ${
          (this.map.difference ? signedPercent : percent)(this.line.raw[i])}`);
      });
    }
    const at = this.map.given ? null : this.selection.query;
    [...this.tokens.children].forEach((token, i) => {
      token.setAttribute("aria-pressed", String(i === at));
      token.tabIndex = i === (at ?? 0) ? 0 : -1;
    });
  }

  clickToken(event) {
    const token = event.target.closest(".av-token");
    if (!token || token.parentNode === this.keys) return;
    const at = Number(token.dataset.at);
    this.events.onQuery(at === this.selection.query ? null : at);
  }

  tellToken(event) {
    const token = event.target.closest(".av-token");
    const one = this.keys.hidden;
    if (token && (one || token.parentNode === this.keys)) this.tell(Number(token.dataset.at));
  }

  tell(i) {
    const tokens = this.coloured();
    if (tokens[i] === undefined) return;
    this.told = i;
    if (this.map.difference) {
      this.value.textContent = `${quoted(tokens[i])} (${i}): A ${this.more(this.line.lift[i])} (${
        this.map.precision}), share ${signedPercent(this.line.raw[i])}`;
      return;
    }
    const about = this.map.precision.startsWith("within") ? "about " : "";
    this.value.textContent = `${quoted(tokens[i])} (${i}): ${about}${short(this.line.raw[i])} (${
      this.map.precision}), ${short(this.line.lift[i])} times the even share`;
  }

  more(lift) {
    return `${lift < 0 ? "less" : "more"} than B by ${short(Math.abs(lift))} times the even share`;
  }

  // lines ----------------------------------------------------------------------------------------

  /** Draw the part of the two columns that is in sight; a canvas of all 512 rows would be slow. */
  drawLines() {
    const { map, selection, canvas } = this;
    const whole = Math.max(map.rows, map.columns) * LINE_HEIGHT + 8;
    const height = Math.min(whole, LINES_HEIGHT);
    const width = this.room;
    this.tall.style.height = `${whole}px`;
    const pen = sharpPen(canvas, width, height);
    this.sheet = { width, height };
    const style = getComputedStyle(this.element);
    pen.clearRect(0, 0, width, height);
    const offset = whole > height ? this.scroll.scrollTop : 0;
    const y = (i) => i * LINE_HEIGHT + LINE_HEIGHT / 2 + 4 - offset;
    this.links(pen, y);
    pen.globalAlpha = 1;
    pen.fillStyle = style.color;
    pen.textBaseline = "middle";
    const { direction, query } = selection;
    const first = Math.max(0, Math.floor((offset - 4) / LINE_HEIGHT));
    const last = Math.ceil((offset + height) / LINE_HEIGHT);
    const from = direction === "to" ? "key" : "query";
    const sizes = this.line.raw.map(Math.abs);
    const strong = Math.max([...sizes].sort((a, b) => b - a)[Math.min(5, sizes.length) - 1], 1e-6);
    const told = (i) => (map.difference ? signedPercent : percent)(this.line.raw[i]);
    const write = (tokens, x, side) => {
      for (let i = first; i < Math.min(last, tokens.length); i++) {
        const chosen = query === i && side === from;
        const share = query !== null && side !== from ? sizes[i] : 0;
        const token = clipped(tokens[i]);
        pen.font = `${chosen || share >= strong ? "bold 14px" : "13px"} system-ui, sans-serif`;
        const words = share < strong ? token : side === "query" ? `${told(i)}  \u2068${token}\u2069`
          : `\u2068${token}\u2069  ${told(i)}`;
        pen.fillText(words, x, y(i), this.side() - 5);
      }
    };
    pen.textAlign = "right";
    write(map.queryTokens, this.side(), "query");
    pen.textAlign = "left";
    write(map.keyTokens, width - this.side(), "key");
  }

  /** How wide the tokens on either side of the lines are. */
  side() { return Math.round(this.room * 0.286); }

  /** Lines as strong as the weight; all of a chosen token, else the strongest of the page. */
  links(pen, y) {
    const { map, selection } = this;
    const { rows, columns } = map;
    const values = map.difference ? map.raw : map.values;
    const style = getComputedStyle(this.element);
    const [ink, other] = [style.getPropertyValue("--av-accent") || "#0b57d0", style.getPropertyValue("--av-more") || "#b3261e"];
    let most = 1; // the strongest line shown is drawn full: in long texts every weight is small
    const link = (r, c, signed) => {
      const value = Math.abs(signed);
      pen.strokeStyle = map.difference && signed > 0 ? other : ink;
      pen.setLineDash(map.difference && signed < 0 ? [6, 4] : []); // more in B: another colour, and broken
      pen.globalAlpha = Math.min(1, 0.05 + 0.95 * (value / most));
      pen.lineWidth = 0.5 + 3.5 * (value / most);
      pen.beginPath();
      pen.moveTo(this.side() + 6, y(r));
      pen.lineTo(this.room - this.side() - 6, y(c));
      pen.stroke();
    };
    if (selection.query !== null) {
      most = this.line.raw.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-6);
      this.line.raw.forEach((value, i) => {
        if (Math.abs(value) < 0.002) return;
        if (selection.direction === "to") link(i, selection.query, value);
        else link(selection.query, i, value);
      });
    } else {
      const sizes = map.difference ? values.map(Math.abs) : values;
      most = sizes.reduce((a, b) => Math.max(a, b), 1e-6);
      const { places, left, of } = strongest(sizes, MOST_LINES);
      for (const i of places) link(Math.floor(i / columns), i % columns, values[i]);
      if (left) this.left = `. ${left} links of ${percent(of)} each are alike and not drawn: choose a token`;
    }
    pen.setLineDash([]);
  }

  // matrix ---------------------------------------------------------------------------------------

  drawMatrix() {
    const { map, canvas, look } = this;
    const { rows, columns, values, visible } = map;
    const labels = Math.max(rows, columns) <= 64;
    this.margin = labels ? 110 : 14;
    const room = this.room < 560 ? this.room - this.margin - 4 : labels ? 560 : 640;
    const cell = Math.max(1, Math.min(26, Math.floor(room / Math.max(rows, columns))));
    this.cell = cell;
    const width = this.margin + columns * cell + 4;
    const height = this.margin + rows * cell + 4;
    const pen = sharpPen(canvas, width, height);
    this.sheet = { width, height };
    pen.globalAlpha = 1;
    pen.clearRect(0, 0, width, height);
    if (!this.image || this.image.width !== columns || this.image.height !== rows) {
      this.image = new ImageData(columns, rows);
      this.small = make("canvas", { width: columns, height: rows });
      this.lift = new Float32Array(rows * columns);
    }
    const scale = map.difference ? () => 1 : (r) => visible[r]; // a difference is in multiples already
    for (let r = 0, i = 0; r < rows; r++) for (let c = 0; c < columns; c++, i++) this.lift[i] = values[i] * scale(r);
    if (map.difference) paintDifference(this.image, this.lift, look.diverging, look.cuts[2]);
    else paintLift(this.image, this.lift, look.colours, look);
    this.small.getContext("2d").putImageData(this.image, 0, 0);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(this.small, this.margin, this.margin, columns * cell, rows * cell);
    const ink = getComputedStyle(this.element).color;
    pen.fillStyle = pen.strokeStyle = ink;
    pen.strokeRect(this.margin - 0.5, this.margin - 0.5, columns * cell + 1, rows * cell + 1);
    if (labels) this.axes(pen, cell);
    if (look.pattern && (map.difference || look.colours.kind === "bands") && cell >= 6) {
      const box = { x: this.margin, y: this.margin, width: columns * cell, height: rows * cell };
      (map.difference ? drawSigns : drawPattern)(pen, this.lift, [rows, columns], box, look);
    }
    const at = this.selection.query;
    if (at === null) return;
    for (const [edge, wide] of [["#000", 4], ["#fff", 2]]) { // seen on light and on dark
      pen.strokeStyle = edge;
      pen.lineWidth = wide;
      if (this.selection.direction === "to") pen.strokeRect(this.margin + at * cell, this.margin, cell, rows * cell);
      else pen.strokeRect(this.margin, this.margin + at * cell, columns * cell, cell);
    }
    pen.lineWidth = 1;
  }

  axes(pen, cell) {
    pen.font = `${Math.min(13, Math.max(8, cell - 2))}px system-ui, sans-serif`;
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    this.map.queryTokens.forEach((token, i) =>
      pen.fillText(clipped(token, 18), this.margin - 5, this.margin + (i + 0.5) * cell, this.margin - 8));
    pen.textAlign = "left";
    this.map.keyTokens.forEach((token, i) => {
      pen.save();
      pen.translate(this.margin + (i + 0.5) * cell, this.margin - 5);
      pen.rotate(-Math.PI / 2);
      pen.fillText(clipped(token, 18), 0, 0, this.margin - 8);
      pen.restore();
    });
  }

  // choosing -------------------------------------------------------------------------------------

  place(event) {
    const bounds = this.canvas.getBoundingClientRect();
    const x = ((event.clientX - bounds.left) * this.sheet.width) / bounds.width;
    const y = ((event.clientY - bounds.top) * this.sheet.height) / bounds.height;
    if (this.selection.view === "matrix") {
      return { row: Math.floor((y - this.margin) / this.cell), column: Math.floor((x - this.margin) / this.cell) };
    }
    const offset = this.tall.offsetHeight > this.sheet.height ? this.scroll.scrollTop : 0;
    const line = Math.floor((y - 4 + offset) / LINE_HEIGHT);
    return x < this.room / 2 ? { row: line, column: null } : { row: null, column: line };
  }

  click(event) {
    const { row, column } = this.place(event);
    const at = this.selection.direction === "to" ? column : row;
    if (at === null || at < 0 || at >= this.chosenTokens().length) return;
    this.events.onQuery(at === this.selection.query ? null : at);
  }

  hover(event) {
    const { row, column } = this.place(event);
    const { map } = this;
    if (this.selection.view === "lines") {
      const at = this.selection.direction === "to" ? row : column;
      if (at !== null) this.tell(at);
      return;
    }
    this.told = null;
    if (row < 0 || column < 0 || row >= map.rows || column >= map.columns) return;
    const value = map.values[row * map.columns + column];
    const who = `${quoted(map.queryTokens[row])} looks at ${quoted(map.keyTokens[column])}`;
    this.value.textContent = map.difference ? `${who}: A ${this.more(value)} (${map.precision})`
      : `${who}: ${short(value)} (${map.precision}), ${short(value * map.visible[row])} times the even share`;
  }

  bringIntoSight(row) {
    const { scroll } = this;
    const at = row * LINE_HEIGHT;
    if (at < scroll.scrollTop || at > scroll.scrollTop + LINES_HEIGHT - 2 * LINE_HEIGHT) {
      scroll.scrollTop = at - LINES_HEIGHT / 2;
    }
  }

  /** Along the tokens that are looked at, as a pointer goes over them: it tells, and chooses nothing. */
  walkKeys(step) {
    const { children } = this.keys;
    const from = [...children].indexOf(document.activeElement);
    const to = Math.max(0, Math.min(children.length - 1, from + step));
    children[from].tabIndex = -1;
    children[to].tabIndex = 0;
    children[to].focus();
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, Home: -1e6, End: 1e6 }[event.key];
    if (event.key === "Escape") this.events.onQuery(null);
    else if (step && event.target.parentNode === this.keys) this.walkKeys(step);
    else if (step && this.map && !this.map.missing) {
      const last = this.chosenTokens().length - 1;
      const from = this.selection.query ?? (step > 0 ? -1 : last + 1);
      this.events.onQuery(Math.max(0, Math.min(last, from + step)));
      if (this.selection.view === "text") this.tokens.children[this.selection.query]?.focus();
      else if (this.selection.view === "lines") this.bringIntoSight(this.selection.query);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

const strongestKnown = new WeakMap();

/** Places of the `n` strongest entries, none below 0.2 %; `left`: how many equal ones (`of` each) found no room. */
function strongest(values, n) {
  if (strongestKnown.has(values)) return strongestKnown.get(values);
  let found = { places: [], left: 0, of: 0 };
  for (let i = 0; i < values.length; i++) if (values[i] >= 0.002) found.places.push(i);
  if (found.places.length > n) {
    const sorted = Float32Array.from(found.places, (i) => values[i]).sort();
    const of = sorted[sorted.length - n];
    const equal = found.places.filter((i) => values[i] === of).length;
    const left = equal > 1 ? equal : 0; // a part of those would look like a pattern
    found = { places: found.places.filter((i) => values[i] > of || (!left && values[i] === of)), left, of };
  }
  strongestKnown.set(values, found);
  return found;
}
