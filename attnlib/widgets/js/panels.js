// Panels around the map: legend, table of regions, small multiples, saving a picture.

/** Fill the legend for the palette in force: swatch or pattern, name and range. */
function showLegend(element, look, difference, lines) {
  const rows = [];
  if (lines) {
    const signs = difference ? ["A minus B: unbroken lines are more in A, broken ones more in B"] : [];
    element.replaceChildren(...["a line is thicker and stronger the more a token (left) looks at another (right); the strongest is drawn full",
      `with a token chosen, the five strongest carry their share; weights below 0.2 % are not drawn, nor more than ${MOST_LINES} lines`,
      ...signs].map((textContent) => make("li", { textContent })));
    return;
  }
  const swatch = (background, band) => {
    const box = make("canvas", { width: 22, height: 16, className: "av-swatch" }, { "aria-hidden": "true" });
    const pen = box.getContext("2d");
    if (background) { pen.fillStyle = background; pen.fillRect(0, 0, 22, 16); }
    if (look.pattern && band) {
      drawPattern(pen, [[0, look.cuts[0], look.cuts[1], look.cuts[2], look.red][band]], [1, 1],
        { x: 0, y: 0, width: 22, height: 16 }, look);
    }
    return box;
  };
  const row = (box, words) => rows.push(make("li", {}, {}, box, make("span", { textContent: words })));
  const [low, moderate, highest] = look.cuts.map(short);
  const red = short(look.red);
  if (look.colours.kind === "bands") {
    const { colours, words } = look.colours;
    row(swatch(colours[3], 4), `4 highest (${words[4]}): ${red}x the even share and more`);
    row(swatch(colours[2], 3), `3 highest (${words[3]}): ${highest}-${red}x`);
    row(swatch(colours[1], 2), `2 moderate (${words[2]}): ${moderate}-${highest}x`);
    row(swatch(colours[0], 1), `1 low (${words[1]}): ${low}-${moderate}x`);
    row(swatch(null, 0), `0 minimal (${words[0]}): below ${low}x`);
  } else {
    rows.push(make("li", {}, {}, ramp(look.colours), make("span",
      { textContent: `0 to ${short(look.top)}x the even share; more is drawn like ${short(look.top)}x` })));
  }
  if (difference) {
    rows.push(make("li", {}, {}, ramp(look.diverging), make("span", {
      textContent: `difference A minus B: ${short(-look.cuts[2])}x (more in B) to ${highest}x (more in A)${
        look.pattern ? `; + is more in A, \u2212 more in B, from ${low}x on` : ""}` })));
  }
  element.replaceChildren(...rows);
}

/** A strip of a continuous palette. */
function ramp(palette) {
  const table = palette.bytes ?? (palette.bytes = fromBase64(palette.lut));
  const strip = make("canvas", { width: 128, height: 12, className: "av-ramp" }, { "aria-hidden": "true" });
  const pen = strip.getContext("2d");
  for (let x = 0; x < 128; x++) {
    const c = x * 6;
    pen.fillStyle = `rgb(${table[c]},${table[c + 1]},${table[c + 2]})`;
    pen.fillRect(x, 0, 1, 12);
  }
  return strip;
}

/** Fill the table of regions: share of mass, of area, and lift, for one map or for two. */
function showRegions(element, regions, columns) {
  const names = columns[0].rows.map((one) => one.name);
  element.hidden = names.length === 0;
  if (!names.length) return;
  const many = columns.length > 1;
  const head = make("tr", {}, {}, make("th", { textContent: "region", scope: "col" }));
  for (const { title } of columns) {
    for (const words of ["mass", "lift"]) {
      head.append(make("th", { textContent: many ? `${title} ${words}` : words, scope: "col" }));
    }
  }
  head.append(make("th", { textContent: "area", scope: "col" }));
  const lines = names.map((name, n) => {
    const title = make("th", { textContent: name, scope: "row" });
    if (regions[n].outline.length) title.dataset.number = n + 1; // as drawn beside its outline
    const line = make("tr", {}, {}, title);
    for (const { rows } of columns) {
      line.append(make("td", { textContent: rows[n] ? percent(rows[n].share) : "" }),
        make("td", { textContent: rows[n] ? `${short(rows[n].lift)}x` : "" }));
    }
    line.append(make("td", { textContent: percent(columns[0].rows[n].area) }));
    return line;
  });
  element.replaceChildren(make("caption", { textContent: "Regions: share of the mass over the patches" }),
    make("thead", {}, {}, head), make("tbody", {}, {}, ...lines));
}

/** Small pictures of many heads or layers, each a button that goes there. */
class Multiples {
  constructor(onChoose) {
    this.onChoose = onChoose;
    this.element = make("div", { className: "av-multiples", hidden: true },
      { role: "group", "aria-label": "all heads or layers" });
    this.caption = make("p", { className: "av-which" });
    this.cells = [];
    this.shape = "";
    this.element.addEventListener("keydown", (event) => this.key(event));
  }

