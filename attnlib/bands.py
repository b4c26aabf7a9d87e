"""Bands: multiples of the even share, cut into four bands a person can read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attnlib.errors import InputError
from attnlib.record import Relevance

__all__ = [
    "ARTIFACT_LIFT",
    "BAND_NAMES",
    "LIFT_CUTS",
    "MASS_CUTS",
    "RED_LIFT",
    "RED_MASS",
    "SHADES",
    "Bands",
    "band_map",
    "percent",
    "ranks_within",
]

BAND_NAMES = ("minimal", "low", "moderate", "highest")
"""Band names by label 0..3: transparent, blue, green, yellow and red."""
LIFT_CUTS = (0.5, 1.5, 3.0)
"""Multiples of the even share at which low, moderate and highest begin."""
RED_LIFT = 6.0
"""Multiple of the even share from which the highest band is drawn red instead of yellow."""
SHADES = ("minimal", "low", "moderate", "highest, lower part", "highest, upper part")
"""What is drawn, by shade 0..4: the highest band has a yellow and a red shade."""
ARTIFACT_LIFT = 20.0
"""Multiple of the even share from which a single patch may be an artifact, and the reader is told so."""
MASS_CUTS = (0.5, 0.75, 0.9)
"""For ``scale="mass"``: fractions of the patches, by rank, below low, moderate and highest."""
RED_MASS = 0.97
"""For ``scale="mass"``: rank from which the highest band is drawn red instead of yellow."""


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
    red_from : where the red shade of the highest band begins, on the scale of the cuts.
    shades : the labels with the highest band split: 3 yellow, 4 red.
    shade_share, shade_area : as ``share`` and ``area``, for the five shades.
    """

    labels: Int[Tensor, "batch height width"]
    lift: Float[Tensor, "batch height width"]
    cuts: tuple[float, float, float]
    scale: str
    share: Float[Tensor, "batch band"]
    area: Float[Tensor, "batch band"]
    red_from: float
    shades: Int[Tensor, "batch height width"]
    shade_share: Float[Tensor, "batch shade"]
    shade_area: Float[Tensor, "batch shade"]

    @property
    def stands_out(self) -> Tensor:
        """Whether any patch of an item reaches the moderate band, [batch]."""
        return (self.labels >= 2).flatten(1).any(dim=1)

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """(from, to) of each of the five shades on the scale of the cuts; the last has no upper end."""
        edges = (0.0, *self.cuts, self.red_from, inf)
        return tuple(pairwise(edges))

    def __repr__(self) -> str:
        batch, height, width = self.labels.shape
        areas = [
            ", ".join(f"{name} {percent(area)}" for name, area in zip(BAND_NAMES, one, strict=True))
            for one in self.area
        ]
        of = f"of {height}x{width} patches by {self.scale}"
        return f"Bands({of}: {areas[0]})" if batch == 1 else f"Bands({batch} maps {of}; {'; '.join(areas)})"


