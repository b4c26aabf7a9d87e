"""Does the answer change when what the map marks is hidden? Deletion, insertion, Chefer's protocol."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from attnlib.errors import InputError

__all__ = [
    "BLUR",
    "CHEFER_FRACTIONS",
    "Curves",
    "deletion",
    "faithfulness",
    "fill_values",
    "gaussian",
    "insertion",
    "perturb",
]

Scorer = Callable[[Tensor], Tensor]
"""Model input [batch, channel, rows, columns] in; the score of each item's own target out, [batch]."""
BLUR = 0.06
"""A hidden part is blurred by this fraction of the shorter side: letters and faces are gone, colours stay."""
FRACTIONS = (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
CHEFER_FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of hidden pixels in the published protocol."""


@dataclass(frozen=True, eq=False)
class Curves:
    """How the score goes down or up while patches are hidden or shown.

    Parameters
    ----------
    fractions : share of patches that were changed, one per step.
    scores : [batch, step].
    """

    fractions: tuple[float, ...]
    scores: Float[Tensor, "batch step"]

    @property
    def area(self) -> Float[Tensor, "batch"]:
        """Area under each curve (trapezoids), divided by the width: the mean score on the way."""
        at = torch.tensor(self.fractions, dtype=self.scores.dtype)
        return torch.trapezoid(self.scores, at, dim=1) / (at[-1] - at[0])


def fill_values(inputs: Float[Tensor, "batch channel rows columns"], fill: str | float) -> Tensor:
    """Return what hidden pixels are replaced by, shaped like the inputs.

    Parameters
    ----------
    inputs : the model's input.
    fill : "mean" (the picture's own mean colour), "blur" (a Gaussian blur by :data:`BLUR`), or a number in
        the model's own scale (the published protocol uses black pixels before normalising).

    Raises
    ------
    InputError
        If the name is unknown.
    """
    if isinstance(fill, (int, float)) and math.isfinite(fill):
        return torch.full_like(inputs, float(fill))
    if fill == "mean":
        return inputs.mean(dim=(-2, -1), keepdim=True).expand_as(inputs)
    if fill == "blur":
        return gaussian(inputs.float(), max(2.0, BLUR * min(inputs.shape[-2:]))).to(inputs)
    raise InputError(f"fill must be 'mean', 'blur' or a number, got {fill!r}")


def gaussian(
    values: Float[Tensor, "batch channel rows columns"], radius: float
) -> Float[Tensor, "batch channel rows columns"]:
    """Return the values blurred by a Gaussian of standard deviation ``radius``; the border is repeated."""
    reach = max(1, round(3 * radius))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=values.dtype) / radius) ** 2)
    kernel = (kernel / kernel.sum()).to(values.device)
    channels = values.shape[1]
    for shape, pad in (((1, 1, -1, 1), (0, 0, reach, reach)), ((1, 1, 1, -1), (reach, reach, 0, 0))):
        weight = kernel.reshape(shape).expand(channels, 1, -1, -1)
        values = F.conv2d(F.pad(values, pad, mode="replicate"), weight, groups=channels)
    return values


@torch.no_grad()
def perturb(
    score: Scorer,
    inputs: Float[Tensor, "batch channel rows columns"],
    maps: Float[Tensor, "batch height width"],
    *,
    order: str = "highest",
    fill: str | float = "mean",
    fractions: Sequence[float] = FRACTIONS,
    patch_size: tuple[int, int] | None = None,
    seed: int = 0,
) -> Curves:
    """Hide patches in the order of the map and score what is left.

    Patches that tie are hidden in a seeded random order, so a constant map does as well as chance.

    Parameters
    ----------
    score : the model, see :data:`Scorer`; called once per fraction, without gradients.
    inputs : the model's input.
    maps : one map per item.
    order : "highest" hides the highest patches first, "lowest" the lowest.
    fill : what replaces hidden pixels, see :func:`fill_values`.
    fractions : shares of the patches that are hidden; increasing, in 0..1.
    patch_size : pixels of a patch, where the grid leaves a rest at the right or bottom that the model
        does not see; if omitted, the grid covers the whole input.
    seed : breaks the ties.

    Raises
    ------
    InputError
        If shapes, order, fill or fractions cannot be used, or there is not one score per item.
    """
    steps = _steps(fractions)
    if order not in ("highest", "lowest"):
        raise InputError(f"order must be 'highest' or 'lowest', got {order!r}")
    if inputs.dim() != 4 or maps.dim() != 3:
        raise InputError(
            "inputs must be [batch, channel, rows, columns] and maps [batch, height, width], got "
            f"{list(inputs.shape)} and {list(maps.shape)}"
        )
    if len(maps) != len(inputs):
        raise InputError(f"{len(inputs)} inputs came with {len(maps)} maps")
    if not bool(torch.isfinite(maps).all()):
        raise InputError("the maps hold values that are not finite: they give no order of patches")
    rank = _ranks(maps if order == "highest" else -maps, seed)
    count = rank[0].numel()
    filled = fill_values(inputs, fill)
    scores = []
    for fraction in steps:
        hidden = (rank < round(fraction * count)).to(inputs.dtype)
        hidden = _enlarged(hidden, (inputs.shape[-2], inputs.shape[-1]), patch_size)
        found = score(inputs * (1 - hidden) + filled * hidden).detach().float()
        if found.shape != (len(inputs),):
            raise InputError(
                f"the score must be one number per item, [{len(inputs)}], got {list(found.shape)}"
            )
        scores.append(found)
    return Curves(steps, torch.stack(scores, dim=1))


def deletion(score: Scorer, inputs: Tensor, maps: Tensor, **options: object) -> Curves:
    """Hide the highest patches first; a low area says that the map found what the score needs [1]_.

    This is also Chefer's *positive* perturbation [2]_ when ``fractions`` are
    :data:`CHEFER_FRACTIONS`, ``fill`` is black and ``score`` says whether the class is still on top.

    References
    ----------
    .. [1] Petsiuk, Das & Saenko, "RISE", BMVC 2018, arXiv:1806.07421.
    .. [2] Chefer, Gur & Wolf, "Transformer Interpretability Beyond Attention Visualization", CVPR 2021,
       arXiv:2012.09838. There the map is enlarged first and single pixels are hidden; here patches. Their
       area is over the share of pictures whose class stays on top; it is not divided by the width 0.8.
    """
    return perturb(score, inputs, maps, order="highest", **options)  # type: ignore[arg-type]


def insertion(score: Scorer, inputs: Tensor, maps: Tensor, **options: object) -> Curves:
    """Hide the lowest patches first; a high area says that the map's peak is enough for the score.

    Read from the right it is RISE's insertion (the picture comes back, highest patches first): the
    curve is the same, so is its area. It is also Chefer's *negative* perturbation; see :func:`deletion`.
    """
    return perturb(score, inputs, maps, order="lowest", **options)  # type: ignore[arg-type]


def faithfulness(score: Scorer, inputs: Tensor, maps: Tensor, **options: object) -> Float[Tensor, "batch"]:
    """Return insertion area minus deletion area: above 0 if the map ranks patches better than chance.

    A constant map has 0 in the mean, because both of its orders are random.
    """
    return insertion(score, inputs, maps, **options).area - deletion(score, inputs, maps, **options).area


def _steps(fractions: Sequence[float]) -> tuple[float, ...]:
    """Return the shares that are hidden, checked."""
    try:
        steps = tuple(float(f) for f in fractions)
    except (TypeError, ValueError):
        steps = ()
    if len(steps) < 2 or not 0 <= steps[0] < steps[-1] <= 1 or sorted(set(steps)) != list(steps):
        raise InputError(f"fractions must be at least two, increasing and in 0..1, got {fractions!r}")
    return steps


def _enlarged(hidden: Tensor, size: tuple[int, int], patch_size: tuple[int, int] | None) -> Tensor:
    """Return a patch mask [batch, height, width] in pixels, [batch, 1, rows, columns]."""
    if patch_size is None:
        return F.interpolate(hidden[:, None], size=size, mode="nearest")
    pixels = hidden.repeat_interleave(patch_size[0], 1).repeat_interleave(patch_size[1], 2)
    rest = (0, size[1] - pixels.shape[2], 0, size[0] - pixels.shape[1])
    if min(rest) < 0:
        raise InputError(
            f"a grid of {list(hidden.shape[1:])} patches of {patch_size} exceeds the input {size}"
        )
    return F.pad(pixels, rest)[:, None]


def _ranks(maps: Tensor, seed: int) -> Tensor:
    """Return the place of each patch, highest first; ties in random order."""
    flat = maps.flatten(1)
    shuffle = torch.rand(flat.shape, generator=torch.Generator().manual_seed(seed)).argsort(dim=1)
    order = flat.gather(1, shuffle).argsort(dim=1, descending=True, stable=True)
    order = shuffle.gather(1, order)
    return order.argsort(dim=1).reshape(maps.shape)
