// Viewer: the controls, the panes and the one state they follow. Hosts give a model with
// get / set / save_changes / on / off (anywidget's own, or the page's shim), and an element.

const FOLDS = ["mean", "max", "min"];
const SELECTION = { source: 0, map: 0, layer: 0, layers: "one", head: 0, heads: "mean", row: 0, query: null,
  direction: "from", view: "text", words: false, pageQ: 0, pageK: 0 };
const SIDES = { A: "a", B: "b" };
const STATE = { two: false, palette: "bands", alpha: 0.6, cuts: [0.5, 1.5, 3], red: 6, top: 6, smooth: true,
  pattern: false, grey: true, regions: true, multiples: "none", speed: 700 };

class Viewer {
  constructor(model, element) {
    this.model = model;
    this.root = element;
    this.page = model.get("document");
    this.blob = bytesOf(model.get("blob"));
    this.sources = this.page.sources.map((spec) =>
      spec.kind === "text" ? new TextSource(spec, this.blob) : new ImageSource(spec, this.blob));
    this.palettes = this.page.palettes;
    this.state = { ...STATE, ...structuredClone(model.get("state")) };
    // who asked for contrast or for few colours starts with the twins of the colours, and may untick them
    this.state.pattern ||= matchMedia("(prefers-contrast: more), (forced-colors: active)").matches;
    this.state.a = this.bound({ ...SELECTION, ...this.state.a });
    this.state.b = this.bound({ ...SELECTION, ...(this.state.b ?? this.state.a) });
    this.active = "a";
    this.zoom = { scale: 1, x: 0, y: 0 };
    this.painted = 0;
    this.trouble = "";
  }

  async start() {
    linkKernel(this);
    this.follow(); // before the first wait: a change that comes meanwhile must not be lost
    await Promise.all(this.sources.map((source) => source.open()));
    this.photos = await Promise.all(this.page.sources.map((spec) => this.photo(spec)));
    if (this.stopped) return; // another document came while this one was read
    if (this.before && !sameShape(this.before, this.photos[0])) this.zoom = { scale: 1, x: 0, y: 0 };
    this.build();
    this.draw();
    // the first picture stands; the rest is read behind it
    await new Promise((keep) => requestAnimationFrame(() => setTimeout(keep)));
    for (const source of this.sources) {
      source.openRest(() => this.schedule(), () => this.stopped).catch((problem) => {
        this.trouble = `A part of this page could not be read: ${problem.message}`;
        this.schedule();
      });
    }
  }

  async photo(spec) {
    if (!spec.picture) return null;
    const { offset, length, mime } = spec.picture;
    return createImageBitmap(new Blob([this.blob.slice(offset, offset + length)], { type: mime }));
  }

  /** Listen to changes of the state from outside (Python). */
  follow() {
    // a new document may come in the same message, told after the state: only its own viewer may draw both
    this.onState = () => queueMicrotask(() => {
      const next = this.model.get("state");
      if (this.stopped || JSON.stringify(next) === this.sent) return;
      Object.assign(this.state, structuredClone(next));
      for (const side of ["a", "b"]) this.state[side] = this.bound({ ...SELECTION, ...this.state[side] });
      if (!this.box) return;
      this.syncControls();
      this.draw();
    });
    this.onDocument = () => this.renew();
    this.model.on("change:state", this.onState);
    this.model.on("change:document", this.onDocument);
    this.onScheme = () => { if (this.box && this.theme()) this.schedule(); };
    this.onTheme = new MutationObserver(this.onScheme);
    const marks = { attributes: true, attributeFilter: ["data-jp-theme-light", "data-vscode-theme-kind", "theme"] };
    this.onTheme.observe(document.body, marks);
    this.onTheme.observe(document.documentElement, marks);
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.scheme.addEventListener("change", this.onScheme);
    this.print = matchMedia("print"); // paper may have no colour: patterns stand in for it there
    this.onPrint = () => { if (this.box) this.draw(); };
    this.print.addEventListener("change", this.onPrint);
  }

  /** A new document (another picture or model): everything is read again. */
  async renew() {
    this.stop();
    const next = this.successor = new Viewer(this.model, this.root);
    const held = this.box?.contains(document.activeElement) ? document.activeElement : null;
    const name = held?.getAttribute("aria-label");
    Object.assign(next, { active: this.active, zoom: this.zoom, before: this.photos ? this.photos[0] : this.before,
      told: this.told });
    next.opened = [...(this.box?.querySelectorAll("details") ?? [])].map((one) => one.open);
    try {
      await next.start();
    } catch (problem) {
      if (!next.stopped) this.root.replaceChildren(make("p", { textContent: `This could not be shown: ${problem.message}` },
        { role: "alert" }));
      return;
    }
    if (next.stopped) return;
    // what the hand held before stays in the hand
    const same = held?.matches("canvas") ? next.box.querySelector(".av-stage canvas")
      : name && [...next.box.querySelectorAll("[aria-label]")].find((one) => one.getAttribute("aria-label") === name);
    same?.focus({ preventScroll: true });
  }

