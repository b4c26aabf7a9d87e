"""What a kernel answers to a viewer: exact maps of any patch, head and page, computed when asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnlib.errors import InputError
from attnlib.record import AttentionRecord
from attnlib.widgets.image_source import image_layers, merge_heads
from attnlib.widgets.text_source import matrix_part, text_parts

__all__ = ["Answer", "patch_answer", "text_answer"]

Answer = tuple[list[np.ndarray], float | None]
"""Arrays for the viewer, and the share outside the patches where it means something."""
_BLOCK = 512


def patch_answer(
    record: AttentionRecord, request: Mapping[str, Any], *, part: str | None = None, item: int = 0
) -> Answer:
    """Return the exact map of one patch.

    Parameters
    ----------
    record : the record that the viewer shows.
    request : a selection of the viewer: layer, layers, head, heads, query, direction.
    part : which calls over patches; the first if omitted.
    item : which item of the batch.

    Returns
    -------
    For "from": the patch's row over the patches, and the share outside them (None where maxima or
    minima were taken). For "to": how much every patch looks at it, and the same in multiples of the
    even share of each looking patch.
    """
    found = image_layers(record, part)
    places = [int(request["layer"])] if request["layers"] == "one" else list(range(len(found)))
    row, column = (int(v) for v in request["query"])
    plain = request["layers"] in ("one", "mean") and request["heads"] in ("one", "mean")
    values, lifts, prefixes = [], [], []
    with torch.inference_mode():
        for place in places:
            layer, layout = found[place]
            heads = _head(request, layer.heads, layer.num_heads)
            token = layout.token_index(row, column)
            if request["direction"] == "to":
                looked, lift = _column(layer, heads, token, layout.patch_slice, item)
                values.append(merge_heads(looked, request["heads"]))
                lifts.append(merge_heads(lift, request["heads"]))
                continue
            line = layer.weights(heads=heads, queries=token)[item, :, 0].float()
            over = line[:, layout.patch_slice]
            values.append(merge_heads(over, request["heads"]))
            prefixes.append(float((line.sum(dim=-1) - over.sum(dim=-1)).mean()))
    merged = [_numbers(values, request["layers"])]
    if lifts:
        merged.append(_numbers(lifts, request["layers"]))
    prefix = sum(prefixes) / len(prefixes) if prefixes and plain else None
    return merged, prefix


def text_answer(
    record: AttentionRecord,
    part: str,
    request: Mapping[str, Any],
    query_pages: Sequence[Sequence[int]],
    key_pages: Sequence[Sequence[int]],
    *,
    item: int = 0,
) -> Answer:
    """Return the exact matrix of one page of queries over one page of keys."""
    layers = text_parts(record)[part]
    places = [int(request["layer"])] if request["layers"] == "one" else list(range(len(layers)))
    queries, keys = query_pages[int(request["pageQ"])], key_pages[int(request["pageK"])]
    values = []
    for place in places:
        weights = torch.from_numpy(
            matrix_part(layers[place], (queries[0], queries[1]), (keys[0], keys[1]), item=item)
        )
        if request["heads"] == "one":
            values.append(weights[min(int(request["head"]), len(weights) - 1)])
        else:
            values.append(merge_heads(weights, request["heads"]))
    return [_numbers(values, request["layers"])], None


def _column(layer: Any, heads: int | None, token: int, patches: slice, item: int) -> tuple[Tensor, Tensor]:
    """Return how much each patch looks at a token, [head, query], and in multiples of its even share."""
    looked, lift = [], []
    for start in range(patches.start, patches.stop, _BLOCK):
        stop = min(start + _BLOCK, patches.stop)
        block = layer.weights(heads=heads, queries=slice(start, stop))[item].float()
        even = block[..., patches].sum(dim=-1) / (patches.stop - patches.start)
        looked.append(block[..., token])
        lift.append(block[..., token] / even.clamp(min=1e-12))
    return torch.cat(looked, dim=1), torch.cat(lift, dim=1)


def _head(request: Mapping[str, Any], kept: Sequence[int] | None, count: int) -> int | None:
    """Return the original index of the chosen head, or None for all."""
    if request["heads"] != "one":
        return None
    heads = list(kept) if kept is not None else list(range(count))
    place = int(request["head"])
    if not 0 <= place < len(heads):
        raise InputError(f"head {place} does not exist: there are {len(heads)}")
    return heads[place]


def _numbers(values: list[Tensor], how: str) -> np.ndarray:
    merged = values[0] if how == "one" else merge_heads(torch.stack(values), how)
    return np.ascontiguousarray(merged.detach().cpu().float().numpy())
