r"""The product of start vectors with plain soft-max attention, in blocks that stay in the processor's cache.

For the mean over heads of attention computed from kept projections, without a mask, rows sum to 1 and
the soft-max need not be finished before the product:

.. math:: v A = \sum_i \frac{v_i}{z_i}\, e^{s_{i:}}, \qquad z_i = \sum_j e^{s_{ij}}
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from attnlib.record import LayerAttention, ProjectedAttention

__all__ = ["carry"]

ROWS = 128
MOST_STARTS = 4
LARGEST_EXPONENT = 60.0


def carry(
    layer: LayerAttention,
    vector: Float[Tensor, "batch start query"],
    *,
    heads: int | Sequence[int] | None = None,
    positive_gradient: bool = False,
) -> Float[Tensor, "batch start key"] | None:
    r"""Return the vectors times the head mean of the attention, or of :math:`(G \odot A)^+`.

    Parameters
    ----------
    layer : the attention call.
    vector : what is carried; rows where it is 0 are never computed.
    heads : original heads; None = all that were kept.
    positive_gradient : weight each head by its gradient and cut off what is negative.

    Returns
    -------
    None if the layer is of another kind (masked, causal, grouped, given, half precision, in windows) or
    many vectors are carried: then whole blocks of rows are the way.
    """
    source = layer.source
    if type(source) is not ProjectedAttention or layer.queries is not None or vector.shape[1] > MOST_STARTS:
        return None
    if (
        source.mask is not None
        or source.is_causal
        or source.query.dtype not in (torch.float32, torch.float64)
    ):
        return None
    if source.key.shape[1] != source.query.shape[1]:
        return None
    if positive_gradient and source.output_gradient is None:
        return None
    chosen = layer._stored(heads, None)[0]
    query, key = source.query[:, chosen] * source.scale, source.key[:, chosen]
    slope = (
        source.output_gradient[:, chosen]
        if positive_gradient and source.output_gradient is not None
        else None
    )
    value = source.value[:, chosen]
    arrived = torch.zeros_like(vector)
    together = min(query.shape[1], torch.get_num_threads())
    for item in range(vector.shape[0]):
        rows = torch.nonzero((vector[item] != 0).any(dim=0)).flatten()
        if len(rows) == 0:
            continue
        for first in range(0, query.shape[1], together):
            heads_now = slice(first, first + together)
            arrived[item] += _some_heads(
                query[item, heads_now][:, rows],
                key[item, heads_now].transpose(1, 2).contiguous(),
                vector[item][:, rows],
                None
                if slope is None
                else (slope[item, heads_now][:, rows], value[item, heads_now].transpose(1, 2).contiguous()),
            )
    return arrived / query.shape[1]


def _some_heads(
    query: Float[Tensor, "head query dim"],
    key: Float[Tensor, "head dim key"],
    carried: Float[Tensor, "start query"],
    gradient: tuple[Tensor, Tensor] | None,
) -> Float[Tensor, "start key"]:
    """Return the sum of what a few heads carry.

    As many heads as there are threads go together: each thread then finds the block of its head in its own
    cache at every step.
    """
    bound = float((query.norm(dim=2).amax(dim=1) * key.norm(dim=1).amax(dim=1)).max())
    buffer = query.new_empty(len(query), ROWS, key.shape[2])
    second = torch.empty_like(buffer) if gradient is not None else buffer
    arrived = query.new_zeros(len(query), len(carried), key.shape[2])
    for start in range(0, query.shape[1], ROWS):
        stop = min(start + ROWS, query.shape[1])
        # a shorter last block gets memory of its own: part of the buffer would not be contiguous
        block = buffer if stop - start == ROWS else query.new_empty(len(query), stop - start, key.shape[2])
        torch.bmm(query[:, start:stop], key, out=block)
        if not bound <= LARGEST_EXPONENT:  # e^s could leave the range of float32, or is not a number
            block.sub_(block.amax(dim=2, keepdim=True))
        block.exp_()
        share = carried[:, start:stop] / block.sum(dim=2).unsqueeze(1)
        if gradient is not None:
            slope, value = gradient
            other = second if stop - start == ROWS else torch.empty_like(block)
            torch.bmm(slope[:, start:stop], value, out=other)
            block.mul_(other.clamp_(min=0))
        arrived.baddbmm_(share, block)
    return arrived.sum(dim=0)
