// TextDifference: A minus B over the same tokens, as a map that a TextPane can draw.

/** `maps` and `lines` of A and B as their panes show them; `chosen` their selections. */
function textDifference([a, b], [one, other], [first, second]) {
  const absent = (missing) => ({ ...a, values: null, missing, notes: [], summary: "", label: "", difference: true });
  if (a.missing || b.missing) return absent(a.missing ?? b.missing);
  const turned = (map, selection) => selection.direction === "to" && selection.query !== null && !map.given;
  if (turned(a, first) !== turned(b, second)) {
    return absent("no difference: one side asks where a token looks, the other who looks at it");
  }
  if (one.lift.length !== other.lift.length) {
    return absent(`no difference: A has ${one.lift.length} tokens, B ${other.lift.length}`);
  }
  const given = a.given || b.given;
  const whole = !given && a.rows === b.rows && a.columns === b.columns;
  if (!whole && !given && (first.view !== "text" || turned(a, first))) {
    return absent(`no difference: A has ${a.rows}x${a.columns} tokens, B ${b.rows}x${b.columns}`);
  }
  const pair = (mine, theirs) => mine.map((token, i) =>
    (theirs[i] === undefined || theirs[i] === token ? token : `${token}/${theirs[i]}`));
  const keyTokens = pair(a.keyTokens, b.keyTokens);
  const queryTokens = given ? keyTokens : pair(a.queryTokens, b.queryTokens);
  const changed = keyTokens.some((token, i) => token !== a.keyTokens[i]);
  const minus = (mine, theirs) => Float32Array.from(mine, (value, i) => value - theirs[i]);
  return {
    ...a, given, difference: true, queryTokens, keyTokens,
    rows: given ? 1 : a.rows,
    line: { lift: minus(one.lift, other.lift), raw: minus(one.raw, other.raw) },
    raw: whole ? minus(a.values, b.values) : null,
    values: whole ? a.values.map((value, i) => {
      const row = Math.floor(i / a.columns);
      return value * a.visible[row] - b.values[i] * b.visible[row];
    }) : one.lift,
    precision: a.precision === b.precision ? a.precision : `A ${a.precision}, B ${b.precision}`,
    notes: changed ? ["A and B have different tokens: they are compared place by place"] : [],
    label: "difference of the multiples of the even share",
  };
}

/** Where A looks more than B, and where less: the strongest three of each. */
function differenceWords(line, tokens) {
  const order = [...line.lift.keys()].sort((i, j) => line.lift[j] - line.lift[i]);
  const said = (places) => places.map((i) => `${quoted(tokens[i])} ${short(Math.abs(line.lift[i]))}x`).join(", ");
  const more = order.filter((i) => line.lift[i] >= 0.005).slice(0, 3);
  const less = order.reverse().filter((i) => line.lift[i] <= -0.005).slice(0, 3);
  if (!more.length && !less.length) return "A and B look alike.";
  return [more.length ? `More in A: ${said(more)}.` : "", less.length ? `More in B: ${said(less)}.` : ""]
    .filter(Boolean).join(" ");
}
