// Decoding: numbers stand in one binary blob and are described by JSON references
// {dtype, shape, offset, length, packed, scale}. The last axis of `shape` is a row of numbers.

const LOG_STEPS = 16; // steps of a byte code per factor of two; the same constant stands in packing.py

/** View whatever the host hands over (DataView, ArrayBuffer, Uint8Array) as bytes. */
function bytesOf(value) {
  if (value instanceof Uint8Array || value instanceof TwoParts) return value;
  if (value instanceof ArrayBuffer) return new Uint8Array(value);
  return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
}

/** Bytes in two parts: the first picture needs only the first; the rest is decoded when it is asked for. */
class TwoParts {
  constructor(first, rest) {
    this.first = first;
    this.rest = rest;
  }

  subarray(start, stop) {
    if (stop <= this.first.length) return this.first.subarray(start, stop);
    this.more ??= this.rest();
    return this.more.subarray(start - this.first.length, stop - this.first.length);
  }

  slice(start, stop) { return this.subarray(start, stop).slice(); }
}

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

let halfTable = null;

/** All 65536 half-precision numbers as float32. */
function halves() {
  if (halfTable) return halfTable;
  halfTable = new Float32Array(65536);
  for (let code = 0; code < 65536; code++) {
    const exponent = (code >> 10) & 31;
    const fraction = code & 1023;
    const sign = code & 32768 ? -1 : 1;
    if (exponent === 0) halfTable[code] = sign * fraction * 2 ** -24;
    else if (exponent === 31) halfTable[code] = fraction ? NaN : sign * Infinity;
    else halfTable[code] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return halfTable;
}

const logTable = Float32Array.from({ length: 256 }, (_, code) =>
  code === 0 ? 0 : 2 ** ((code - 255) / LOG_STEPS),
);

/** Rows of numbers, kept in the precision they came in and decoded when read. */
class Held {
  constructor(reference, bytes, scale) {
    this.dtype = reference.dtype;
    this.shape = reference.shape;
    this.columns = reference.shape[reference.shape.length - 1];
    this.scale = scale;
    const aligned = bytes.byteOffset % 4 ? bytes.slice() : bytes;
    const { buffer, byteOffset, byteLength } = aligned;
    if (this.dtype === "f32") this.codes = new Float32Array(buffer, byteOffset, byteLength / 4);
    else if (this.dtype === "f16") this.codes = new Uint16Array(buffer, byteOffset, byteLength / 2);
    else this.codes = aligned;
  }

  /** Add (or fold by max / min) one row into `out`. */
  fold(row, out, how) {
    const { codes, columns } = this;
    const start = row * columns;
    const table = this.dtype === "f16" ? halves() : logTable;
    const factor = this.scale ? this.scale[row] : 1;
    const plain = this.dtype === "f32";
    for (let i = 0; i < columns; i++) {
      const value = plain ? codes[start + i] : table[codes[start + i]] * factor;
      if (how === "max") out[i] = Math.max(out[i], value);
      else if (how === "min") out[i] = Math.min(out[i], value);
      else out[i] += value;
    }
  }

  /** Return one row as float32. */
  row(row) {
    const out = new Float32Array(this.columns);
    this.fold(row, out, "sum");
    return out;
  }

  /** Return one column as float32, for rows first .. first + count - 1. */
  column(column, first, count) {
    const out = new Float32Array(count);
    const table = this.dtype === "f16" ? halves() : logTable;
    for (let i = 0; i < count; i++) {
      const code = this.codes[(first + i) * this.columns + column];
      out[i] = this.dtype === "f32" ? code : table[code] * (this.scale ? this.scale[first + i] : 1);
    }
    return out;
  }
}

/** Read what a reference describes; resolves to a Held, or null for an absent reference. */
async function readHeld(blob, reference) {
  if (!reference) return null;
  const part = blob.subarray(reference.offset, reference.offset + reference.length);
  const bytes = reference.packed ? await inflate(part) : part;
  let scale = null;
  if (reference.scale) scale = (await readHeld(blob, reference.scale)).codes;
  return new Held(reference, bytes, scale);
}

/** Fold several rows of several Helds into one: mean, max or min. */
function foldRows(parts, columns, how) {
  const out = new Float32Array(columns);
  if (how === "max") out.fill(-Infinity);
  if (how === "min") out.fill(Infinity);
  for (const [held, row] of parts) held.fold(row, out, how);
  if (how === "mean" && parts.length > 1) for (let i = 0; i < columns; i++) out[i] /= parts.length;
  return out;
}

/** Elementwise mean, max or min of arrays of one length. */
function foldArrays(arrays, how) {
  if (arrays.length === 1) return arrays[0];
  const out = arrays[0].slice();
  for (const one of arrays.slice(1)) {
    for (let i = 0; i < out.length; i++) {
      if (how === "max") out[i] = Math.max(out[i], one[i]);
      else if (how === "min") out[i] = Math.min(out[i], one[i]);
      else out[i] += one[i];
    }
  }
  if (how === "mean") for (let i = 0; i < out.length; i++) out[i] /= arrays.length;
  return out;
}
