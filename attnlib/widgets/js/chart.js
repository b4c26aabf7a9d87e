// A plotly chart that answers to clicks. plotly.js comes from the kernel when a chart is first shown, so
// that nothing of it is saved in the notebook; every bar also stands as a button below, for the keyboard.

const SHARED = Symbol.for("attnlib.plotly");

function plotlyFrom(model) {
  const known = globalThis.Plotly ?? globalThis[SHARED];
  if (known) return Promise.resolve(known);
  return new Promise((keep, fail) => {
    const late = setTimeout(() => fail(new Error("the kernel gave no answer")), 30000);
    const hear = (content, buffers) => {
      if (content.give !== "plotly") return;
      clearTimeout(late);
      model.off("msg:custom", hear);
      try {
        const module = { exports: {} };
        const text = new TextDecoder().decode(buffers[0]);
        new Function("module", "exports", "define", text)(module, module.exports, undefined);
        keep(globalThis[SHARED] ??= module.exports);
      } catch (problem) { fail(problem); }
    };
    model.on("msg:custom", hear);
    model.send({ need: "plotly" });
  });
}

/** The chart on the ground of the page around it, light or dark; the ink of its words is chart.css's. */
function dressed(figure) {
  const axis = { gridcolor: "rgba(128,128,128,0.35)", zerolinecolor: "rgba(128,128,128,0.6)" };
  const layout = { ...figure.layout, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" };
  for (const name of Object.keys(layout)) {
    if (/^[xy]axis\d*$/.test(name)) layout[name] = { ...layout[name], ...axis };
  }
  return layout;
}

async function render({ model, el }) {
  const area = document.createElement("div");
  area.className = "attnlib-chart";
  el.style.width = "100%";
  area.style.width = "min(900px, 100%)";
  const words = document.createElement("p");
  words.setAttribute("role", "status");
  words.textContent = "preparing the chart";
  const details = document.createElement("details");
  const summary = document.createElement("summary");
  summary.textContent = "The same numbers as buttons";
  summary.setAttribute("data-lm-suppress-shortcuts", "true");
  const list = document.createElement("div");
  details.append(summary, list);
  el.append(words, area, details);
  /** One button a bar; those that stand there stay, so that the keyboard keeps its place. */
  const buttons = (bars) => {
    while (list.children.length > bars.length) list.lastChild.remove();
    bars.forEach((bar, n) => {
      if (!list.children[n]) {
        const button = document.createElement("button");
        button.type = "button";
        button.setAttribute("data-lm-suppress-shortcuts", "true");
        button.addEventListener("click", () => go(model.get("bars")[n]));
        list.append(button);
      }
      list.children[n].textContent = bar.words;
    });
  };
  const go = (place) => { model.set("chosen", { ...place, at: Date.now() }); model.save_changes(); };
  let plotly = null;
  const draw = () => {
    const figure = model.get("figure");
    area.setAttribute("aria-label", model.get("words"));
    area.setAttribute("role", "group"); // not "img": plotly's own buttons stand inside
    buttons(model.get("bars"));
    if (!plotly || !figure.data) return;
    plotly.react(area, figure.data, dressed(figure), model.get("config"));
    area.dataset.tick = Number(area.dataset.tick ?? 0) + 1;
  };
  const onFigure = () => draw();
  model.on("change:figure", onFigure);
  // what was drawn while it could not be seen has no width yet
  const room = new ResizeObserver(() => { if (area.clientWidth && area.data) plotly?.Plots.resize(area); });
  room.observe(area);
  draw();
  try {
    plotly = await plotlyFrom(model);
    draw();
    area.on?.("plotly_click", ({ points }) => {
      const place = points[0]?.customdata;
      if (place) go({ layer: place[0], head: place[1] });
    });
    words.textContent = "";
  } catch (problem) {
    words.textContent = `the chart could not be drawn (${problem.message}); its numbers are below`;
  }
  return () => {
    model.off("change:figure", onFigure);
    room.disconnect();
    plotly?.purge(area);
  };
}
export default { render };
