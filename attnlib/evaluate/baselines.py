"""Maps that know nothing: what every number of a real map is compared with."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from attnlib.errors import InputError

__all__ = ["BASELINES", "baseline_maps", "centre_maps", "edge_maps", "random_maps", "uniform_maps"]

BASELINES = ("uniform", "random", "centre", "edges")
"""Names of the baselines: even everywhere, noise, the middle of the picture, contrast of the pixels."""


def uniform_maps(count: int, grid: tuple[int, int]) -> Float[Tensor, "batch height width"]:
    """Return maps with the same value everywhere."""
    return torch.ones(count, *grid)


def random_maps(count: int, grid: tuple[int, int], *, seed: int = 0) -> Float[Tensor, "batch height width"]:
    """Return independent uniform noise; the same seed gives the same maps."""
    return torch.rand(count, *grid, generator=torch.Generator().manual_seed(seed))


def centre_maps(count: int, grid: tuple[int, int]) -> Float[Tensor, "batch height width"]:
    """Return a bell around the middle of the picture, a quarter of its side wide."""
    rows, columns = (((torch.arange(n) + 0.5) / n - 0.5) / 0.25 for n in grid)
    bell = torch.exp(-0.5 * (rows[:, None] ** 2 + columns[None, :] ** 2))
    return bell.expand(count, *grid).clone()


def edge_maps(
    pixels: Float[Tensor, "batch channel rows columns"], grid: tuple[int, int]
) -> Float[Tensor, "batch height width"]:
    """Return the mean strength of brightness edges (Sobel) in every patch."""
    grey = pixels.float().mean(dim=1, keepdim=True)
    kernel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    both = torch.stack([kernel, kernel.T])[:, None].to(grey.device)
    slope = F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), both)
    return F.adaptive_avg_pool2d(slope.norm(dim=1, keepdim=True), grid)[:, 0]


def baseline_maps(
    name: str,
    pixels: Float[Tensor, "batch channel rows columns"],
    grid: tuple[int, int],
    *,
    seed: int = 0,
) -> Float[Tensor, "batch height width"]:
    """Return the maps of a baseline of :data:`BASELINES` for a batch of pictures.

    Raises
    ------
    InputError
        If there is no such baseline.
    """
    if name == "uniform":
        return uniform_maps(len(pixels), grid)
    if name == "random":
        return random_maps(len(pixels), grid, seed=seed)
    if name == "centre":
        return centre_maps(len(pixels), grid)
    if name == "edges":
        return edge_maps(pixels, grid)
    raise InputError(f"unknown baseline {name!r}; there are {list(BASELINES)}")
