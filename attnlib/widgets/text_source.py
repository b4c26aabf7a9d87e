"""The attention between tokens of text, packed for the viewer.

A page holds up to 512 tokens. Every layer and head of a page is held in the best form that fits the
budget: float16, then bytes, then the mean over the heads. Of a longer text, pages that fit no more are
named as absent; a kernel answers for them.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from attnlib.errors import InputError
from attnlib.layout import TokenLayout
from attnlib.record import AttentionRecord, LayerAttention, Relevance
from attnlib.widgets.packing import PRECISION, Blob, log_codes

__all__ = ["MAX_PAGE", "matrix_part", "pages", "put_text_source", "text_parts", "token_share", "word_spans"]

MAX_PAGE = 512
"""Most tokens that one page of the text view shows."""
Span = tuple[int, int]
_SPECIAL = {"[CLS]", "[SEP]", "[PAD]", "<s>", "</s>", "<pad>", "<unk>", "[UNK]"}


def text_parts(record: AttentionRecord) -> dict[str, list[LayerAttention]]:
    """Return the calls over tokens of text by stream and kind, such as "decoder cross"."""
    found: dict[str, list[LayerAttention]] = {}
    for layer in record.layers:
        keys = layer.key_layout or record.layouts.get(layer.stream)
        if keys is not None and keys.grid is not None:
            continue
        name = f"{layer.stream} {layer.kind}"
        found.setdefault(name, []).append(layer)
    return found


def word_spans(tokens: Sequence[str]) -> list[Span] | None:
    """Return (start, stop) of each word, by the marks that tokenizers write; None where there are none.

    ``##`` begins a continuation (WordPiece); ``Ġ`` and ``▁`` begin a word (byte-level BPE,
    SentencePiece).
    """
    starts: list[int] | None = None
    if any(token.startswith("##") for token in tokens):
        starts = [i for i, token in enumerate(tokens) if i == 0 or not token.startswith("##")]
    elif any(token.startswith(("Ġ", "▁")) for token in tokens):
        starts = [
            i
            for i, token in enumerate(tokens)
            if i == 0 or token.startswith(("Ġ", "▁")) or token in _SPECIAL or tokens[i - 1] in _SPECIAL
        ]
    if starts is None:
        return None
    return list(zip(starts, [*starts[1:], len(tokens)], strict=True))


def pages(count: int, size: int) -> list[Span]:
    """Cut a number of tokens into pages of nearly equal length."""
    number = max(1, -(-count // size))
    edges = [round(i * count / number) for i in range(number + 1)]
    return list(pairwise(edges))


def put_text_source(
    blob: Blob,
    record: AttentionRecord,
    part: str,
    *,
    name: str = "attention",
    item: int = 0,
    layer: int = -1,
    tokens: Sequence[str] | None = None,
    page_size: int = MAX_PAGE,
    budget_mb: float | int = 16.0,
    relevances: Mapping[str, Relevance] | None = None,
) -> dict[str, Any]:
    """Pack one kind of attention of one text and return the description that the viewer reads.

    Parameters
    ----------
    blob : where the numbers go.
    record : what was captured.
    part : stream and kind, a key of :func:`text_parts`.
    name : what the source is called in the viewer.
    item : which item of the batch; its padding is left out.
    layer : the layer that is read first, a position; negative counts from the end.
    tokens : the tokens' own words, for records that do not know them; used for the axes they fit.
    page_size : most tokens of a page, up to 512.
    budget_mb : what the numbers may take, in MB of the page; 0 = hold none (a kernel answers).
    relevances : maps over the same tokens by name, such as ``{"rollout": explain(record)}``.

    Raises
    ------
    InputError
        If the record has no such part, or the page is too large for a browser.
    """
    parts = text_parts(record)
    if part not in parts:
        raise InputError(f"this record has no attention over text called {part!r}; it has {sorted(parts)}")
    if not 1 <= page_size <= MAX_PAGE:
        raise InputError(f"page_size must be 1 to {MAX_PAGE} tokens, got {page_size}")
    layers = parts[part]
    queries = token_labels(record, layers[0], item, "query", tokens)
    keys = token_labels(record, layers[0], item, "key", tokens)
    query_pages, key_pages = pages(len(queries), page_size), pages(len(keys), page_size)
    heads = [layer.num_heads if layer.heads is None else len(layer.heads) for layer in layers]
    sample = matrix_part(layers[layer], query_pages[0], key_pages[0], item=item)
    both = query_pages, key_pages
    dtype, plan, notes = _plan(heads, *both, budget_mb, _squeeze(sample), same=layers[0].kind == "self")
    blocks = []
    for q, k, merged in plan:
        for place, one in enumerate(layers):
            weights = matrix_part(one, query_pages[q], key_pages[k], item=item)
            weights = weights.mean(axis=0, keepdims=True) if merged else weights
            first = (q, k) == (0, 0) and place == layer % len(layers)
            held = blob.put(weights, dtype, pack=None, later=not first)
            blocks.append({"q": q, "k": k, "layer": place, "merged": merged, "values": held})
    return {
        "kind": "text",
        "name": name,
        "model": record.provenance.model,
        "same": layers[0].kind == "self",
        "causal": _is_causal(layers, len(queries), item),
        "query_tokens": queries,
        "key_tokens": keys,
        "query_words": word_spans(queries),
        "key_words": word_spans(keys),
        "query_pages": [list(one) for one in query_pages],
        "key_pages": [list(one) for one in key_pages],
        "layers": [
            {"index": one.index, "name": one.name, "heads": list(one.heads or range(one.num_heads))}
            for one in layers
        ],
        "first_layer": layer % len(layers),
        "blocks": blocks,
        "precision": PRECISION[dtype],
        "notes": [*notes, *_layout_notes(record, layers[0]), *record.provenance.notes],
        "maps": [_put_map(blob, n, r, item, layers[0], len(keys)) for n, r in (relevances or {}).items()],
        "rows": [],
        "prefix": [],
    }


def matrix_part(layer: LayerAttention, queries: Span, keys: Span, *, item: int = 0) -> np.ndarray:
    """Return the weights of some queries over some keys, [head, query, key]."""
    with torch.inference_mode():
        weights = layer.weights(queries=slice(*queries))[item][:, :, slice(*keys)]
    return weights.float().cpu().numpy()


def token_labels(
    record: AttentionRecord,
    layer: LayerAttention,
    item: int,
    side: str,
    tokens: Sequence[str] | None = None,
) -> list[str]:
    """Return the labels of the real tokens of one axis; padding at the end is left out."""
    layout = layer.query_layout if side == "query" else layer.key_layout
    count = layer.num_queries if side == "query" else layer.num_keys
    if layout is None and (layer.kind == "self" or side == "query"):
        layout = record.layouts.get(layer.stream)
    layout = None if layout is None else layout.of_item(item)
    real = count
    seen = record.seen.get(layer.stream)
    if seen is not None and seen.shape[-1] == count:
        real = int(seen[item].nonzero().max()) + 1
    if tokens is not None and len(tokens) in (count, real):
        return [str(token) for token in tokens[:real]]
    return [_label(layout, i) for i in range(real)]


def _layout_notes(record: AttentionRecord, layer: LayerAttention) -> list[str]:
    """Return what must be known about the tokens, such as that the text was cut off."""
    layouts = (layer.query_layout, layer.key_layout, record.layouts.get(layer.stream))
    return list(dict.fromkeys(note for layout in layouts if layout is not None for note in layout.notes))


def _label(layout: TokenLayout | None, index: int) -> str:
    return f"token {index}" if layout is None or index >= layout.num_tokens else layout.label(index)


def token_share(relevance: Relevance, item: int = 0) -> torch.Tensor:
    """Return the positive part of a map over text, divided by its sum, [token].

    What the method starts from (the query itself) is left out; padding counts nothing.
    """
    scores = relevance.scores[item].detach().float()
    if relevance.identity is not None:
        scores = scores - relevance.identity[item]
    positive = scores.clamp(min=0)
    if relevance.seen is not None:
        positive = positive * relevance.seen[item]
    total = positive.sum()
    return positive / total if total > 0 else positive


def _put_map(
    blob: Blob, name: str, relevance: Relevance, item: int, layer: LayerAttention, count: int
) -> dict[str, Any]:
    if relevance.scores.dim() != 2 or relevance.scores.shape[-1] != layer.num_keys:
        raise InputError(
            f"the map {name!r} has scores of shape {tuple(relevance.scores.shape)}: the viewer needs one "
            f"query and {layer.num_keys} tokens"
        )
    notes = list(relevance.notes)
    if relevance.signed:
        notes.append("scores below 0 are left out of this map")
    if relevance.identity is not None:
        notes.append("the part that is there because the method starts from the query is left out")
    values = token_share(relevance, item)[:count]
    return {
        "name": name,
        "method": relevance.method,
        "query": relevance.query,
        "values": blob.put(values.cpu().numpy().reshape(1, -1)),
        "notes": notes,
    }


def _squeeze(sample: np.ndarray) -> float:
    """Return to what part deflate brings the byte codes of one layer."""
    codes = log_codes(sample)[0].tobytes()
    return min(1.0, 1.1 * len(zlib.compress(codes, 6)) / len(codes))


def _plan(
    heads: Sequence[int],
    queries: Sequence[Span],
    keys: Sequence[Span],
    budget_mb: float | int,
    squeeze: float,
    *,
    same: bool,
) -> tuple[str, list[tuple[int, int, bool]], list[str]]:
    """Choose the storage and which pages are held: (query page, key page, mean over heads)."""
    pairs = [(q, k) for q in range(len(queries)) for k in range(len(keys))]
    pairs.sort(key=lambda pair: (pair[0] != pair[1] if same else False, pair))

    def size(pair: tuple[int, int], each: float, merged: bool) -> float:
        (a, b), (c, d) = queries[pair[0]], keys[pair[1]]
        return (len(heads) if merged else sum(heads)) * (b - a) * (d - c) * each * 4 / 3

    budget = budget_mb * 1e6
    everything = sum(size(pair, 2.0, False) for pair in pairs)
    dtype, each = ("f16", 2.0) if everything <= budget else ("u8", squeeze)
    plan, used = [], 0.0
    for pair in pairs:
        for merged in (False, True):
            cost = size(pair, each, merged)
            if used + cost <= budget:
                plan.append((*pair, merged))
                used += cost
                break
    notes = []
    merged_pages = [(q, k) for q, k, merged in plan if merged]
    if merged_pages:
        notes.append(f"held as the mean over the heads for {len(merged_pages)} of {len(pairs)} page pairs")
    if len(plan) < len(pairs):
        notes.append(f"{len(pairs) - len(plan)} of {len(pairs)} page pairs are not held in this file")
    if len(pairs) > 1:
        notes.append(f"the text is shown in pages of at most {max(b - a for a, b in queries)} tokens")
    return dtype, plan, notes


def _is_causal(layers: Sequence[LayerAttention], count: int, item: int) -> bool:
    """Whether no token looks at a later one, read from the first row of every layer."""
    if layers[0].kind != "self" or count < 3:
        return False
    return all(float(one.weights(queries=0)[item, :, 0, 1:].abs().max()) == 0 for one in layers)
