"""The attention of a picture, packed for the viewer.

What a page without a kernel holds: every layer and head for the named rows (the tokens the head reads
and the class token) in float32, and any patch as the query for head-averaged rows, in the best form
that fits a budget: float16, then bytes, then keys pooled, then layers thinned. What was given up is
named in the source's ``query_notes``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from attnlib.errors import InputError
from attnlib.layout import TokenLayout
from attnlib.picture import Picture
from attnlib.record import AttentionRecord, LayerAttention, Relevance
from attnlib.regions import Regions
from attnlib.widgets.outlines import region_parts
from attnlib.widgets.packing import PRECISION, Blob
from attnlib.widgets.word_rows import Row, row_form, row_notes, word_rows

__all__ = [
    "QueryForm",
    "choose_form",
    "image_layers",
    "merge_heads",
    "named_rows",
    "picture_parts",
    "put_image_source",
    "readout_row",
]

_BLOCK = 512
_KNOWN_ROWS: WeakKeyDictionary[LayerAttention, dict[tuple[Any, ...], Tensor]] = WeakKeyDictionary()


@dataclass(frozen=True)
class QueryForm:
    """How the patch queries are held.

    Parameters
    ----------
    dtype : "f16" or "u8".
    pool : keys are averaged over squares of this many patches; 1 = none.
    every : every how many layers is held, counted from the last; 0 = none at all.
    """

    dtype: str
    pool: int
    every: int

    def size(self, layers: int, grid: tuple[int, int]) -> float:
        """Return the bytes it takes at most, as base64 text."""
        if self.every == 0:
            return 0.0
        keys = math.ceil(grid[0] / self.pool) * math.ceil(grid[1] / self.pool)
        bytes_each = 2 if self.dtype == "f16" else 1
        return math.ceil(layers / self.every) * grid[0] * grid[1] * keys * bytes_each * 4 / 3

    def words(self, layers: int) -> tuple[str, ...]:
        """Say what was given up."""
        if self.every == 0:
            return ("patch queries are not held: the budget is too small for them",)
        said = []
        if self.pool > 1:
            said.append(f"for patch queries the keys are averaged over {self.pool}x{self.pool} patches")
        if self.every > 1:
            said.append(f"for patch queries every {_ordinal(self.every)} layer of {layers} is held")
        said.append(f"patch queries are averaged over the heads, {PRECISION[self.dtype]}")
        return tuple(said)


def choose_form(layers: int, grid: tuple[int, int], budget_mb: float | int) -> QueryForm:
    """Return the best form of the patch queries that fits a budget, in MB of base64 text."""
    ladder = [QueryForm("f16", 1, 1), QueryForm("u8", 1, 1), QueryForm("u8", 2, 1), QueryForm("u8", 3, 1)]
    ladder += [QueryForm("u8", 3, n) for n in (2, 3, 4)] + [QueryForm("u8", 4, n) for n in (2, 3, 4, 6)]
    for form in ladder:
        if form.size(layers, grid) <= budget_mb * 1e6:
            return form
    return QueryForm("u8", 1, 0)


def picture_parts(record: AttentionRecord) -> dict[str, list[tuple[LayerAttention, TokenLayout]]]:
    """Return the calls whose keys are patches, by stream and kind, such as "decoder cross".

    Self-attention comes first, then cross-attention (words that look at patches).
    """
    found: dict[str, list[tuple[LayerAttention, TokenLayout]]] = {}
    for kind in ("self", "cross"):
        for layer in record.layers:
            layout = layer.key_layout or (record.layouts.get(layer.stream) if kind == "self" else None)
            if layer.kind == kind and layout is not None and layout.grid is not None:
                found.setdefault(f"{layer.stream} {kind}", []).append((layer, layout))
    return found


def image_layers(
    record: AttentionRecord, part: str | None = None
) -> list[tuple[LayerAttention, TokenLayout]]:
    """Return the calls over patches of one part, each with the layout of its keys.

    Parameters
    ----------
    record : what was captured.
    part : a key of :func:`picture_parts`; the first one if omitted.

    Raises
    ------
    InputError
        If no call has a patch grid.
    """
    found = picture_parts(record)
    if not found or (part is not None and part not in found):
        raise InputError(
            "the viewer found no attention over patches in this record"
            f"{f' called {part!r}' if part else ''}; for text leave the picture out, or give the layout "
            "with record.with_layout(TokenLayout(...))"
        )
    return found[part] if part is not None else next(iter(found.values()))


def named_rows(layout: TokenLayout, item: int = 0) -> list[Row]:
    """Return the rows that are held for every layer and head: what the head reads, and the class token.

    Parameters
    ----------
    layout : of the patches.
    item : which item of the batch, where each is read at places of its own.
    """
    patches = tuple(range(layout.num_tokens))[layout.patch_slice]
    rows: list[Row]
    read = layout.readout
    if read is None and layout.item_readouts is not None and item < len(layout.item_readouts):
        read = layout.item_readouts[item]
    if read is None:
        rows = [("mean of the patches (what the head reads is not known)", patches)]
    elif read == "patches":
        rows = [("mean of the patches (the head reads them)", patches)]
    else:
        places = tuple(int(i) for i in read)
        rows = [(f"{layout.in_words(places)} (the head reads it)", places)]
    for index, name in enumerate(layout.prefix_tokens[:1]):
        if rows[0][1] != (index,):
            rows.append((f"{name} token", (index,)))
    return rows


def put_image_source(
    blob: Blob,
    record: AttentionRecord,
    picture: Picture,
    *,
    part: str | None = None,
    name: str = "attention",
    item: int = 0,
    regions: Regions | None = None,
    relevances: Mapping[str, Relevance] | None = None,
    budget_mb: float | int = 3.0,
    words_mb: float | int = 6.0,
    tokens: Sequence[str] | None = None,
    rows: Sequence[Row] | None = None,
) -> dict[str, Any]:
    """Pack one item of a record and return the description that the viewer reads.

    Parameters
    ----------
    blob : where the numbers go.
    record : what was captured.
    picture : the original picture; the viewer draws it whole and lays the grid where the model looked.
    part : a key of :func:`picture_parts`; the first one if omitted.
    name : what the source is called in the viewer.
    item : which item of the batch.
    regions : named parts of the picture, drawn as outlines with their shares.
    relevances : further maps by name, such as ``{"rollout": explain(record)}``.
    budget_mb : what the patch queries may take, in MB of the page; 0 = hold none (a kernel answers).
    words_mb : what the rows of words may take, where words look at the picture.
    tokens : the words themselves, for records that do not know them.
    rows : (label, query tokens) of the rows held for every layer and head; by default
        :func:`named_rows` of the layout, and one for each word of text that looks at the picture.
    """
    layers = image_layers(record, part)
    last, main = layers[-1]
    grid = main.grid or (1, 1)  # image_layers keeps only layouts with a grid
    cross = last.kind == "cross"
    form = QueryForm("u8", 1, 0) if cross else choose_form(len(layers), grid, budget_mb)
    words = word_rows(record, last, main, item, tokens)
    wanted = list(rows) if rows is not None else words or named_rows(main, item)
    heads = sum(layer.num_heads if layer.heads is None else len(layer.heads) for layer, _ in layers)
    held_as = row_form(len(words), heads, len(layers), main.num_patches, words_mb)
    seen = _seen(record, last, main, item)
    described = []
    for place, (layer, layout) in enumerate(layers):
        held = form.every > 0 and (len(layers) - 1 - place) % form.every == 0 and layout.grid == main.grid
        own = wanted if layout.grid == main.grid else named_rows(layout, item)[: len(wanted)]
        described.append(_put_layer(blob, layer, layout, own, item, form if held else None, seen, held_as))
    window = _window(record, main, item, picture)
    return {
        "kind": "image",
        "name": name,
        "model": record.provenance.model,
        "grid": list(grid),
        "window": window,
        "num_seen": int(seen.sum()) if seen is not None else main.num_patches,
        "prefix": list(main.prefix_tokens),
        "rows": [label for label, _ in wanted],
        "row_precision": PRECISION[held_as[0]],
        "words": [label.rpartition(" (token ")[0] for label, _ in words],
        "cross": cross,
        "layers": described,
        "pool": form.pool,
        "query_precision": PRECISION[form.dtype],
        "query_notes": [] if cross else list(form.words(len(layers))),
        "notes": [*row_notes(held_as, last, len(words)), *main.notes, *record.provenance.notes],
        "maps": [_put_relevance(blob, k, r, item, main) for k, r in (relevances or {}).items()],
        "regions": [] if regions is None else region_parts(blob, regions, picture, main, window),
    }


def merge_heads(weights: Tensor, how: int | str) -> Tensor:
    """Merge the first axis: mean, max or min; an index means it was chosen already."""
    if how == "max":
        return weights.amax(dim=0)
    if how == "min":
        return weights.amin(dim=0)
    return weights.mean(dim=0)


def readout_row(layer: LayerAttention, layout: TokenLayout, *, item: int = 0) -> Tensor:
    """Return the first named row of every head on the grid, [head, height, width]."""
    row = _mean_row(layer, named_rows(layout)[0][1], item)[:, layout.patch_slice]
    return row.unflatten(-1, layout.grid or (1, -1))


def _put_layer(
    blob: Blob,
    layer: LayerAttention,
    layout: TokenLayout,
    rows: Sequence[Row],
    item: int,
    form: QueryForm | None,
    seen: np.ndarray | None,
    held_as: tuple[str, bool],
) -> dict[str, Any]:
    grid = layout.grid
    if grid is None:
        raise InputError(f"{layer.name} has no patch grid")
    patches = layout.patch_slice
    values, queries, prefix = _read(layer, layout, rows, item, whole=form is not None)
    kept = values[..., patches].numpy()
    if seen is not None and seen.size == kept.shape[-1]:
        kept = kept * seen
    outside = values.sum(dim=-1) - values[..., patches].sum(dim=-1)
    dtype, merged = held_as
    if merged:
        kept, outside = kept.mean(axis=1, keepdims=True), outside.mean(dim=1, keepdim=True)
    described = {
        "index": layer.index,
        "name": layer.name,
        "stream": layer.stream,
        "heads": ["mean"] if merged else list(layer.heads or range(layer.num_heads)),
        "grid": list(grid),
        "rows": blob.put(kept, dtype),
        "prefix": blob.put(outside.numpy()),
        "queries": None,
    }
    if form is not None and queries is not None and prefix is not None:
        pooled = pool_keys(queries.numpy().reshape(-1, *grid), form.pool)
        described["queries"] = blob.put(pooled.reshape(len(pooled), -1), form.dtype, pack=None, later=True)
        described["query_prefix"] = blob.put(prefix.numpy()[None], later=True)
    return described


def _read(
    layer: LayerAttention, layout: TokenLayout, rows: Sequence[Row], item: int, *, whole: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return named rows [row, head, key], head-averaged patch rows [query, key] and their prefix share."""
    patches = layout.patch_slice
    with torch.inference_mode():
        if len(rows) > 2 and all(len(tokens) == 1 for _, tokens in rows):  # words: one call for all
            queries = [tokens[0] for _, tokens in rows]
            found = list(layer.weights(queries=queries)[item].float().cpu().unbind(dim=1))
        else:
            found = [_mean_row(layer, tokens, item) for _, tokens in rows]
        if not whole:
            return torch.stack(found), None, None
        queries, prefix = [], []
        for start in range(patches.start, patches.stop, _BLOCK):
            stop = min(start + _BLOCK, patches.stop)
            block = layer.weights(queries=slice(start, stop))[item].mean(dim=0).float().cpu()
            queries.append(block[:, patches])
            prefix.append(block.sum(dim=-1) - queries[-1].sum(dim=-1))
    return torch.stack(found), torch.cat(queries), torch.cat(prefix)


