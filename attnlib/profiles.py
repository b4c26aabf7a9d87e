"""Profiles: how spread out, how far and how much on prefix tokens each layer and head attends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnlib.errors import InputError, LayoutError
from attnlib.layout import TokenLayout
from attnlib.record import AttentionRecord, LayerAttention

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LayerProfile", "layer_profile"]

_BLOCK = 256


@dataclass(frozen=True, eq=False)
class LayerProfile:
    """Numbers of every layer and head, averaged over query rows; padding is no row.

    Parameters
    ----------
    layers : original indices of the layers.
    heads : original indices of the heads.
    entropy : entropy of the rows divided by log N: 0 = one token, 1 = all tokens alike.
    distance : mean distance between a query patch and the patches it attends to, in patches,
        weighted by attention; prefix tokens are left out of it.
    prefix_share : share of attention on prefix tokens.
    even_distance : what ``distance`` would be if attention were even over the whole grid.
    rows : how many query rows were averaged, and which, in words.
    """

    layers: tuple[int, ...]
    heads: tuple[int, ...]
    entropy: Float[Tensor, "batch layer head"]
    distance: Float[Tensor, "batch layer head"]
    prefix_share: Float[Tensor, "batch layer head"]
    even_distance: float
    rows: str

    def to_frame(self) -> pd.DataFrame:
        """Return a table: one row per item, layer and head."""
        import pandas as pd

        index = pd.MultiIndex.from_product(
            [range(self.entropy.shape[0]), self.layers, self.heads], names=["item", "layer", "head"]
        )
        columns = ("entropy", "distance", "prefix_share")
        values = {name: getattr(self, name).flatten().tolist() for name in columns}
        return pd.DataFrame(values, index=index).reset_index()

    def __repr__(self) -> str:
        return f"LayerProfile({len(self.layers)} layers, {len(self.heads)} heads; {self.rows})"


def layer_profile(record: AttentionRecord, *, max_rows: int | None = 256) -> LayerProfile:
    r"""Measure entropy, attention distance and prefix share of every layer and head.

    .. math:: H = -\frac{1}{\log N}\sum_k A_{qk}\log A_{qk}, \qquad
              D = \frac{\sum_{k \in \text{patches}} A_{qk}\,\lVert p_q - p_k\rVert_2}
                       {\sum_{k \in \text{patches}} A_{qk}}

    Both are averaged over query rows q that are patches. The distance follows Dosovitskiy et al. [1]_,
    in patches instead of pixels.

    Parameters
    ----------
    record : self-attention of one stream whose layout has a patch grid.
    max_rows : at most this many query rows, evenly spaced over the patches; None = all.

    Raises
    ------
    InputError
        If the layers differ in heads or tokens, or are no self-attention.
    LayoutError
        If the stream has no patch grid.

    References
    ----------
    .. [1] Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, arXiv:2010.11929, figure 7.
    """
    layout = record.layout
    if layout.grid is None:
        raise LayoutError("a layer profile needs a patch grid: this stream holds text")
    _check(record, layout)
    if max_rows is not None and max_rows < 1:
        raise InputError(f"max_rows must be at least 1, got {max_rows}")
    patches = torch.arange(layout.num_tokens)[layout.patch_slice]
    count = len(patches) if max_rows is None else min(max_rows, len(patches))
    rows = patches[torch.linspace(0, len(patches) - 1, count).round().long()]
    apart = _distances(layout, rows - layout.patch_start)
    measured = [_measure(layer, layout, rows, apart, _real(record, layer, rows)) for layer in record.layers]
    entropy, distance, prefix = (torch.stack(part, dim=1) for part in zip(*measured, strict=True))
    words = "all patches" if count == len(patches) else f"{count} of {len(patches)} patches, evenly spaced"
    return LayerProfile(
        tuple(layer.index for layer in record.layers),
        record.layers[0].heads or tuple(range(record.layers[0].num_heads)),
        entropy,
        distance,
        prefix,
        float(apart.mean()),
        words,
    )


def _check(record: AttentionRecord, layout: TokenLayout) -> None:
    first = record.layers[0]
    for layer in record.layers:
        if layer.kind != "self":
            raise InputError(f"{layer.name} is {layer.kind}-attention: select kind='self' for a profile")
        if layer.num_keys != layout.num_tokens:
            raise InputError(
                f"{layer.name} works on {layer.num_keys} tokens, the layout has {layout.num_tokens}: "
                "a profile needs layers of one size"
            )
        if layer.source.shape[1] != first.source.shape[1]:
            raise InputError(
                f"{layer.name} has {layer.source.shape[1]} heads, {first.name} {first.source.shape[1]}: a "
                "profile needs layers of one size"
            )
        if layer.queries is not None:
            raise InputError(f"{layer.name} kept only some query rows: capture all of them for a profile")


def _measure(
    layer: LayerAttention,
    layout: TokenLayout,
    rows: Tensor,
    apart: Float[Tensor, "query patch"],
    real: Bool[Tensor, "batch query"],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return entropy, distance and prefix share, [batch, head] each, averaged over the rows that are real."""
    sums = [torch.zeros(()), torch.zeros(()), torch.zeros(())]
    blocks = zip(rows.split(_BLOCK), apart.split(_BLOCK), real.split(_BLOCK, dim=1), strict=True)
    for block, steps, counted in blocks:
        weights = layer.weights(queries=block.tolist()).cpu()
        on_patches = weights[..., layout.patch_slice]
        mass = on_patches.sum(dim=-1)
        entropy = torch.special.entr(weights).sum(dim=-1)
        weighted = (on_patches * steps.to(weights.dtype)).sum(dim=-1)
        distance = weighted / torch.where(mass > 0, mass, 1.0)
        prefix = weights[..., : layout.num_prefix_tokens].sum(dim=-1)
        for place, part in enumerate((entropy, distance, prefix)):
            sums[place] = sums[place] + (part * counted[:, None]).sum(dim=-1)
    scale = torch.log(torch.tensor(float(max(layer.num_keys, 2))))
    count = real.sum(dim=1, keepdim=True).clamp(min=1)
    return sums[0] / count / scale, sums[1] / count, sums[2] / count


def _real(record: AttentionRecord, layer: LayerAttention, rows: Tensor) -> Bool[Tensor, "batch query"]:
    """Return which of the rows are no padding, for each item."""
    seen = record.seen.get(layer.stream)
    if seen is None or seen.shape[1] != layer.num_keys:
        return torch.ones(layer.source.shape[0], len(rows), dtype=torch.bool)
    return seen[:, rows].cpu()


def _distances(layout: TokenLayout, patches: Tensor) -> Float[Tensor, "query patch"]:
    """Return the distance from some patches to every patch, in patches."""
    every = torch.arange(layout.num_patches)
    width = (layout.grid or (1, 1))[1]
    place = torch.stack([every // width, every % width], dim=-1).float()
    return torch.cdist(place[patches], place)