  stop() {
    if (this.successor) { this.successor.stop(); return; }
    this.stopped = true;
    clearInterval(this.timer);
    clearTimeout(this.saying);
    cancelAnimationFrame(this.frame);
    this.onTheme?.disconnect();
    this.scheme?.removeEventListener("change", this.onScheme);
    this.print?.removeEventListener("change", this.onPrint);
    if (this.onPaste) document.removeEventListener("paste", this.onPaste, true);
    if (this.onState) this.model.off("change:state", this.onState);
    if (this.onDocument) this.model.off("change:document", this.onDocument);
    if (this.onMessage) this.model.off("msg:custom", this.onMessage);
  }

  get selection() { return this.state[this.active]; }

  /** Change the selection of the active side, tell the host, draw in the same task. */
  choose(change, side = this.active) {
    const next = Object.assign(this.state[side], change);
    const source = this.sources[next.source];
    if ("source" in change) Object.assign(next, { map: 0, query: null, row: 0, pageQ: 0, pageK: 0 });
    this.bound(next);
    // a token of one list is none of the other: turned round, or on another page, nothing is chosen
    const otherList = "direction" in change && !(source.spec.same && next.pageQ === next.pageK);
    const otherPage = "pageK" in change && next.direction === "to";
    if (source.spec.kind === "text" && (otherList || otherPage)) next.query = null;
    this.changed();
  }

  /** Keep a selection, wherever it came from, to what there is. */
  bound(selection) {
    const within = (value, count) => Math.max(0, Math.min(Math.trunc(value) || 0, count - 1));
    selection.source = within(selection.source, this.sources.length);
    const { spec, layers } = this.sources[selection.source];
    selection.layer = within(selection.layer, layers.length);
    selection.head = within(selection.head, this.headCount(selection));
    selection.map = within(selection.map, (spec.maps ?? []).length + 1);
    selection.pageQ = within(selection.pageQ, spec.query_pages?.length ?? 1);
    selection.pageK = within(selection.pageK, spec.key_pages?.length ?? 1);
    const { query } = selection;
    const fits = spec.kind === "text" ? Number.isInteger(query)
      : Array.isArray(query) && query.every((at, k) => at >= 0 && at < spec.grid[k]);
    if (!fits) selection.query = null;
    return selection;
  }

  /** Whether "who looks at it" means something here. */
  get hasDirection() {
    const { spec } = this.sources[this.selection.source];
    return spec.kind === "text" || Boolean(this.selection.query && !spec.cross);
  }

  /** Change the selection of the side that a pane shows; in the difference that of both. */
  chooseIn(name, change) {
    const both = this.state.two && !(name in SIDES) && this.hasDifference;
    if (both) Object.assign(this.state.b, change);
    this.choose(change, both ? "a" : this.side(name));
  }

  set(change) {
    Object.assign(this.state, change);
    this.changed();
  }

  changed() {
    this.syncControls();
    this.draw();
    const plain = structuredClone(this.state);
    this.sent = JSON.stringify(plain);
    this.model.set("state", plain);
    this.model.save_changes();
  }

  headCount(selection) {
    const { layers } = this.sources[selection.source];
    return selection.layers === "one" ? layers[selection.layer].heads.length
      : Math.min(...layers.map((layer) => layer.heads.length));
  }

