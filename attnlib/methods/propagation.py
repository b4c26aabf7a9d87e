"""From a request to the engine and back: where it starts, and what a reader must know of the result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attnlib.methods.engine import (
    Propagated,
    WholeLayer,
    class_rows,
    fused_rows,
    propagate,
    propagate_whole,
)
from attnlib.methods.request import Answer, Request
from attnlib.record import LayerAttention

__all__ = ["answer_of", "propagated"]


def fused_pool(pool: LayerAttention) -> Tensor:
    """Return the mean over heads of the pooler's own rows."""
    return fused_rows(pool, None)


def propagated(
    request: Request,
    transition: Callable[..., Any],
    *,
    start_layer: int = 0,
    needs_whole: bool = False,
    pool_rows: Callable[[LayerAttention], Tensor] = fused_pool,
    late_class: bool = False,
) -> Answer:
    """Run the engine for a request: from the pooler's row, or from the rows the query names.

    Parameters
    ----------
    request : what was asked.
    transition : rows of a layer -> Block, or layer -> Block of all rows if ``needs_whole``.
    start_layer : first layer that takes part.
    needs_whole : the transition must see a whole layer at once.
    pool_rows : the pooler's own rows, [batch, row, key]; their mean is the start.
    late_class : the transition also knows the calls of a class token that joins behind the patch layers.
    """
    if not late_class:
        request.refuse_class_attention()
    layers = request.stack(start_layer=start_layer)
    run = propagate_whole if needs_whole else propagate
    if request.reads_pool and request.class_attention:
        above = class_rows(request.class_attention, WholeLayer(transition) if needs_whole else transition)
        below = run(layers, above.scores[..., 1:], transition)
        below.scores = torch.cat([above.scores[..., :1], below.scores], dim=-1)
        below.identity = above.identity
        below.notes = tuple(dict.fromkeys((*above.notes, *below.notes)))
        below.layout = request.class_attention[0].key_layout
        return answer_of(below, request.pool_words, False)
    if request.reads_pool and request.pool is not None:
        start = pool_rows(request.pool).mean(dim=1, keepdim=True)
        result = run(layers, start, transition)
        result.identity = None
        return answer_of(result, request.pool_words, False)
    starts = request.starts(layers[-1])
    result = run(layers, starts.weights, transition)
    result.notes += request.left_out
    return answer_of(result, starts.words, starts.every)


def answer_of(result: Propagated, words: str, every: bool) -> Answer:
    """Return the answer of a propagation: one row, or all."""
    scores = result.scores if every else result.scores.squeeze(1)
    identity = result.identity if every or result.identity is None else result.identity.squeeze(1)
    return Answer(scores, identity, words, notes=result.notes, layout=result.layout)
