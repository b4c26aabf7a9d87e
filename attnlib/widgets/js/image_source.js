// ImageSource: from a selection to a map over the patches. It knows numbers and words, no drawing.
//
// A selection is {source, map, layer, layers, head, heads, row, query, direction}:
//   map 0 = attention, n = the n-th further map; layer, head = positions; layers, heads = "one", "mean",
//   "max" or "min"; row = a named row, used while query is null; query = [row, column] of a patch;
//   direction "from" = where the query looks, "to" = who looks at it.

class ImageSource {
  constructor(spec, blob) {
    this.spec = spec;
    this.blob = blob;
    this.grid = spec.grid;
    this.count = spec.grid[0] * spec.grid[1];
    this.exact = new Map(); // answers of the kernel, by request
    this.failed = new Map(); // what the kernel could not answer, and why
    this.ask = null; // set by the host when a kernel is there: request -> Promise<Float32Array>
  }

  get layers() { return this.spec.layers; }

  /** Read what the first picture needs. */
  async open() {
    const held = (reference) => readHeld(this.blob, reference);
    this.rows = await Promise.all(this.layers.map((layer) => held(layer.rows)));
    this.prefix = await Promise.all(this.layers.map((layer) => held(layer.prefix)));
    this.maps = await Promise.all(this.spec.maps.map((one) => held(one.values)));
    this.raw = await Promise.all(this.spec.maps.map((one) => held(one.raw)));
    this.covers = await Promise.all(this.spec.regions.map(async (one) => (await held(one.cover)).row(0)));
    this.queries = this.layers.map(() => null);
    this.queryPrefix = this.layers.map(() => null);
  }

  /** Read the patch queries, layer by layer, without blocking the page. */
  async openRest(onLayer, stopped) {
    for (let i = this.layers.length - 1; i >= 0 && !stopped(); i--) {
      this.queries[i] = await readHeld(this.blob, this.layers[i].queries);
      this.queryPrefix[i] = await readHeld(this.blob, this.layers[i].query_prefix);
      onLayer(i);
    }
  }

  /** Return {values, lift, total, prefix, precision, notes, missing, label} for a selection. */
  map(selection) {
    if (selection.map > 0) return this.given(selection.map - 1);
    const places = selection.layers === "one" ? [selection.layer] : this.layers.map((_, i) => i);
    const sizes = new Set(places.map((i) => this.layers[i].grid.join("x")));
    if (sizes.size > 1) {
      return this.absent(`layers have different grids (${[...sizes].join(", ")}): choose one layer`);
    }
    return selection.query && !this.spec.cross ? this.fromPatch(selection, places) : this.fromRow(selection, places);
  }

  fromRow(selection, places) {
    const prefixParts = [];
    const row = Math.min(selection.row, this.spec.rows.length - 1);
    const columns = this.rows[places[0]].columns;
    const perLayer = places.map((i) => {
      const heads = this.layers[i].heads.length;
      const chosen = selection.heads === "one" ? [Math.min(selection.head, heads - 1)] : range(heads);
      const held = chosen.map((h) => [this.rows[i], row * heads + h]);
      prefixParts.push(mean(chosen.map((h) => this.prefix[i].codes[row * heads + h])));
      return foldRows(held, columns, selection.heads === "one" ? "mean" : selection.heads);
    });
    const values = foldArrays(perLayer, selection.layers === "one" ? "mean" : selection.layers);
    const blind = this.spec.words?.length && !values.some((value) => value > 0);
    return this.finish(values, {
      notes: blind ? ["this word looks at no patch (it stands before the picture, or looks elsewhere)"] : [],
      grid: this.layers[places[0]].grid,
      prefix: folded(selection) ? null : mean(prefixParts),
      precision: this.spec.row_precision ?? "exact",
      label: `${this.where(selection)}, ${this.spec.words?.length ? "where the word looks" : "row"}: ${
        this.spec.rows[row]}`,
    });
  }

  /** How much every word looks at one patch: weights, and multiples of the even share. */
  lookers(selection) {
    const places = selection.layers === "one" ? [selection.layer] : this.layers.map((_, i) => i);
    const at = selection.query[0] * this.grid[1] + selection.query[1];
    const maps = this.spec.words.map((_, row) => this.fromRow({ ...selection, row }, places));
    return { raw: maps.map((map) => map.values[at]), lift: Float32Array.from(maps, (map) => map.lift[at]) };
  }

