"""Transitions that several methods share: fused, gradient-weighted, thinned out, mixed with the identity."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnlib.errors import InputError
from attnlib.methods.engine import Block, blocks_of, fused_rows
from attnlib.methods.request import Request, one_row
from attnlib.record import LayerAttention

__all__ = [
    "ZERO_ROWS",
    "column_divided",
    "demand_whole",
    "gradient_rows",
    "inverse",
    "kept_entries",
    "mixed",
    "number_bytes",
    "whole",
]

WHOLE_MATRICES = 10
ZERO_ROWS = "some rows have nothing to share out (0/0): they count as 0"


def gradient_rows(
    layer: LayerAttention,
    rows: slice | list[int] | None,
    *,
    heads: int | Sequence[int] | None = None,
    positive: bool = False,
) -> Float[Tensor, "batch row key"]:
    r"""Return the head mean of gradient x attention.

    .. math:: \tfrac1H \sum_h G_h \odot A_h, \quad\text{or}\quad \tfrac1H \sum_h (G_h \odot A_h)^+

    Parameters
    ----------
    layer : the attention call.
    rows : original query rows; None = all.
    heads : original heads; None = all that were kept.
    positive : take the positive part of each head before the mean.
    """
    product = layer.weights(heads=heads, queries=rows) * layer.gradients(heads=heads, queries=rows)
    if positive:
        product.clamp_(min=0)
    return product.mean(dim=1)


def inverse(total: Tensor) -> tuple[Tensor, Tensor]:
    """Return 1 / total, and where that is 0/0: there it is 0.

    What is below the smallest normal number counts as 0 (padding in windows, masked by -100): its inverse
    is infinite.
    """
    empty = total.abs() < torch.finfo(total.dtype).tiny
    return torch.where(empty, 0.0, 1.0 / torch.where(empty, 1.0, total)), empty


def mixed(fused: Float[Tensor, "batch row key"], residual_weight: float) -> Block:
    r"""Mix rows with the identity and divide each by its sum; rows that sum to 0 stay 0.

    .. math:: \frac{(1-w)\,M_i + w\,e_i}{(1-w)\sum_j M_{ij} + w}
    """
    share = 1.0 - residual_weight
    total = share * fused.sum(dim=-1) + residual_weight
    scale, empty = inverse(total)
    notes = (ZERO_ROWS,) if bool(empty.any()) else ()
    return Block(fused * (share * scale)[..., None], residual_weight * scale, notes)


def whole(
    layer: LayerAttention, *, head_fusion: str = "mean", heads: int | Sequence[int] | None = None
) -> Float[Tensor, "batch query key"]:
    """Return the whole fused matrix of a layer, built block by block."""
    parts = [fused_rows(layer, rows, head_fusion=head_fusion, heads=heads) for rows in blocks_of(layer)]
    return torch.cat(parts, dim=1)


def demand_whole(request: Request, layers: Sequence[LayerAttention]) -> None:
    """Refuse whole matrices of these layers, one at a time, that would take more memory than is allowed.

    Raises
    ------
    BudgetError
        Before the first of them is made.
    """
    largest = max(layers, key=lambda layer: layer.num_queries * layer.num_keys)
    size = f"{largest.num_queries}x{largest.num_keys}"
    request.demand(
        WHOLE_MATRICES * number_bytes(largest) * largest.batch_size * largest.num_queries * largest.num_keys,
        f"this option needs whole matrices of {size}, one layer at a time",
        "leave discard_ratio at 0 and variant at None, take one item at a time, or use a smaller input",
    )


def number_bytes(layer: LayerAttention) -> int:
    """Return the bytes of one attention weight of a layer."""
    return layer.weights(**one_row(layer)).element_size()


def kept_entries(
    matrix: Float[Tensor, "batch query key"],
    discard_ratio: float,
    *,
    protect_first: bool = True,
    seen: Bool[Tensor, "batch query"] | None = None,
) -> Float[Tensor, "batch query key"]:
    """Set the smallest entries of each item's matrix to 0.

    Parameters
    ----------
    matrix : fused attention, one per item.
    discard_ratio : share of the entries that goes; int(ratio x query x key) of them.
    protect_first : keep entry (0, 0), as the published code does for the class token.
    seen : True for real tokens; entries of padding are not counted, and stay as they are.
    """
    if seen is None or seen.shape[1:] != matrix.shape[2:]:
        return _without_smallest(matrix, discard_ratio, protect_first)
    thinned = matrix.clone()
    for item, real in enumerate(seen):
        rows = torch.nonzero(real).flatten()
        own = matrix[item][rows[:, None], rows]
        thinned[item][rows[:, None], rows] = _without_smallest(own[None], discard_ratio, protect_first)[0]
    return thinned


def _without_smallest(matrix: Tensor, ratio: float, protect_first: bool) -> Tensor:
    flat = matrix.flatten(1)
    lowest = flat.topk(int(flat.shape[1] * ratio), dim=-1, largest=False, sorted=False).indices
    thinned = flat.scatter(1, lowest, 0.0)
    if protect_first:
        thinned[:, 0] = flat[:, 0]
    return thinned.view_as(matrix)


def column_divided(fused: Float[Tensor, "batch query key"], residual_weight: float = 0.5) -> Block:
    """Divide *column* j of the mixed matrix by the sum of *row* j, as vit-explain does.

    Raises
    ------
    InputError
        If there is not one row for each column.
    """
    if fused.shape[1] != fused.shape[2]:
        raise InputError(
            f"variant='vit-explain' divides columns by the sums of rows: {fused.shape[1]} rows of "
            f"{fused.shape[2]} columns cannot be"
        )
    scale, _ = inverse((1.0 - residual_weight) * fused.sum(dim=-1) + residual_weight)
    return Block(fused * (1.0 - residual_weight) * scale[:, None, :], residual_weight * scale)
