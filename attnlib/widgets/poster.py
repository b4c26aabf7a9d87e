"""Posters: the still picture inside every viewer, for places where no script runs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

from attnlib.errors import InputError
from attnlib.picture import Picture, View
from attnlib.record import AttentionRecord, Relevance
from attnlib.viz.static import overlay_image
from attnlib.viz.theme import SEQUENTIAL, colour_map
from attnlib.widgets.image_source import image_layers, merge_heads, named_rows
from attnlib.widgets.state import ExplorerState
from attnlib.widgets.text_source import MAX_PAGE, matrix_part, text_parts, token_labels

__all__ = ["jpeg", "picture_poster", "selected_relevance", "shown_relevance", "text_matrix", "text_poster"]

_LONGEST = 460
_LABELLED = 40


def jpeg(image: Image.Image, quality: int = 82) -> bytes:
    """Return a picture as JPEG bytes."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def selected_relevance(
    record: AttentionRecord,
    *,
    place: int = -1,
    head: int | str = "mean",
    row: int = 0,
    query: tuple[int, int] | None = None,
    item: int = 0,
) -> Relevance:
    """Return the map that a selection shows, as a relevance over all tokens.

    Parameters
    ----------
    record : with self-attention over patches.
    place : position of the layer among those with patches.
    head : a head, or "mean", "max", "min".
    row : which of :func:`attnlib.widgets.image_source.named_rows`.
    query : a patch, instead of the row.
    item : which item of the batch.
    """
    layer, layout = image_layers(record)[place]
    label, tokens = ("token 0", (0,)) if layer.kind == "cross" else named_rows(layout, item)[row]
    if query is not None:
        label, tokens = f"patch {tuple(query)}", (layout.token_index(*query),)
    heads = head if isinstance(head, int) else None
    total = torch.zeros(())
    with torch.inference_mode():
        for start in range(0, len(tokens), 512):
            part = layer.weights(heads=heads, queries=list(tokens[start : start + 512]))[item]
            total = total + part.sum(dim=1)
    scores = merge_heads(total / len(tokens), head)
    seen = record.seen.get(layer.stream) if layer.kind == "self" else None
    seen = seen if seen is not None and seen.shape[-1] == layout.num_tokens else None
    return Relevance(
        scores[None].float().clone(),
        layout,
        method="raw",
        options={"layers": [layer.index], "head": head},
        query=label,
        provenance=record.provenance,
        seen=None if seen is None else seen[item : item + 1],
        views=_view(record.views, item),
    )


def shown_relevance(record: AttentionRecord, state: ExplorerState) -> Relevance:
    """Return the map of the layer (or of all, merged), heads and query that an explorer shows.

    Raises
    ------
    InputError
        If the direction is turned round, or layers of different grids are merged.
    """
    if state.direction != "from":
        raise InputError("words are written for where a query looks, not for who looks at it: turn it round")
    layers = image_layers(record)
    places = [state.layer] if state.layers == "one" else list(range(len(layers)))
    if len({layers[place][1].grid for place in places}) > 1:
        raise InputError("these layers have different grids and cannot be merged: choose one layer")
    maps = []
    for place in places:
        layer = layers[place][0]
        heads = layer.heads or tuple(range(layer.num_heads))
        head = heads[min(state.head, len(heads) - 1)] if state.heads == "one" else state.heads
        maps.append(selected_relevance(record, place=place, head=head, query=state.query))
    if state.layers == "one":
        return maps[0]
    scores = merge_heads(torch.stack([one.scores for one in maps]), state.layers)
    indices = [layers[place][0].index for place in places]
    return replace(
        maps[0], scores=scores, options={**maps[0].options, "layers": indices, "over": state.layers}
    )


def picture_poster(record: AttentionRecord, picture: Picture, *, title: str, **selection: object) -> bytes:
    """Draw the first selection over the picture, with its legend, as a JPEG."""
    relevance = selected_relevance(record, **selection)  # type: ignore[arg-type]
    return jpeg(overlay_image(relevance, picture, longest=_LONGEST, title=title))


def text_poster(record: AttentionRecord, **selection: Any) -> bytes:
    """Draw :func:`text_matrix` as a JPEG."""
    return jpeg(text_matrix(record, **selection))


def text_matrix(
    record: AttentionRecord,
    *,
    part: str | None = None,
    place: int = -1,
    head: int | str = "mean",
    item: int = 0,
    tokens: Sequence[str] | None = None,
) -> Image.Image:
    """Draw the matrix of one layer, with the tokens beside it where they fit."""
    parts = text_parts(record)
    layer = parts[part or next(iter(parts))][place]
    queries = token_labels(record, layer, item, "query", tokens)[:MAX_PAGE]
    keys = token_labels(record, layer, item, "key", tokens)[:MAX_PAGE]
    weights = torch.from_numpy(matrix_part(layer, (0, len(queries)), (0, len(keys)), item=item))
    chosen = weights[head] if isinstance(head, int) else merge_heads(weights, head)
    colours = colour_map(SEQUENTIAL)[(chosen.clamp(0, 1).sqrt() * 255).round().int().numpy()]
    labelled = max(len(queries), len(keys)) <= _LABELLED
    cell = 14 if labelled else max(1, _LONGEST // max(len(queries), len(keys)))
    matrix = Image.fromarray(colours).resize(
        (len(keys) * cell, len(queries) * cell), Image.Resampling.NEAREST
    )
    if not labelled:
        return matrix
    return _with_labels(matrix, queries, keys, cell)


def _with_labels(matrix: Image.Image, queries: Sequence[str], keys: Sequence[str], cell: int) -> Image.Image:
    margin, font = 96, ImageFont.load_default(12)
    sheet = Image.new("RGB", (matrix.width + margin, matrix.height + margin), "white")
    sheet.paste(matrix, (margin, margin))
    pen = ImageDraw.Draw(sheet)
    for i, token in enumerate(queries):
        pen.text((margin - 5, margin + (i + 0.5) * cell), token[:14], "black", font, anchor="rm")
    aside = Image.new("RGB", (margin, matrix.width), "white")
    pen = ImageDraw.Draw(aside)
    for i, token in enumerate(keys):
        pen.text((5, (i + 0.5) * cell), token[:14], "black", font, anchor="lm")
    sheet.paste(aside.rotate(90, expand=True), (margin, 0))
    return sheet


def _view(views: tuple[View, ...], item: int) -> tuple[View, ...]:
    return (views[item],) if views else ()
