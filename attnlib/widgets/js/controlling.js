// The control rows of a viewer: each control reads and changes the viewer's one state.

/** Build the control rows and leave `viewer.controls.sync`, which shows the state in them. */
function buildControls(viewer) {
  const { page, state } = viewer;
  const now = () => viewer.selection;
  const source = () => viewer.sources[now().source];
  const isText = () => source().spec.kind === "text";
  const layerWords = (place) => String(source().layers[place]?.index ?? place);
  const headWords = (place) => String(source().layers[Math.min(now().layer, source().layers.length - 1)]
    .heads[place] ?? place);

  const side = choice("side", [["a", "A"], ["b", "B"]], viewer.active, (value) => {
    viewer.active = value;
    viewer.syncControls();
    viewer.draw();
  });
  const which = choice("source", page.sources.map((spec, n) => [n, spec.name]), now().source,
    (value) => viewer.choose({ source: Number(value) }));
  const map = choice("map", [[0, "attention"]], 0, (value) => viewer.choose({ map: Number(value) }));
  const folds = (what) => [["one", `one ${what}`], ...FOLDS.map((how) => [how, `${how} over ${what}s`])];
  const layers = choice("layers", folds("layer"),
    now().layers, (value) => viewer.choose({ layers: value, map: 0 }));
  const layer = slider("layer", { max: 0, value: 0, words: layerWords },
    (value) => viewer.choose({ layer: value, layers: "one", map: 0 }));
  const heads = choice("heads", folds("head"),
    now().heads, (value) => viewer.choose({ heads: value, map: 0 }));
  const head = slider("head", { max: 0, value: 0, words: headWords },
    (value) => viewer.choose({ head: value, heads: "one", map: 0 }));
  const row = choice("row", [[0, ""]], 0, (value) => {
    if (value === "patch") return;
    viewer.choose({ row: Number(value), query: source().spec.cross ? now().query : null });
  });
  const direction = choice("direction", [["from", "where the query looks"], ["to", "who looks at it"]],
    now().direction, (value) => viewer.choose({ direction: value }));
  const play = button("Play", () => playLayers(viewer, play), { title: "play through the layers", pressed: false });
  const two = tick("side by side", state.two, (on) => {
    if (on) state.b = structuredClone(state.a);
    viewer.active = "a";
    viewer.set({ two: on });
  });

  const view = choice("view", [["text", "text"], ["lines", "lines"], ["matrix", "matrix"]], now().view,
    (value) => viewer.choose({ view: value, map: 0 }));
  const words = tick("whole words", now().words, (on) => viewer.choose({ words: on, query: null }));
  const pageQ = choice("query page", [[0, "1"]], 0, (value) => viewer.choose({ pageQ: Number(value), query: null }));
  const pageK = choice("key page", [[0, "1"]], 0, (value) => viewer.choose({ pageK: Number(value) }));

  const palette = choice("palette", Object.entries(page.palettes).filter(([key]) => key !== "difference")
    .map(([key, one]) => [key, one.label]), state.palette, (value) => viewer.set({
    palette: value, pattern: page.palettes[value].numbered ? true : state.pattern }));
  const alpha = slider("opacity", { max: 100, value: state.alpha * 100, words: (v) => `${v} %` },
    (value) => viewer.set({ alpha: value / 100 }));
  const cutFields = ["low from", "moderate from", "highest from", "red from"].map((name, n) =>
    number(`${name} (x)`, { min: 0, step: 0.1, value: [...state.cuts, state.red][n] }, () => changeCuts()));
  const top = number("top of the scale (x)", { min: 0.1, step: 0.5, value: state.top },
    (value) => { if (value > 0) viewer.set({ top: value }); });
  const smooth = tick("smooth", state.smooth, (on) => viewer.set({ smooth: on }));
  const pattern = tick("patterns", state.pattern, (on) => viewer.set({ pattern: on }));
  const grey = tick("grey picture", state.grey, (on) => viewer.set({ grey: on }));
  const regions = tick("region outlines", state.regions, (on) => viewer.set({ regions: on }));
  const multiples = choice("small maps", [["none", "none"], ["heads", "all heads of this layer"],
    ["layers", "all layers of this head"], ["all", "all layers and heads"]], state.multiples,
  (value) => viewer.set({ multiples: value }));
  const magnify = (factor) => viewer.imagePanes.find((pane) => pane.zoom && pane.element.isConnected)?.magnify(factor);
  const zoomIn = button("Zoom in", () => magnify(1.5), { title: "zoom in" });
  const zoomOut = button("Zoom out", () => magnify(1 / 1.5), { title: "zoom out" });
  const full = button("Full screen", async () => {
    try {
      await (document.fullscreenElement ? document.exitFullscreen() : viewer.box.requestFullscreen());
    } catch { viewer.warn("this page may not fill the screen here"); }
  }, { title: "full screen" });
  const save = button("Save PNG", () => saveShown(viewer), { title: "Save PNG: save the shown maps as a picture" });

  function changeCuts() {
    const [low, moderate, highest, red] = cutFields.map((field) => Number(field.input.value));
    const fine = low > 0 && low < moderate && moderate < highest && highest <= red;
    for (const field of cutFields) field.input.setAttribute("aria-invalid", String(!fine));
    viewer.warn(fine ? "" : "the cuts must increase and start above 0");
    if (fine) viewer.set({ cuts: [low, moderate, highest], red });
  }

  function sync() {
    const selection = now();
    const { spec, layers: all } = source();
    const text = isText();
    side.set(viewer.active);
    side.element.hidden = !state.two;
    two.set(state.two);
    which.set(selection.source);
    which.element.hidden = viewer.sources.length < 2;
    map.fill([[0, "attention"], ...(spec.maps ?? []).map((one, n) => [n + 1, one.name])]);
    map.set(selection.map);
    map.element.hidden = !(spec.maps ?? []).length;
    const attention = selection.map === 0;
    const given = attention ? null : `(${spec.maps?.[selection.map - 1]?.name ?? "map"})`; // moving a slider leaves that map
    layer.limit(all.length - 1);
    layer.set(selection.layer, given ?? (selection.layers === "one" ? null : selection.layers));
    head.limit(viewer.headCount(selection) - 1);
    head.set(Math.min(selection.head, viewer.headCount(selection) - 1),
      given ?? (selection.heads === "one" ? null : selection.heads));
    layers.set(selection.layers);
    heads.set(selection.heads);
    row.element.hidden = text || !attention;
    if (!text) {
      row.fill([...spec.rows.map((words_, n) => [n, words_]),
        ...(selection.query && !spec.cross ? [["patch", `patch (${selection.query.join(", ")})`]] : [])]);
      row.set(selection.query && !spec.cross ? "patch" : selection.row);
    }
    direction.set(selection.direction);
    direction.element.hidden = !viewer.hasDirection;
    view.set(selection.view);
    words.set(selection.words);
    words.element.hidden = !(spec.query_words || spec.key_words);
    for (const [control, pages, at] of [[pageQ, spec.query_pages, selection.pageQ],
      [pageK, spec.key_pages, selection.pageK]]) {
      control.element.hidden = !pages || pages.length < 2;
      if (pages) {
        control.fill(pages.map(([a, b], n) => [n, `${n + 1} of ${pages.length} (tokens ${a}-${b - 1})`]));
        control.set(at);
      }
    }
    textGroup.hidden = !text;
    for (const element of imageOnly) element.hidden = text;
    palette.set(state.palette);
    alpha.set(Math.round(state.alpha * 100));
    cutFields.forEach((field, n) => field.set([...state.cuts, state.red][n]));
    top.set(state.top);
    const bands = page.palettes[state.palette]?.kind === "bands";
    top.element.hidden = bands;
    smooth.element.hidden = bands || text;
    smooth.set(state.smooth);
    pattern.set(state.pattern);
    pattern.element.hidden = !bands;
    grey.set(state.grey);
    grey.element.hidden = text;
    regions.set(state.regions);
    regions.element.hidden = text || !(spec.regions ?? []).length;
    multiples.set(state.multiples);
  }

  const textGroup = group("text", view.element, words.element, pageQ.element, pageK.element);
  const imageOnly = [alpha.element, multiples.element, zoomIn, zoomOut];
  const settings = make("details", { className: "av-settings" }, {}, make("summary", { textContent: "Colours and cuts" }),
    group("colours and cuts", palette.element, alpha.element, ...cutFields.map((field) => field.element),
      top.element, smooth.element, pattern.element, grey.element));
  const keys = make("details", { className: "av-settings" }, {}, make("summary", { textContent: "Keys" }),
    make("ul", { className: "av-keys" }, {}, ...KEYS.map(([key, does]) =>
      make("li", {}, {}, make("kbd", { textContent: key }), ` ${does}`))));
  viewer.controls = { sync };
  return [
    group("what is shown", side.element, which.element, map.element, layers.element, layer.element, heads.element,
      head.element, play),
    group("query", row.element, direction.element, two.element, regions.element, multiples.element, zoomIn,
      zoomOut, full, save),
    textGroup,
    make("div", { className: "av-group" }, {}, settings, keys),
  ];
}