  /** cells: [{layer, head, words, map}]; drawn with the palette of the big map; `row`: what all of them show. */
  show(cells, columns, selection, look, row) {
    this.caption.textContent = row ? `Small maps show the row ${row}, also where a patch is chosen.` : "";
    const shape = cells.map((cell) => `${cell.layer},${cell.head},${cell.short},${cell.words}`).join(" ");
    if (shape !== this.shape) this.build(cells, columns);
    this.shape = shape;
    cells.forEach((cell, n) => {
      const { canvas } = this.cells[n];
      const [rows, across] = cell.grid;
      if (canvas.width !== across || canvas.height !== rows) {
        canvas.width = across;
        canvas.height = rows;
        this.cells[n].image = null;
      }
      const pen = canvas.getContext("2d");
      const image = this.cells[n].image ?? (this.cells[n].image = pen.createImageData(across, rows));
      paintLift(image, cell.lift, look.colours, look);
      pen.putImageData(image, 0, 0);
      const highest = short(cell.lift.reduce((a, b) => Math.max(a, b), 0));
      this.cells[n].most.textContent = ` ${highest}x`; // what the colours say, as a number
      this.cells[n].box.setAttribute("aria-label", `${cell.short} ${highest}x: ${
        cell.words}, highest ${highest} times the even share`);
    });
    this.mark(selection);
  }

  /** Press the button of what the big map shows; touch no other, there may be hundreds. */
  mark(selection) {
    const single = selection.heads === "one" && selection.layers === "one" && selection.map === 0;
    const now = this.cells.find((cell) => cell.layer === selection.layer && cell.head === selection.head)
      ?? this.cells[0];
    if (this.marked && this.marked !== now) {
      this.marked.box.setAttribute("aria-pressed", "false");
      this.marked.box.tabIndex = -1;
    }
    if (!now) return;
    const here = now.layer === selection.layer && now.head === selection.head;
    now.box.setAttribute("aria-pressed", String(here && single));
    now.box.tabIndex = 0;
    this.marked = now;
  }

  build(cells, columns) {
    this.marked = null;
    this.rows = []; // places of the cells, row by row: layers may have unequal numbers of heads
    const byLayer = cells.some((cell, n) => n && cell.layer === cells[n - 1].layer);
    cells.forEach((cell, n) => {
      const before = cells[n - 1];
      const next = !before || (byLayer && cell.layer !== before.layer);
      if (next || this.rows.at(-1).length === columns) this.rows.push([]);
      this.rows.at(-1).push(n);
    });
    this.element.style.setProperty("--av-columns", columns);
    this.cells = cells.map((cell) => {
      const canvas = make("canvas", { className: "av-small" }, { "aria-hidden": "true" });
      const box = button("", () => this.onChoose(cell.layer, cell.head), { title: cell.words, pressed: false });
      const most = make("small", {});
      box.append(canvas, make("span", { textContent: cell.short }, {}, most));
      box.tabIndex = -1;
      return { box, canvas, most, image: null, layer: cell.layer, head: cell.head };
    });
    for (const [first] of this.rows) this.cells[first].box.style.gridColumnStart = 1;
    this.element.replaceChildren(this.caption, ...this.cells.map((cell) => cell.box));
  }

  key(event) {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const at = this.cells.findIndex((cell) => cell.box === document.activeElement);
    if (!step || at < 0) return;
    const row = this.rows.findIndex((one) => one.includes(at));
    const there = this.rows[row + step[0]];
    const to = this.cells[step[0] ? there?.[Math.min(this.rows[row].indexOf(at), there.length - 1)] : at + step[1]];
    if (to) { to.box.focus(); to.box.click(); }
    event.preventDefault();
    event.stopPropagation();
  }
}

/** Offer the shown maps as one PNG, with their captions and the legend, on the ground they are shown on. */
function savePicture(canvases, captions, legend, name) {
  const items = [...legend.children].map((item) => [item.querySelector("canvas"), item.textContent]);
  const wide = (one) => parseFloat(one.style.getPropertyValue("--av-width"));
  const high = (one) => (one.height * wide(one)) / one.width;
  const width = Math.max(460, canvases.reduce((sum, one) => sum + wide(one) + 10, 10));
  const height = Math.max(...canvases.map(high));
  const sheet = make("canvas");
  const whole = height + 54 + 20 * items.length;
  const pen = sharpPen(sheet, width, whole);
  const style = getComputedStyle(legend.closest(".attnlib-viewer"));
  pen.fillStyle = style.backgroundColor;
  pen.fillRect(0, 0, width, whole);
  pen.fillStyle = style.color;
  pen.font = "13px system-ui, sans-serif";
  let x = 10;
  canvases.forEach((one, n) => {
    pen.drawImage(one, x, 10, wide(one), high(one));
    pen.fillText(captions[n], x, height + 30, Math.max(wide(one), canvases.length > 1 ? 0 : width - 20));
    x += wide(one) + 10;
  });
  items.forEach(([swatch, words], n) => {
    const y = height + 44 + 20 * n;
    if (swatch) pen.drawImage(swatch, 10, y);
    pen.fillText(words, 18 + (swatch?.width ?? 0), y + 12, width - 28 - (swatch?.width ?? 0));
  });
  sheet.toBlob((blob) => {
    const link = make("a", { href: URL.createObjectURL(blob), download: `${name}.png` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }, "image/png");
}
