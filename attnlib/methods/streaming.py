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
    query, key = source.query[:, chosen], source.key[:, chosen]
    slope = source.output_gradient[:, chosen] if source.output_gradient is not None else None
    value = source.value[:, chosen]
    arrived = vector.new_zeros(*vector.shape[:2], key.shape[2])
    together = min(query.shape[1], torch.get_num_threads())
    room = _Room(key, value, together, positive_gradient)
    for item in range(vector.shape[0]):
        rows = torch.nonzero((vector[item] != 0).any(dim=0)).flatten()
        picked = slice(None) if len(rows) == vector.shape[2] else rows
        for first in range(0, query.shape[1] if len(rows) else 0, together):
            some = slice(first, first + together)
            arrived[item] += _some_heads(
                query[item, some][:, picked],
                key[item, some],
                source.scale,
                vector[item][:, picked],
                room,
                (slope[item, some][:, picked], value[item, some])
                if positive_gradient and slope is not None
                else None,
            )
    return arrived / query.shape[1]


class _Room:
    """Memory for one group of heads, asked for once a layer."""

    def __init__(self, key: Tensor, value: Tensor, together: int, gradient: bool) -> None:
        keys = key.shape[2]
        self.key = key.new_empty(together, key.shape[3], keys)
        self.block = key.new_empty(together * ROWS * keys)
        self.value = key.new_empty(together, value.shape[3], keys) if gradient else None
        self.slope = torch.empty_like(self.block) if gradient else None


def _some_heads(
    query: Float[Tensor, "head query dim"],
    key: Float[Tensor, "head key dim"],
    scale: float,
    carried: Float[Tensor, "start query"],
    room: _Room,
    gradient: tuple[Tensor, Tensor] | None,
) -> Float[Tensor, "start key"]:
    """Return the sum of what a few heads carry.

    As many heads as there are threads go together: each thread then finds the block of its head in its own
    cache at every step.
    """
    heads, keys = key.shape[:2]
    bound = abs(scale) * float((query.norm(dim=2).amax(dim=1) * key.norm(dim=2).amax(dim=1)).max())
    key = room.key[:heads].copy_(key.transpose(1, 2))
    value = (
        None
        if gradient is None or room.value is None
        else room.value[:heads].copy_(gradient[1].transpose(1, 2))
    )
    arrived = query.new_zeros(heads, len(carried), keys)
    for start in range(0, query.shape[1], ROWS):
        stop = min(start + ROWS, query.shape[1])
        shape, size = (heads, stop - start, keys), heads * (stop - start) * keys
        block = room.block[:size].view(shape)
        torch.baddbmm(block, query[:, start:stop], key, beta=0, alpha=scale, out=block)
        if not bound <= LARGEST_EXPONENT:  # e^s could leave the range of float32, or is not a number
            block.sub_(block.amax(dim=2, keepdim=True))
        block.exp_()
        share = carried[:, start:stop] / block.sum(dim=2).unsqueeze(1)
        if gradient is not None and value is not None and room.slope is not None:
            other = room.slope[:size].view(shape)
            torch.bmm(gradient[0][:, start:stop], value, out=other)
            block.mul_(other.clamp_(min=0))
        arrived.baddbmm_(share, block)
    return arrived.sum(dim=0)
