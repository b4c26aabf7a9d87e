// Controls: native elements with a name each. Text only ever goes in through textContent and attributes.

/** Make an element: tag, properties, attributes, children. */
function make(tag, properties = {}, attributes = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  // JupyterLab binds keys to anything focused inside a notebook unless the element itself says no
  if (/^(input|select|button|canvas|summary)$/.test(tag)) {
    element.setAttribute("data-lm-suppress-shortcuts", "true");
  }
  return element;
}

/** A pen whose units are pixels of the page, on a canvas with as many pixels as the screen has. */
function sharpPen(canvas, width, height) {
  const ratio = Math.max(1, Math.min(3, window.devicePixelRatio || 1));
  const [across, down] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== across || canvas.height !== down) Object.assign(canvas, { width: across, height: down });
  if (canvas.style.getPropertyValue("--av-width") !== `${width}px`) canvas.style.setProperty("--av-width", `${width}px`);
  const pen = canvas.getContext("2d");
  pen.setTransform(across / width, 0, 0, down / height, 0, 0);
  return pen;
}

/** A labelled slider with its value beside it. */
function slider(label, { min = 0, max, step = 1, value, words = String }, onChange) {
  const input = make("input", { type: "range", min, max, step }, { "aria-label": label });
  input.value = value;
  const output = make("output", { textContent: words(value) });
  const element = make("label", { className: "av-control" }, {}, make("span", { textContent: label }), input,
    output);
  const show = (now) => {
    output.textContent = words(now);
    input.setAttribute("aria-valuetext", words(now));
  };
  show(value);
  input.addEventListener("input", () => { show(Number(input.value)); onChange(Number(input.value)); });
  return {
    element,
    input,
    /** `instead`: what is shown in place of the value while the slider is not what counts. */
    set(now, instead = null) {
      if (Number(input.value) !== now) input.value = now;
      show(now);
      if (instead === null) return;
      output.textContent = instead;
      input.setAttribute("aria-valuetext", `not used: ${instead}`);
    },
    limit(top) { input.max = top; },
  };
}

/** A labelled choice; options are [value, words]. */
function choice(label, options, value, onChange) {
  const input = make("select", {}, { "aria-label": label });
  let filled = null;
  const fill = (pairs) => { // again only where it says something else: a text may have 512 rows
    const now = JSON.stringify(pairs);
    if (now === filled) return;
    filled = now;
    input.replaceChildren(...pairs.map(([key, words]) => make("option", { value: String(key), textContent: words })));
  };
  fill(options);
  input.value = String(value);
  input.addEventListener("change", () => onChange(input.value));
  const element = make("label", { className: "av-control" }, {}, make("span", { textContent: label }), input);
  return { element, input, fill, set(now) { input.value = String(now); } };
}

/** A labelled tick box. */
function tick(label, value, onChange) {
  const input = make("input", { type: "checkbox", checked: value }, { "aria-label": label });
  input.addEventListener("change", () => onChange(input.checked));
  const element = make("label", { className: "av-control av-tick" }, {}, input,
    make("span", { textContent: label }));
  return { element, input, set(now) { input.checked = now; } };
}

/** A button; `pressed` makes it a switch. */
function button(words, onClick, { title = words, pressed = null } = {}) {
  const element = make("button", { type: "button", textContent: words, title }, { "aria-label": title });
  if (pressed !== null) element.setAttribute("aria-pressed", String(pressed));
  element.addEventListener("click", onClick);
  return element;
}

/** A labelled number field. */
function number(label, { min, step, value }, onChange) {
  const input = make("input", { type: "number", min, step, value }, { "aria-label": label });
  input.addEventListener("change", () => {
    const now = Number(input.value);
    if (Number.isFinite(now)) onChange(now);
  });
  const element = make("label", { className: "av-control" }, {}, make("span", { textContent: label }), input);
  return { element, input, set(now) { input.value = now; } };
}

/** A group of controls under one name. */
function group(name, ...children) {
  return make("div", { className: "av-group" }, { role: "group", "aria-label": name }, ...children);
}
