// Palettes: from multiples of the even share to colours. Colours come from Python (the one theme).

/** Band of a lift: 0 minimal, 1 low, 2 moderate, 3 highest, 4 highest from `red` on. */
function bandOf(lift, cuts, red) {
  if (lift < cuts[0]) return 0;
  if (lift < cuts[1]) return 1;
  if (lift < cuts[2]) return 2;
  return lift < red ? 3 : 4;
}

const BAND_WORDS = ["minimal", "low", "moderate", "highest", "highest"];

function rgb(hex) {
  const n = parseInt(hex.slice(1), 16);
  return [n >> 16, (n >> 8) & 255, n & 255];
}

/** Paint a lift map into ImageData, one pixel a patch. Minimal patches stay transparent in bands. */
function paintLift(image, lift, palette, look) {
  const pixels = image.data;
  if (palette.kind === "bands") {
    const colours = palette.rgb ?? (palette.rgb = palette.colours.map(rgb));
    for (let i = 0, j = 0; i < lift.length; i++, j += 4) {
      const band = bandOf(lift[i], look.cuts, look.red);
      if (band === 0) { pixels[j + 3] = 0; continue; }
      const colour = colours[band - 1];
      pixels[j] = colour[0]; pixels[j + 1] = colour[1]; pixels[j + 2] = colour[2]; pixels[j + 3] = 255;
    }
    return;
  }
  const table = palette.bytes ?? (palette.bytes = fromBase64(palette.lut));
  const factor = 255 / look.top;
  for (let i = 0, j = 0; i < lift.length; i++, j += 4) {
    const c = Math.min(255, Math.round(lift[i] * factor)) * 3;
    pixels[j] = table[c]; pixels[j + 1] = table[c + 1]; pixels[j + 2] = table[c + 2]; pixels[j + 3] = 255;
  }
}

/** Paint a difference, centred on zero: full colour at plus or minus `top`. */
function paintDifference(image, difference, palette, top) {
  const pixels = image.data;
  const table = palette.bytes ?? (palette.bytes = fromBase64(palette.lut));
  for (let i = 0, j = 0; i < difference.length; i++, j += 4) {
    const place = Math.max(-1, Math.min(1, difference[i] / top));
    const c = Math.round((place + 1) * 127.5) * 3;
    pixels[j] = table[c]; pixels[j + 1] = table[c + 1]; pixels[j + 2] = table[c + 2];
    pixels[j + 3] = 255;
  }
}

const patternTiles = new Map();

/** A small tile of strokes for a band: its twin without colour. */
function patternTile(band, ink) {
  const key = `${band}${ink}`;
  if (patternTiles.has(key)) return patternTiles.get(key);
  const tile = Object.assign(document.createElement("canvas"), { width: 8, height: 8 });
  const pen = tile.getContext("2d");
  pen.strokeStyle = ink;
  pen.fillStyle = ink;
  pen.lineWidth = 1.4;
  const line = (x0, y0, x1, y1) => { pen.beginPath(); pen.moveTo(x0, y0); pen.lineTo(x1, y1); pen.stroke(); };
  if (band === 1) { pen.beginPath(); pen.arc(4, 4, 1.2, 0, 7); pen.fill(); }
  if (band === 2) { line(-2, 6, 6, -2); line(2, 10, 10, 2); }
  if (band >= 3) { line(-2, 6, 6, -2); line(2, 10, 10, 2); line(2, -2, 10, 6); line(-2, 2, 6, 10); }
  if (band === 4) { line(0, 4, 8, 4); line(4, 0, 4, 8); }
  if (band === "+") { line(1, 4, 7, 4); line(4, 1, 4, 7); }
  if (band === "-") line(1, 4, 7, 4);
  patternTiles.set(key, tile);
  return tile;
}

/** Draw the pattern of every patch over a canvas area. */
function drawPattern(pen, lift, grid, box, look) {
  drawTiles(pen, [1, 2, 3, 4], lift.length, (i) => bandOf(lift[i], look.cuts, look.red), grid, box);
}

/** Draw a sign on every patch that differs by half an even share or more: + more in A, - more in B. */
function drawSigns(pen, difference, grid, box, look) {
  const sign = (i) => (Math.abs(difference[i]) < look.cuts[0] ? "" : difference[i] > 0 ? "+" : "-");
  drawTiles(pen, ["+", "-"], difference.length, sign, grid, box);
}

/** Fill every patch with the tile of its kind, in black and beside it in white. */
function drawTiles(pen, kinds, count, kindOf, grid, box) {
  const [height, width] = grid;
  for (const kind of kinds) {
    for (const [ink, shift] of [["#000", 0], ["#fff", 1]]) {
      pen.fillStyle = pen.createPattern(patternTile(kind, ink), "repeat");
      pen.save();
      pen.translate(shift, shift);
      pen.beginPath();
      for (let i = 0; i < count; i++) {
        if (kindOf(i) !== kind) continue;
        const y = Math.floor(i / width);
        const x = i % width;
        pen.rect(box.x + (x * box.width) / width - shift, box.y + (y * box.height) / height - shift,
          box.width / width, box.height / height);
      }
      pen.fill();
      pen.restore();
    }
  }
}

/** The twin of a difference without colour: one sign for each cut it passes. */
function signMark(difference, cuts) {
  const passed = cuts.filter((cut) => Math.abs(difference) >= cut).length;
  return (difference > 0 ? "+" : "\u2212").repeat(passed);
}
