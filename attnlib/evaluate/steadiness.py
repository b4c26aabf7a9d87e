"""Does the map stay when the picture hardly changes? And do the heads agree?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from attnlib.errors import InputError
from attnlib.evaluate.randomisation import similarity

__all__ = ["head_agreement", "noisy_copies", "relative_change", "sensitivity", "stability"]


def noisy_copies(inputs: Tensor, *, radius: float, samples: int, seed: int) -> list[Tensor]:
    """Return copies of the input with uniform noise of at most ``radius`` parts of its whole range."""
    if samples < 1:
        raise InputError(f"samples must be at least 1, got {samples}")
    generator = torch.Generator().manual_seed(seed)
    spread = float(inputs.max() - inputs.min())
    return [
        inputs + radius * spread * (torch.rand(inputs.shape, generator=generator) * 2 - 1).to(inputs)
        for _ in range(samples)
    ]


def relative_change(original: Tensor, others: Sequence[Tensor]) -> Float[Tensor, "batch"]:
    """Return the largest change of the map in parts of its own size; NaN for a map that is 0 everywhere."""
    flat = original.flatten(1)
    norm = flat.norm(dim=1)
    scale = norm.where(norm > 0, torch.full_like(norm, float("nan")))
    return torch.stack([(other.flatten(1) - flat).norm(dim=1) / scale for other in others]).amax(dim=0)


def stability(
    maps_of: Callable[[Tensor], Tensor],
    inputs: Float[Tensor, "batch channel rows columns"],
    *,
    radius: float = 0.02,
    samples: int = 3,
    seed: int = 0,
) -> Float[Tensor, "batch"]:
    """Return the mean rank correlation of the map with those of slightly noisy copies of the picture.

    Parameters
    ----------
    maps_of : model input in, maps [batch, height, width] out.
    inputs : the model input.
    radius : largest change of a pixel, in parts of the input's whole range (0.02: five grey levels).
    samples : number of noisy copies.
    seed : of the noise.

    Notes
    -----
    A constant map wins: it has 1. Stability alone is no merit; read it beside the other numbers.
    """
    copies = noisy_copies(inputs, radius=radius, samples=samples, seed=seed)
    original = maps_of(inputs)
    return torch.stack([similarity(original, maps_of(copy)) for copy in copies]).mean(dim=0)


def sensitivity(
    maps_of: Callable[[Tensor], Tensor],
    inputs: Float[Tensor, "batch channel rows columns"],
    *,
    radius: float = 0.02,
    samples: int = 3,
    seed: int = 0,
) -> Float[Tensor, "batch"]:
    r"""Return the largest relative change of the map under small changes of the picture [1]_.

    .. math:: \max_i \lVert m(x + \delta_i) - m(x) \rVert_2 / \lVert m(x) \rVert_2

    Parameters
    ----------
    maps_of, inputs, radius, samples, seed : as for :func:`stability`.

    Notes
    -----
    A constant map wins: it has 0. A map that is 0 everywhere has no size to compare with: NaN.

    References
    ----------
    .. [1] Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019,
       arXiv:1901.09392. There the norm is not divided by that of the map (captum divides).
    """
    copies = noisy_copies(inputs, radius=radius, samples=samples, seed=seed)
    return relative_change(maps_of(inputs), [maps_of(copy) for copy in copies])


def head_agreement(maps: Float[Tensor, "batch head height width"]) -> Float[Tensor, "batch"]:
    """Return the mean rank correlation of the maps of all pairs of heads.

    1: all heads say the same, so their mean loses nothing. Near 0: the mean is a blend of unrelated
    maps. Heads that are constant agree with one another, so constant maps win.

    Raises
    ------
    InputError
        If there is only one head, or no axis of heads.
    """
    if maps.dim() != 4:
        raise InputError(f"maps must be [batch, head, height, width], got {list(maps.shape)}")
    heads = maps.shape[1]
    if heads < 2:
        raise InputError("agreement needs at least two heads")
    pairs = [
        similarity(maps[:, first], maps[:, second])
        for first in range(heads)
        for second in range(first + 1, heads)
    ]
    return torch.stack(pairs).mean(dim=0)
