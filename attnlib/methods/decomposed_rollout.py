"""Products of matrices that are made of decomposed vectors: what GlobEnc and ALTI have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from attnlib.methods.decomposition import Decomposed
from attnlib.methods.engine import Block
from attnlib.methods.propagation import propagated
from attnlib.methods.request import Answer, Request
from attnlib.methods.transitions import inverse
from attnlib.methods.windows import refuse_windows
from attnlib.record import LayerAttention

__all__ = ["decomposed_rollout", "row_normalised"]


def row_normalised(rows: Tensor) -> Tensor:
    """Divide each row by its sum; a row of zeros stays zero."""
    return rows * inverse(rows.sum(dim=-1, keepdim=True))[0]


def decomposed_rollout(
    request: Request,
    take_apart: Callable[[LayerAttention], Decomposed],
    make_rows: Callable[[Decomposed], Callable[[slice | list[int]], Tensor]],
    *,
    start_layer: int,
) -> tuple[Answer, bool]:
    """Multiply matrices that are made of decomposed vectors, each block taken apart once.

    Parameters
    ----------
    request : what was asked.
    take_apart : a layer into its vectors.
    make_rows : vectors into a function from query rows to a row of numbers a key.
    start_layer : first layer that takes part.

    Returns
    -------
    The answer, and whether any block had a norm after the skip connection.
    """
    refuse_windows(request.stack(start_layer=start_layer), request.method)
    at_hand: dict[int, Callable[[slice | list[int]], Tensor]] = {}
    post_norm = False

    def transition(layer: LayerAttention, rows: slice | list[int]) -> Block:
        nonlocal post_norm
        if id(layer) not in at_hand:
            at_hand.clear()
            parts = take_apart(layer)
            post_norm = post_norm or parts.divisor is not None
            at_hand[id(layer)] = make_rows(parts)
        return Block(at_hand[id(layer)](rows))

    answer = propagated(request, transition, start_layer=start_layer)
    return replace(answer, identity=None), post_norm