const KEYS = [["Tab", "goes to the next control, the picture or the tokens"],
  ["arrows", "on a slider: the next layer or head; on the picture or a token: the next query"],
  ["Esc", "no query: back to what the head reads"],
  ["l / L", "next / previous layer"], ["h / H", "next / previous head"], ["m", "mean over the heads"],
  ["d", "turn the direction round"], ["p", "patterns or numbers instead of colour alone"],
  ["+ - 0", "zoom in, out, whole picture"]];

/** Letters on the picture, on tokens and on small maps; never inside a field, where letters are text. */
function onLetter(viewer, event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (!event.target.closest(".av-stage, .av-multiples")) return;
  const now = viewer.selection;
  const step = event.key === event.key.toUpperCase() ? -1 : 1;
  const next = (at, count) => (at + step + count) % count;
  const { layers } = viewer.sources[now.source];
  const acts = {
    l: () => viewer.choose({ layer: next(now.layer, layers.length), layers: "one", map: 0 }),
    h: () => viewer.choose({ head: now.heads === "one" ? next(now.head, viewer.headCount(now)) : now.head,
      heads: "one", map: 0 }),
    m: () => viewer.choose({ heads: "mean", map: 0 }),
    d: () => { if (viewer.hasDirection) viewer.choose({ direction: now.direction === "to" ? "from" : "to" }); },
    p: () => viewer.set({ pattern: !viewer.state.pattern }),
  };
  const act = acts[event.key.toLowerCase()];
  if (!act) return;
  act();
  event.preventDefault();
  event.stopPropagation();
}

/** Step through the layers until pressed again. Never starts by itself. */
function playLayers(viewer, control) {
  const on = control.getAttribute("aria-pressed") !== "true";
  control.setAttribute("aria-pressed", String(on));
  control.textContent = on ? "Stop" : "Play";
  control.setAttribute("aria-label", on ? "Stop: play through the layers" : "play through the layers");
  clearInterval(viewer.timer);
  if (!on) return;
  viewer.timer = setInterval(() => {
    if (!viewer.box.isConnected) { playLayers(viewer, control); return; }
    const { layers } = viewer.sources[viewer.selection.source];
    viewer.choose({ layer: (viewer.selection.layer + 1) % layers.length, layers: "one", map: 0 });
  }, viewer.state.speed);
}

function saveShown(viewer) {
  const canvases = [...viewer.stage.querySelectorAll("canvas")].filter((one) => one.offsetParent);
  const captions = canvases.map((one) => one.closest("figure")?.querySelector(".av-caption")?.textContent ?? "");
  if (canvases.length) savePicture(canvases, captions, viewer.legend, "attention");
  else viewer.warn("the text view is not a picture: choose lines or matrix to save one");
}
