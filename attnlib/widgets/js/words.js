// Words: tokens and numbers as people can read them. Tokens stay what they are; only their picture changes.

const SIGNS = { "\n": "↵", "\r": "␍", "\t": "⇥", "\u00a0": "⍽" };
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/;

/** A token that can be seen: blanks, line ends, and characters without a width get a sign or their number. */
function shownToken(token) {
  if (token === "") return "(empty)";
  const coded = (one) => `U+${one.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
  // joiners belong inside emoji and Persian words; alone they are as invisible as the rest
  if (!/[^\s\p{Cc}\p{Cf}\p{Mn}\p{Zl}\p{Zp}]/u.test(token)) {
    return [...token].map((one) => SIGNS[one] ?? (one === " " ? "␣" : coded(one))).join("");
  }
  return token.replace(/[\p{Cc}\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]/gu,
    (one) => SIGNS[one] ?? coded(one));
}

/** The beginning of a long token, for places without room. */
function clipped(token, most = 32) {
  const signs = [...shownToken(token)];
  return signs.length > most ? `${signs.slice(0, most - 1).join("")}…` : signs.join("");
}

/** A token in a sentence: quoted, not too long, and with its own direction of writing where that differs. */
function quoted(token) {
  const shown = clipped(token);
  return RIGHT_TO_LEFT.test(shown) ? `"\u2068${shown}\u2069"` : `"${shown}"`;
}

/** Short number for people: three digits, no trailing noise. */
function short(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 100) return value.toFixed(0);
  if (size >= 0.001) return String(Number(value.toPrecision(3)));
  return value.toExponential(2);
}

/** A share as in the text beside the viewer: one decimal; what would read 0.0 or 100.0 but is not, says so. */
function percent(value) {
  if (value <= 0) return "0 %";
  if (value < 0.0005) return "under 0.1 %";
  if (value >= 0.9995) return value < 0.999999 ? "over 99.9 %" : "100 %";
  return `${(value * 100).toFixed(1)} %`;
}

/** A share that may be less than nothing, always with its sign. */
function signedPercent(value) {
  return `${value < 0 ? "\u2212" : "+"}${(Math.abs(value) * 100).toFixed(1)} %`;
}