  fromPatch(selection, places) {
    const [r, c] = selection.query;
    const [, width] = this.grid;
    const other = this.layers[places[0]].grid;
    if (other.join() !== this.grid.join()) {
      return this.absent(`this layer has ${other.join("x")} patches: a patch can be the query in layers of ${
        this.grid.join("x")}`);
    }
    const index = r * width + c;
    const label = `${this.where(selection, true)}, ${
      selection.direction === "to" ? "who looks at" : "where"} patch (${r}, ${c})${
      selection.direction === "to" ? "" : " looks"}`;
    const key = JSON.stringify([selection.layers === "one" ? selection.layer : selection.layers,
      selection.heads === "one" ? selection.head : selection.heads, r, c, selection.direction]);
    const answer = this.exact.get(key);
    if (answer) {
      return this.finish(answer.values, { grid: this.grid, prefix: answer.prefix, precision: "exact",
        label: label.replace(" (held: mean of heads)", ""), lift: answer.lift });
    }
    const failed = this.failed.get(key);
    if (this.ask && failed === undefined) this.request(key, selection);
    const absent = places.filter((i) => !this.queries[i]);
    const unheld = selection.heads === "max" || selection.heads === "min"; // held are means over the heads
    if (this.ask && (absent.length || unheld)) {
      return this.absent(failed ?? "asking the kernel for this patch (it answers when it is free)");
    }
    if (absent.length) {
      const pending = absent.every((i) => this.layers[i].queries);
      if (pending) return this.absent("still reading the patch queries of this page");
      const held = this.layers.filter((layer) => layer.queries).map((layer) => layer.index);
      return this.absent(held.length
        ? `this page has no kernel and holds patch queries for layers ${held.join(", ")} only`
        : "this page has no kernel and holds no patch queries (its size budget was too small)");
    }
    if (unheld) {
      return this.absent(`this page holds patch queries averaged over the heads: no ${selection.heads}`
        + " over heads without a kernel");
    }
    const notes = failed ? [failed] : [];
    if (selection.heads === "one") notes.push("averaged over the heads: single heads of patch queries need a kernel");
    const how = selection.layers === "one" ? "mean" : selection.layers;
    const columns = places.map((i) => this.one(i, index, r, c, selection.direction));
    const values = foldArrays(columns.map((one) => one.values), how);
    const lift = selection.direction === "to" ? foldArrays(columns.map((one) => one.lift), how) : null;
    const prefix = selection.direction === "to" || how !== "mean" ? null
      : mean(places.map((i) => this.queryPrefix[i].codes[index]));
    if (this.spec.pool > 1) notes.push(`keys averaged over ${this.spec.pool}x${this.spec.pool} patches`);
    return this.finish(values, { grid: this.grid, prefix, precision: this.spec.query_precision, label, lift,
      notes });
  }

  /** One layer's row (or column) of the head-averaged patch queries, on the full grid. */
  one(place, index, r, c, direction) {
    const held = this.queries[place];
    const pool = this.spec.pool;
    const [height, width] = this.grid;
    const across = Math.ceil(width / pool);
    if (direction === "to") {
      const cell = Math.floor(r / pool) * across + Math.floor(c / pool);
      const values = held.column(cell, 0, this.count);
      const outside = this.queryPrefix[place].codes;
      const lift = values.map((v, q) => (v * this.spec.num_seen) / Math.max(1 - outside[q], 1e-12));
      return { values, lift };
    }
    const row = held.row(index);
    if (pool === 1) return { values: row, lift: null };
    const values = new Float32Array(this.count);
    for (let y = 0, i = 0; y < height; y++) {
      const start = Math.floor(y / pool) * across;
      for (let x = 0; x < width; x++) values[i++] = row[start + Math.floor(x / pool)];
    }
    return { values, lift: null };
  }

  given(place) {
    const one = this.spec.maps[place];
    return this.finish(this.maps[place].row(0), { grid: this.grid, prefix: one.prefix, precision: "exact",
      label: `${one.name}${one.method === one.name ? "" : ` (${one.method})`}, query: ${one.query}`, notes: one.notes,
      raw: this.raw[place].row(0) });
  }

  /** Complete a map: its total over the patches, and each patch in multiples of the even share. */
  finish(values, rest) {
    const seen = this.spec.num_seen === this.count ? values.length : this.spec.num_seen;
    let total = 0;
    for (const value of values) total += value > 0 ? value : 0;
    let lift = rest.lift;
    if (!lift) {
      lift = new Float32Array(values.length);
      const factor = total > 0 ? seen / total : 0;
      for (let i = 0; i < values.length; i++) lift[i] = values[i] > 0 ? values[i] * factor : 0;
    }
    return { notes: [], missing: null, raw: null, ...rest, values, total, lift };
  }

  absent(why) {
    return { values: null, lift: null, grid: this.grid, notes: [], missing: why, label: "", prefix: null,
      precision: "exact", total: 0, raw: null };
  }

  where(selection, patch = false) {
    const layer = selection.layers === "one" ? `layer ${this.layers[selection.layer].index}`
      : `${selection.layers} over layers`;
    const heads = this.layers[selection.layers === "one" ? selection.layer : 0].heads;
    const head = selection.heads !== "one" ? `${selection.heads} over heads`
      : `head ${heads[Math.min(selection.head, heads.length - 1)]}`;
    return `${layer}, ${patch && selection.heads === "one" ? `${head} (held: mean of heads)` : head}`;
  }

  /** Read the kernel's answer: weights over the patches, and lift where it is not a plain row. */
  read({ buffers, prefix }) { return { values: buffers[0], lift: buffers[1] ?? null, prefix: prefix ?? null }; }

  /** Ask the kernel for one map at a time; what is wanted by then is asked for when its answer is drawn. */
  async request(key, selection) {
    if (this.pending) return;
    this.pending = true;
    try {
      const answer = await this.ask({ ...selection });
      if (this.exact.size > 200) this.exact.clear();
      this.exact.set(key, answer);
    } catch (problem) {
      this.failed.set(key, String(problem.message));
    } finally {
      this.pending = false;
    }
    this.onAnswer?.();
  }

  /** Share of mass and of area, and lift, of every region in a map. */
  shares(map) {
    if (!map.lift || map.lift.length !== this.count || !(map.total > 0)) return [];
    const mass = map.lift.reduce((a, b) => a + b, 0);
    return this.spec.regions.map((region, n) => {
      let inside = 0;
      let area = 0;
      const cover = this.covers[n];
      for (let i = 0; i < this.count; i++) {
        inside += map.lift[i] * cover[i];
        area += cover[i];
      }
      area /= this.count;
      return { name: region.name, share: inside / mass, area, lift: area > 0 ? inside / mass / area : 0 };
    });
  }
}

function folded(selection) {
  return ["max", "min"].includes(selection.heads) || ["max", "min"].includes(selection.layers);
}

function range(n) { return Array.from({ length: n }, (_, i) => i); }

function mean(values) { return values.reduce((a, b) => a + b, 0) / values.length; }
