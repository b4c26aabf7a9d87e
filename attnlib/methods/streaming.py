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

ROWS = 64
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
    for item in range(vector.shape[0]):
        rows = torch.nonzero((vector[item] != 0).any(dim=0)).flatten()
        for head in range(query.shape[1]):
            _one_head(
                query[item, head][rows],
                key[item, head].t().contiguous(),
                vector[item][:, rows],
                arrived[item],
                None if slope is None else (slope[item, head][rows], value[item, head].t().contiguous()),
            )
    return arrived / query.shape[1]


def _one_head(
    query: Tensor, key: Tensor, carried: Tensor, arrived: Tensor, gradient: tuple[Tensor, Tensor] | None
) -> None:
    """Add what one head carries to ``arrived``; ``key`` is [dim, key]."""
    if len(query) == 0:
        return
    bound = float(query.norm(dim=1).max() * key.norm(dim=0).max())
    buffer = query.new_empty(ROWS, key.shape[1])
    second = torch.empty_like(buffer) if gradient is not None else buffer
    for start in range(0, len(query), ROWS):
        stop = min(start + ROWS, len(query))
        block = buffer[: stop - start]
        torch.mm(query[start:stop], key, out=block)
        if not bound <= LARGEST_EXPONENT:  # e^s could leave the range of float32, or is not a number
            block.sub_(block.amax(dim=1, keepdim=True))
        block.exp_()
        share = carried[:, start:stop] / block.sum(dim=1)
        if gradient is not None:
            slope, value = gradient
            other = second[: stop - start]
            torch.mm(slope[start:stop], value, out=other)
            block.mul_(other.clamp_(min=0))
        arrived.addmm_(share, block)