  schedule() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => { this.frame = null; this.draw(); });
  }

  look() {
    const { state } = this;
    return { ...state, colours: this.palettes[state.palette] ?? this.palettes.bands,
      pattern: state.pattern || this.print.matches, diverging: this.palettes.difference };
  }

  build() {
    this.root.replaceChildren();
    this.box = make("div", { className: "attnlib-viewer" }, { role: "region", "aria-label": this.page.title });
    this.imagePanes = ["A", "B", "A minus B"].map((name) => new ImagePane(name, {
      onQuery: (query) => this.chooseIn(name, { query, map: 0 }),
      onRow: (row) => {
        const side = this.side(name);
        const { source, query } = this.state[side];
        this.choose({ row, map: 0, query: this.sources[source].spec.cross ? query : null }, side);
      },
      onZoom: (zoom) => { this.zoom = zoom; this.draw(); },
    }));
    this.textPanes = ["A", "B", "A minus B"].map((name) => new TextPane(name, {
      onQuery: (query) => this.chooseIn(name, { query, map: 0 }) }));
    this.stage = make("div", { className: "av-stage" });
    this.legend = make("ul", { className: "av-legend" }, { "aria-label": "colours" });
    this.regions = make("table", { className: "av-regions", hidden: true });
    this.multiples = new Multiples((layer, head) =>
      this.choose({ layer, head, layers: "one", heads: "one", map: 0 }));
    this.notes = make("ul", { className: "av-notes" }, { "aria-label": "notes" });
    this.status = make("p", { className: "av-status" }); // seen; `spoken` says it and more
    this.spoken = make("p", { className: "av-spoken" }, { "aria-live": "polite" });
    const side = make("div", { className: "av-side" }, {}, this.status, this.legend, this.regions, this.notes);
    this.box.append(...buildControls(this), make("div", { className: "av-main" }, {}, this.stage, side),
      this.multiples.element, this.spoken);
    this.box.addEventListener("keydown", (event) => onLetter(this, event));
    this.root.append(this.box);
    (this.opened ?? []).forEach((open, n) => { this.box.querySelectorAll("details")[n].open = open; });
    this.theme();
    this.syncControls();
  }

  /** The side that a pane belongs to; choosing in a pane makes it the side that the controls move. */
  side(name) {
    if (this.state.two && name in SIDES) this.active = SIDES[name];
    return this.state.two ? this.active : "a";
  }

  /** Say what is shown to a screen reader, when the hand has rested; not what a page merely opens with. */
  say(words) {
    const news = this.told !== undefined && this.told !== words;
    this.told = words;
    if (!news) return;
    clearTimeout(this.saying);
    this.saying = setTimeout(() => { this.spoken.textContent = words; }, 700);
  }

  /** Show and say that something could not be done, until something else is shown. */
  warn(words) {
    this.status.textContent = words;
    if (words) this.say(words);
  }

  /** Dark where JupyterLab, VS Code, Colab or else the page's own colour scheme is; tells whether that changed. */
  theme() {
    const { jpThemeLight, vscodeThemeKind } = document.body.dataset;
    const colab = document.documentElement.getAttribute("theme");
    const dark = jpThemeLight ? jpThemeLight === "false" : vscodeThemeKind ? !vscodeThemeKind.endsWith("light")
      : colab ? colab === "dark" : this.scheme.matches;
    const before = this.box.dataset.theme;
    this.box.dataset.theme = dark ? "dark" : "light";
    return before !== this.box.dataset.theme;
  }

  syncControls() { this.controls?.sync(); }

  draw() {
    const look = this.look();
    const sides = this.state.two ? ["a", "b"] : ["a"];
    const chosen = sides.map((side) => this.state[side]);
    const sources = chosen.map((selection) => this.sources[selection.source]);
    const maps = chosen.map((selection, n) => sources[n].map(selection));
    const panes = sources.map((source, n) =>
      source.spec.kind === "text" ? this.textPanes[n] : this.imagePanes[n]);
    const alike = this.state.two && sources[0].spec.kind === sources[1].spec.kind;
    const text = sources[0].spec.kind === "text";
    if (alike) panes.push((text ? this.textPanes : this.imagePanes)[2]);
    const wanted = panes.map((pane) => pane.element);
    if (wanted.length !== this.stage.children.length || wanted.some((e, n) => e !== this.stage.children[n])) {
      this.stage.replaceChildren(...wanted);
      this.box.dataset.panes = wanted.length;
      this.makeRoom();
    }
    maps.forEach((map, n) => {
      panes[n].name = this.state.two ? `${"AB"[n]}${this.sources.length > 1 ? ` ${sources[n].spec.name}` : ""}` : "";
      panes[n].use(sources[n], this.photos[chosen[n].source]);
      panes[n].draw(map, chosen[n], look, this.zoom);
      panes[n].element.dataset.active = String(this.state.two && sides[n] === this.active);
    });
    const difference = !alike ? null : text ? textDifference(maps, panes.slice(0, 2).map((pane) => pane.line), chosen)
      : this.difference(maps, sources.map((source) => source.spec.window));
    this.hasDifference = alike && !difference.missing;
    if (alike) {
      panes[2].use(sources[0], this.photos[chosen[0].source]);
      panes[2].draw(difference, chosen[0], { ...look, regions: false }, this.zoom, difference.lift);
    }
    this.tell(look, chosen, sources, maps, difference);
    this.drawMultiples(look);
    this.say([...panes.map((pane) => pane.words), this.trouble].filter(Boolean).join(" "));
    this.box.dataset.tick = ++this.painted;
  }

  difference([a, b], windows) {
    if (a.missing || b.missing) return { ...a, missing: a.missing ?? b.missing, lift: null };
    if (a.grid.join() !== b.grid.join()) {
      return { ...a, lift: null, missing: `no difference: A has ${a.grid.join("x")} patches, B ${b.grid.join("x")}` };
    }
    const [here, there] = windows;
    const patch = Math.min((here[2] - here[0]) / a.grid[1], (here[3] - here[1]) / a.grid[0]);
    if (here.some((edge, n) => Math.abs(edge - there[n]) > patch / 2)) {
      return { ...a, lift: null, missing: "no difference: A and B see different parts of the picture" };
    }
    const lift = a.lift.map((value, i) => value - b.lift[i]);
    const precision = a.precision === b.precision ? a.precision : `A ${a.precision}, B ${b.precision}`;
    return { ...a, notes: [], lift, values: lift, raw: null, precision, difference: true,
      label: "difference of the multiples of the even share" };
  }

  /** How wide text may be drawn, so that three panes beside each other can still be read. */
  makeRoom() {
    const whole = Math.min(this.box.clientWidth || 1320, 1320);
    const beside = this.stage.children.length > 2 ? Math.floor((whole - 30) / 3) : 560;
    for (const pane of this.textPanes) pane.room = Math.min(560, whole, Math.max(260, beside));
  }

  /** Words and tables under the map, in one go. */
  tell(look, chosen, sources, maps, difference) {
    const text = sources[0].spec.kind === "text";
    const lines = text && chosen.every((one) => one.view === "lines");
    const key = JSON.stringify([look.palette, look.cuts, look.red, look.top, look.pattern, !!difference, lines]);
    if (key !== this.legendKey) showLegend(this.legend, look, difference, lines);
    this.legend.hidden = text && maps[0].values === null;
    this.legendKey = key;
    this.status.textContent = maps.map((map, n) => {
      const outside = map.prefix ?? null;
      const nothing = outside === null || (outside < 5e-4 && !sources[n].spec.prefix.length);
      const words = [map.summary ?? "", nothing ? ""
        : `Outside the patches (${
          sources[n].spec.prefix.map(shownToken).join(", ") || "other tokens"}): ${percent(outside)} of the attention.`].join(" ").trim();
      return maps.length > 1 && words ? `${"AB"[n]}: ${words}` : words;
    }).concat(difference?.summary ? `A minus B: ${difference.summary}` : [], this.trouble).join(" ").trim();
    if (!text) {
      showRegions(this.regions, sources[0].spec.regions,
        maps.map((map, n) => ({ title: "AB"[n], rows: sources[n].shares(map) })));
    } else this.regions.hidden = true;
    const notes = [...new Set([...difference?.notes ?? [], ...maps.flatMap((map, n) => [...map.notes,
      ...sources[n].spec.notes, ...(sources[n].ask ? [] : sources[n].spec.query_notes ?? [])])])];
    if (notes.join() !== this.noteKey) {
      this.notes.replaceChildren(...notes.map((words) => make("li", { textContent: words })));
    }
    this.noteKey = notes.join();
  }

  drawMultiples(look) {
    const { multiples: what } = this.state;
    const { selection } = this;
    const source = this.sources[selection.source];
    this.multiples.element.hidden = what === "none" || source.spec.kind === "text";
    if (this.multiples.element.hidden) return;
    const { palette, cuts, red, top } = look;
    const key = JSON.stringify([what, selection.source, selection.row, palette, cuts, red, top,
      what === "heads" && selection.layer, what === "layers" && selection.head]);
    if (key === this.multiplesKey) { this.multiples.mark(selection); return; }
    this.multiplesKey = key;
    const heads = range(this.headCount(selection));
    const layers = range(source.layers.length);
    const pairs = what === "heads" ? heads.map((head) => [selection.layer, head])
      : what === "layers" ? layers.map((layer) => [layer, selection.head])
      : layers.flatMap((layer) => range(source.layers[layer].heads.length).map((head) => [layer, head]));
    const cells = pairs.map(([layer, head]) => {
      const one = { ...selection, map: 0, layer, head, layers: "one", heads: "one", query: null };
      const map = source.map(one);
      return { layer, head, lift: map.lift, grid: map.grid, words: source.where(one),
        short: what === "heads" ? `head ${source.layers[layer].heads[head]}`
          : what === "layers" ? `layer ${source.layers[layer].index}`
          : `${source.layers[layer].index}.${source.layers[layer].heads[head]}` };
    });
    const columns = what === "all" ? Math.max(...source.layers.map((layer) => layer.heads.length))
      : Math.min(pairs.length, 12);
    const { rows } = source.spec;
    this.multiples.show(cells, columns, selection, look, rows[Math.min(selection.row, rows.length - 1)]);
  }
}

function sameShape(one, other) { return one?.width === other?.width && one?.height === other?.height; }

async function render({ model, el }) {
  const viewer = new Viewer(model, el);
  await viewer.start();
  return () => viewer.stop();
}