def _mean_row(layer: LayerAttention, tokens: Sequence[int], item: int) -> Tensor:
    """Return the mean of some query rows, [head, key], block by block; kept while the layer lives.

    A mean over all patches reads a whole layer, and the explorer asks for it again with each drawing.
    """
    key = (tuple(tokens), item)
    if len(tokens) > 2:
        known = _KNOWN_ROWS.setdefault(layer, {}).get(key)
        if known is not None:
            return known
    total: Tensor | None = None
    for start in range(0, len(tokens), _BLOCK):
        block = layer.weights(queries=list(tokens[start : start + _BLOCK]))[item].sum(dim=1)
        total = block if total is None else total + block
    if total is None:
        raise InputError("a named row needs at least one query token")
    row = (total / len(tokens)).float().cpu()
    if len(tokens) > 2:
        _KNOWN_ROWS[layer][key] = row
    return row


def pool_keys(rows: np.ndarray, pool: int) -> np.ndarray:
    """Average [query, height, width] over squares of keys; squares at the border may be smaller."""
    if pool == 1:
        return rows
    count, height, width = rows.shape
    down, across = math.ceil(height / pool), math.ceil(width / pool)
    padded = np.full((count, down * pool, across * pool), np.nan, dtype=np.float32)
    padded[:, :height, :width] = rows
    return np.nanmean(padded.reshape(count, down, pool, across, pool), axis=(2, 4))


