// TextSource: from a selection to a matrix of weights over two lists of tokens (one page of each).
//
// Beyond the fields of an image selection: query = index of a row within the page or null (all rows),
// words = merge the pieces of a word (sum over keys, mean over queries), pageQ, pageK, view.

class TextSource {
  constructor(spec, blob) {
    this.spec = spec;
    this.blob = blob;
    this.blocks = new Map();
    this.cache = new Map();
    this.exact = new Map();
    this.failed = new Map();
    this.ask = null;
  }

  get layers() { return this.spec.layers; }

  name(q, k, layer) { return `${q},${k},${layer}`; }

  key({ layer, layers, head, heads, pageQ, pageK }) {
    return JSON.stringify([layers === "one" ? layer : layers, heads === "one" ? head : heads, pageQ, pageK]);
  }

  async open() {
    this.where_ = new Map(this.spec.blocks.map((block) => [this.name(block.q, block.k, block.layer), block]));
    const first = this.spec.first_layer;
    const block = this.where_.get(this.name(0, 0, first));
    if (block) this.blocks.set(this.name(0, 0, first), await readHeld(this.blob, block.values));
    this.maps = await Promise.all((this.spec.maps ?? []).map((one) => readHeld(this.blob, one.values)));
  }

  async openRest(onBlock, stopped) {
    for (const [name, block] of this.where_) {
      if (stopped()) return;
      if (this.blocks.has(name)) continue;
      this.blocks.set(name, await readHeld(this.blob, block.values));
      onBlock();
    }
  }

  /** Return {values, rows, columns, queryTokens, keyTokens, missing, notes, label, precision, visible}. */
  map(selection) {
    const [q0, q1] = this.spec.query_pages[selection.pageQ];
    const [k0, k1] = this.spec.key_pages[selection.pageK];
    const base = { notes: [], missing: null, prefix: null, precision: this.spec.precision, summary: "",
      label: this.label(selection), rows: q1 - q0, columns: k1 - k0, queryStart: q0, keyStart: k0,
      allKeys: this.spec.key_tokens.length,
      queryTokens: this.spec.query_tokens.slice(q0, q1), keyTokens: this.spec.key_tokens.slice(k0, k1) };
    if (selection.map > 0) return this.given(selection, base);
    const key = this.key(selection);
    let found = this.exact.get(key) ?? this.cache.get(key);
    if (!found) {
      found = this.fold(selection);
      if (found.missing) return { ...base, values: null, missing: found.missing };
      if (this.cache.size > 12) this.cache.clear();
      this.cache.set(key, found);
    }
    const map = { ...base, values: found.values, notes: found.notes, precision: found.precision ?? base.precision };
    if (found.merged) map.label += " (held: mean of heads)";
    const whole = selection.words ? this.merge(map) : map;
    this.weigh(whole);
    return whole;
  }

  /** A map over the tokens that was made elsewhere: shares of one query. */
  given(selection, base) {
    const one = this.spec.maps[selection.map - 1];
    const values = this.maps[selection.map - 1].row(0).slice(base.keyStart, base.keyStart + base.columns);
    const map = { ...base, given: true, rows: 1, values, notes: one.notes, precision: "exact",
      queryTokens: base.keyTokens, label: `${one.name}, query: ${one.query}` };
    if (!selection.words || !this.spec.key_words) return map;
    const whole = this.merge({ ...map, queryTokens: [], rows: 0 });
    const keys = this.wordsOf(this.spec.key_words, map.keyStart, map.columns);
    const summed = Float32Array.from(keys, ([a, b]) => values.subarray(a, b).reduce((x, y) => x + y, 0));
    return { ...map, values: summed, columns: keys.length, keyTokens: whole.keyTokens, queryTokens: whole.keyTokens,
      allKeys: this.spec.key_words.length };
  }

  /** The words of a page, as places in it; where nothing marks words, every token is one. */
  wordsOf(words, start, count) {
    if (!words) return range(count).map((i) => [i, i + 1]);
    return words.map(([a, b]) => [Math.max(a - start, 0), Math.min(b - start, count)]).filter(([a, b]) => b > a);
  }

