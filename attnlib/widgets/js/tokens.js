// Tokens as buttons: what the words of a text and the words that look at a picture have in common.

/** Fill a place with tokens as buttons, unless they stand there already. */
function fillTokens(host, tokens) {
  const text = tokens.join("\u0000");
  if (host.text === text) return;
  host.text = text;
  host.replaceChildren(...tokens.map((token, i) => {
    const element = make("button", { type: "button", className: "av-token", textContent: shownToken(token) });
    element.dataset.at = i;
    if (token.length > 40) element.title = token;
    return element;
  }));
}

/** Colour tokens by their lift, with ink that can be read on it and the band's number where wanted. */
function paintTokens(tokens, lift, look, difference = false) {
  const ground = tokens.length ? getComputedStyle(tokens[0].closest(".attnlib-viewer") ?? tokens[0]).backgroundColor : "";
  const paper = (ground.match(/[\d.]+/g) ?? [255, 255, 255]).slice(0, 3).map(Number);
  const palette = look.colours;
  const swatch = new ImageData(Math.max(1, lift.length), 1);
  if (difference) paintDifference(swatch, lift, look.diverging, look.cuts[2]);
  else paintLift(swatch, lift, palette, look);
  tokens.forEach((token, i) => {
    const p = swatch.data.subarray(i * 4, i * 4 + 4);
    const marked = difference ? Math.abs(lift[i]) >= 0.05 : p[3] && lift[i] > 0;
    const strength = marked ? look.alpha : 0;
    const mixed = paper.map((v, c) => Math.round(p[c] * strength + v * (1 - strength)));
    const light = (0.2126 * linear(mixed[0]) + 0.7152 * linear(mixed[1]) + 0.0722 * linear(mixed[2]));
    token.style.backgroundColor = `rgb(${mixed.join(",")})`;
    token.style.color = light > 0.179 ? "#000" : "#fff";
    const band = palette.kind === "bands" ? bandOf(lift[i], look.cuts, look.red) : 0;
    token.dataset.band = !look.pattern ? "" : difference ? signMark(lift[i], look.cuts) : band || "";
  });
}

function linear(channel) {
  const c = channel / 255;
  return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
}