def _put_relevance(
    blob: Blob, name: str, relevance: Relevance, item: int, main: TokenLayout
) -> dict[str, Any]:
    if relevance.scores.dim() != 2:
        raise InputError(f"the map {name!r} holds every query: choose one query for the viewer")
    heat = relevance.heatmap()[item].detach().float()
    if tuple(heat.shape) != main.grid:
        raise InputError(f"the map {name!r} has a grid of {tuple(heat.shape)}, the attention {main.grid}")
    positive = relevance.positive(without_identity=True)[item].detach().float()
    notes = list(relevance.notes)
    if relevance.signed:
        notes.append("scores below 0 are left out of this picture")
    if relevance.identity is not None:
        notes.append("the part that is there because the method starts from the query is left out")
    return {
        "name": name,
        "method": relevance.method,
        "query": relevance.query,
        "values": blob.put(positive.cpu().numpy().reshape(1, -1)),
        "raw": blob.put(heat.cpu().numpy().reshape(1, -1)),
        "prefix": _prefix_share(relevance, item),
        "notes": notes,
    }


def _prefix_share(relevance: Relevance, item: int) -> float:
    """Return the share of mass outside the patches, without what the method starts from."""
    scores = relevance.scores[item].detach()
    if relevance.identity is not None:
        scores = scores - relevance.identity[item]
    positive = scores.clamp(min=0)
    total = float(positive.sum())
    return 1 - float(positive[relevance.layout.patch_slice].sum()) / total if total > 0 else 0.0


def _seen(record: AttentionRecord, layer: LayerAttention, main: TokenLayout, item: int) -> np.ndarray | None:
    seen = record.seen.get(layer.stream)
    if seen is None or layer.kind == "cross" or seen.shape[-1] != main.num_tokens:
        return None
    return seen[item, main.patch_slice].cpu().numpy().astype(np.float32)


def _window(record: AttentionRecord, main: TokenLayout, item: int, picture: Picture) -> list[float]:
    """Return (left, top, right, bottom) of the picture that the grid covers, as fractions."""
    height, width = picture.size
    if not record.views or main.grid is None:
        return [0.0, 0.0, 1.0, 1.0]
    left, top, right, bottom = record.views[item].grid_window(main.grid, main.patch_size)
    return [left / width, top / height, right / width, bottom / height]


def _ordinal(n: int) -> str:
    return {2: "second", 3: "third", 4: "fourth", 6: "sixth"}.get(n, f"{n}th")