  fold(selection) {
    const places = selection.layers === "one" ? [selection.layer] : this.layers.map((_, i) => i);
    const name = (i) => this.name(selection.pageQ, selection.pageK, i);
    const absent = places.some((i) => !this.where_.has(name(i)));
    const merged = selection.heads !== "mean" && places.some((i) => this.where_.get(name(i))?.merged);
    const failed = this.failed.get(this.key(selection));
    if (this.ask && (absent || merged) && failed === undefined) {
      this.request(selection);
      return { missing: "asking the kernel for this page (it answers when it is free)" };
    }
    if (absent) {
      return { missing: failed ?? "this file holds other pages or layers of the text only; a kernel has the rest" };
    }
    if (places.some((i) => !this.blocks.has(name(i)))) return { missing: "still reading this part of the page" };
    const perLayer = places.map((i) => {
      const held = this.blocks.get(name(i));
      const [heads, rows, columns] = held.shape;
      const chosen = this.where_.get(name(i)).merged ? [0] : selection.heads === "one"
        ? [Math.min(selection.head, heads - 1)] : range(heads);
      const how = chosen.length === 1 ? "mean" : selection.heads;
      const out = new Float32Array(rows * columns);
      for (let r = 0; r < rows; r++) {
        const line = foldRows(chosen.map((h) => [held, h * rows + r]), columns, how);
        out.set(line, r * columns);
      }
      return out;
    });
    const how = selection.layers === "one" ? "mean" : selection.layers;
    return { values: foldArrays(perLayer, how), merged,
      notes: merged ? [failed, "this file holds the mean over the heads for this page"].filter(Boolean) : [] };
  }

  /** Merge the pieces of words: keys are added up, queries averaged. */
  merge(map) {
    const queries = this.wordsOf(this.spec.query_words, map.queryStart, map.rows);
    const keys = this.wordsOf(this.spec.key_words, map.keyStart, map.columns);
    const spell = (tokens, [a, b]) => tokens.slice(a, b).map((t, n) => (n ? t.replace(/^##/, "") : t)).join("");
    const values = new Float32Array(queries.length * keys.length);
    queries.forEach(([q0, q1], r) => {
      keys.forEach(([k0, k1], c) => {
        let sum = 0;
        for (let q = q0; q < q1; q++) for (let k = k0; k < k1; k++) sum += map.values[q * map.columns + k];
        values[r * keys.length + c] = sum / (q1 - q0);
      });
    });
    const everyKey = this.wordsOf(this.spec.key_words, 0, this.spec.key_tokens.length); // of all pages
    return { ...map, values, rows: queries.length, columns: keys.length, allKeys: everyKey.length,
      lastKeys: queries.map(([, b]) => everyKey.filter(([a]) => a < b + map.queryStart).length),
      queryTokens: queries.map((one) => spell(map.queryTokens, one)),
      keyTokens: keys.map((one) => spell(map.keyTokens, one)) };
  }

  /** Even share of each row: one over the keys that the row may see. */
  weigh(map) {
    map.visible = new Float32Array(map.rows).fill(map.allKeys);
    if (!this.spec.causal) return;
    for (let r = 0; r < map.rows; r++) {
      map.visible[r] = map.lastKeys ? map.lastKeys[r] : map.queryStart + r + 1;
    }
  }

  /** Lift of every key for one query row, of every query for one key, or of the mean row. */
  line(map, selection) {
    const { rows, columns, values, visible } = map;
    if (map.given) {
      return { raw: values, lift: values.map((share) => share * map.allKeys) };
    }
    const toKey = selection.direction === "to";
    const out = new Float32Array(toKey && selection.query !== null ? rows : columns);
    const raw = new Float32Array(out.length);
    if (selection.query === null) {
      for (let r = 0; r < rows; r++) {
        for (let c = 0; c < columns; c++) {
          raw[c] += values[r * columns + c] / rows;
          out[c] += (values[r * columns + c] * visible[r]) / rows;
        }
      }
      return { lift: out, raw };
    }
    const at = Math.min(selection.query, (toKey ? columns : rows) - 1);
    for (let i = 0; i < out.length; i++) {
      raw[i] = toKey ? values[i * columns + at] : values[at * columns + i];
      out[i] = raw[i] * (toKey ? visible[i] : visible[at]);
    }
    return { lift: out, raw };
  }

  label(selection) {
    const layer = selection.layers === "one" ? `layer ${this.layers[selection.layer].index}`
      : `${selection.layers} over layers`;
    const heads = this.layers[selection.layers === "one" ? selection.layer : 0].heads;
    const head = selection.heads === "one" ? `head ${heads[Math.min(selection.head, heads.length - 1)]}`
      : `${selection.heads} over heads`;
    return `${this.spec.name}: ${layer}, ${head}`;
  }

  where(selection) { return this.label(selection); }

  shares() { return []; }

  read(answer) { return { values: answer.buffers[0], notes: [], precision: "exact" }; }

  /** Ask the kernel for one page at a time; what is wanted by then is asked for when its answer is drawn. */
  async request(selection) {
    if (this.pending) return;
    this.pending = true;
    const key = this.key(selection);
    try {
      const answer = await this.ask({ ...selection });
      if (this.exact.size > 30) this.exact.clear();
      this.exact.set(key, answer);
    } catch (problem) {
      this.failed.set(key, String(problem.message));
    } finally {
      this.pending = false;
    }
    this.onAnswer?.();
  }
}
