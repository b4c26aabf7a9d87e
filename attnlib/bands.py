"""Bands: multiples of the even share, cut into four bands a person can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attnlib.errors import InputError
from attnlib.record import Relevance

__all__ = ["BAND_NAMES", "LIFT_CUTS", "MASS_CUTS", "RED_LIFT", "Bands", "band_map"]

BAND_NAMES = ("minimal", "low", "moderate", "highest")
"""Band names by label 0..3: transparent, blue, green, yellow and red."""
LIFT_CUTS = (0.5, 1.5, 3.0)
"""Multiples of the even share at which low, moderate and highest begin."""
RED_LIFT = 6.0
"""Multiple of the even share from which the highest band is drawn red instead of yellow."""
MASS_CUTS = (0.5, 0.75, 0.9)
"""For ``scale="mass"``: fractions of the patches, by rank, below low, moderate and highest."""


@dataclass(frozen=True, eq=False)
class Bands:
    """Which patch is in which band.

    Parameters
    ----------
    labels : 0 minimal, 1 low, 2 moderate, 3 highest.
    lift : multiples of the even share, the numbers behind the labels.
    cuts : where low, moderate and highest begin.
    scale : "lift" (absolute) or "mass" (rank within this picture).
    share : share of mass in each band, minimal first; sums to 1 (or 0 for an empty map).
    area : share of the seen patches in each band; sums to 1.
    """

    labels: Int[Tensor, "batch height width"]
    lift: Float[Tensor, "batch height width"]
    cuts: tuple[float, float, float]
    scale: str
    share: Float[Tensor, "batch band"]
    area: Float[Tensor, "batch band"]

    @property
    def stands_out(self) -> Tensor:
        """Whether any patch of an item reaches the moderate band, [batch]."""
        return (self.labels >= 2).flatten(1).any(dim=1)


def band_map(
    relevance: Relevance,
    *,
    scale: str = "lift",
    cuts: Sequence[float] | None = None,
    without_identity: bool = False,
) -> Bands:
    """Cut a relevance into four bands.

    Parameters
    ----------
    relevance : a map over patches.
    scale : "lift" cuts multiples of the even share 1/N, which mean the same for every picture, layer
        and model. "mass" cuts ranks within this picture: the same share of patches is always red, even
        in a flat map, so label it "rank within this picture".
    cuts : where low, moderate and highest begin; :data:`LIFT_CUTS` or :data:`MASS_CUTS` if omitted.
    without_identity : subtract the part a method starts from first.

    Raises
    ------
    InputError
        If the scale is unknown or the cuts do not increase.
    """
    if scale not in ("lift", "mass"):
        raise InputError(f"scale must be 'lift' or 'mass', got {scale!r}")
    if relevance.scores.dim() != 2:
        raise InputError("bands need one map per item: choose one query instead of 'all'")
    edges = tuple(float(c) for c in (cuts or (LIFT_CUTS if scale == "lift" else MASS_CUTS)))
    if len(edges) != 3 or not 0 < edges[0] < edges[1] < edges[2]:
        raise InputError(f"cuts must be three increasing numbers above 0, got {cuts!r}")
    if scale == "mass" and edges[2] >= 1:
        raise InputError(f"cuts by rank are fractions below 1, got {cuts!r}")
    share = relevance.share(without_identity=without_identity)
    lift = relevance.lift(without_identity=without_identity)
    graded = lift if scale == "lift" else _ranks(share)
    labels = torch.bucketize(graded, torch.tensor(edges, dtype=graded.dtype), right=True)
    seen = torch.ones_like(share)
    if relevance.seen is not None:
        seen = relevance.seen[:, relevance.layout.patch_slice].reshape(share.shape).to(share.dtype)
    members = torch.stack([(labels == band) for band in range(4)], dim=1)
    return Bands(
        labels=labels,
        lift=lift,
        cuts=(edges[0], edges[1], edges[2]),
        scale=scale,
        share=(members * share[:, None]).sum(dim=(-2, -1)),
        area=(members * seen[:, None]).sum(dim=(-2, -1)) / seen.sum(dim=(-2, -1))[:, None].clamp(min=1),
    )


def _ranks(share: Tensor) -> Tensor:
    """Return for each patch the fraction of patches with a strictly smaller share (ties share a rank)."""
    flat = share.flatten(1)
    ordered = flat.sort(dim=1).values
    return (torch.searchsorted(ordered, flat) / flat.shape[1]).to(share.dtype).reshape(share.shape)