def band_map(
    relevance: Relevance,
    *,
    scale: str = "lift",
    cuts: Iterable[float | int] | None = None,
    without_identity: bool = True,
) -> Bands:
    """Cut a relevance into four bands.

    Parameters
    ----------
    relevance : a map over patches.
    scale : "lift" cuts multiples of the even share 1/N, which mean the same for every picture, layer
        and model. "mass" cuts ranks within this picture: the same share of patches is always red, even
        in a flat map, so label it "rank within this picture".
    cuts : where low, moderate and highest begin, and where highest turns from yellow to red if a fourth is
        given; :data:`LIFT_CUTS` or :data:`MASS_CUTS`, and :data:`RED_LIFT` or :data:`RED_MASS` if omitted.
    without_identity : first set aside what stands there only because a method starts from the query
        itself; the interpretation does the same.

    Raises
    ------
    InputError
        If the scale is unknown, the cuts do not increase, or a score is not finite.
    """
    if scale not in ("lift", "mass"):
        raise InputError(f"scale must be 'lift' or 'mass', got {scale!r}")
    if relevance.scores.dim() != 2:
        raise InputError("bands need one map per item: choose one query instead of 'all'")
    edges, red_from = _edges(cuts, *((LIFT_CUTS, RED_LIFT) if scale == "lift" else (MASS_CUTS, RED_MASS)))
    if scale == "mass" and edges[2] >= 1:
        raise InputError(f"cuts by rank are fractions below 1, got {cuts!r}")
    if not bool(torch.isfinite(relevance.scores).all()):
        raise InputError("the scores hold NaN or infinity: no band can be given to them")
    share = relevance.share(without_identity=without_identity)
    lift = relevance.lift(without_identity=without_identity)
    seen = relevance.patches_seen()
    graded = lift if scale == "lift" else ranks_within(share, seen)
    labels = _grade(graded, edges)
    shades = _grade(graded, (*edges, red_from))
    labels, shades = (torch.where(seen, grade, 0) for grade in (labels, shades))
    mass, area = _totals(labels, 4, share, seen)
    shade_mass, shade_area = _totals(shades, 5, share, seen)
    return Bands(
        labels=labels,
        lift=lift,
        cuts=edges,
        scale=scale,
        share=mass,
        area=area,
        red_from=red_from,
        shades=shades,
        shade_share=shade_mass,
        shade_area=shade_area,
    )


def percent(share: float | int | Tensor) -> str:
    """Write a share in percent, with one decimal; what would read 0.0 or 100.0 but is not, says so.

    Examples
    --------
    >>> percent(0.1234), percent(0.0002), percent(0.0), percent(0.9999)
    ('12.3 %', 'under 0.1 %', '0 %', 'over 99.9 %')
    """
    share = float(share)
    if share <= 0:
        return "0 %"
    if share < 0.0005:
        return "under 0.1 %"
    if 0.9995 <= share < 0.999999:
        return "over 99.9 %"
    return f"{100 * share:.1f} %".replace("100.0 %", "100 %")


def _edges(
    cuts: Iterable[float | int] | None, default: tuple[float, float, float], red: float
) -> tuple[tuple[float, float, float], float]:
    """Return the three cuts, and where red begins."""
    if cuts is None:
        return default, red
    rule = f"cuts must be three increasing numbers above 0 (a fourth: where red begins), got {cuts!r}"
    try:
        low, moderate, highest, *further = (float(cut) for cut in cuts)
    except (TypeError, ValueError):
        raise InputError(rule) from None
    red_from = further[0] if further else max(red, highest)
    if not 0 < low < moderate < highest <= red_from < inf or len(further) > 1:
        raise InputError(rule)
    return (low, moderate, highest), red_from


def _grade(values: Tensor, edges: Sequence[float]) -> Tensor:
    """Return how many edges each value reaches (a value on an edge belongs to the upper side)."""
    steps = torch.tensor(edges, dtype=values.dtype, device=values.device)
    return torch.bucketize(values.contiguous(), steps, right=True)


def _totals(labels: Tensor, count: int, share: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Return mass and area of each label, [batch, label]."""
    members = torch.stack([labels == label for label in range(count)], dim=1) & seen[:, None]
    patches = seen.sum(dim=(-2, -1)).clamp(min=1)[:, None].to(share.dtype)
    return (members * share[:, None]).sum(dim=(-2, -1)), members.sum(dim=(-2, -1)) / patches


def ranks_within(
    share: Float[Tensor, "batch height width"], seen: Bool[Tensor, "batch height width"]
) -> Float[Tensor, "batch height width"]:
    """Return for each patch the fraction of the seen patches of its picture below it; ties share a rank."""
    flat = share.masked_fill(~seen, torch.inf).flatten(1)
    ordered = flat.sort(dim=1).values
    count = seen.flatten(1).sum(dim=1, keepdim=True).clamp(min=1)
    below = torch.searchsorted(ordered, flat)
    return (below.to(share.dtype) / count.to(share.dtype)).reshape(share.shape)
