"""The numbers of each region: share, area, lift, band, peak, negative part, rank among windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attnlib.bands import BAND_NAMES, Bands, band_map, ranks_within
from attnlib.errors import InputError, LayoutError
from attnlib.interpretation.wording import band_of
from attnlib.record import Relevance
from attnlib.regions import Region, Regions

__all__ = ["MapNumbers", "RegionNumbers", "measure_map", "measure_region", "one_item", "window_rank"]

_ATTENTION_METHODS = ("given", "raw", "rollout", "flow")  # all others weigh attention by something else


@dataclass(frozen=True)
class RegionNumbers:
    """How much of a map falls on a region.

    Parameters
    ----------
    region, kind, source, confidence, part_of : of the region.
    share : share of the mass: the positive part over the patches seen, identity subtracted.
    area : the region's share of the patches seen.
    lift : share / area, in multiples of the even share; 0 where the model saw nothing of the region.
    band : "minimal", "low", "moderate" or "highest", of the lift (of the mean rank for ``scale="mass"``).
    peak : lift of its strongest patch (of the patches that it covers by half at least, if any).
    peak_at : (row, column) of that patch.
    negative : its share of the negative part; None if the map has none.
    rank, windows : place of its share among the windows of the same size and shape, 1 = most, and
        how many there are; None where it fits only once.
    """

    region: str
    kind: str
    source: str
    share: float
    area: float
    lift: float
    band: str
    peak: float
    peak_at: tuple[int, int] | None
    confidence: float | None = None
    part_of: str | None = None
    negative: float | None = None
    rank: int | None = None
    windows: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class MapNumbers:
    """What holds for the whole map of one picture.

    Parameters
    ----------
    share, lift : per patch, identity subtracted.
    bands : the bands of these numbers.
    graded : the values that were cut into bands: lifts, or ranks for ``scale="mass"``.
    seen : 1 for patches of the picture, 0 for padding.
    patches : number of patches seen.
    prefix_share : share of all positive mass on tokens other than patches.
    identity_share : share of the positive patch mass that only stems from the start of the method.
    negative_share : negative part / (positive + negative part), over the patches.
    effective_share : exp(entropy) / N.
    outside : share of the mass on patches beyond the picture (the model's own padding of the picture).
    noun : what the mass is called: "attention", or "relevance" for methods that compute more than that.
    """

    share: Float[Tensor, "height width"]
    lift: Float[Tensor, "height width"]
    bands: Bands
    graded: Float[Tensor, "height width"]
    seen: Float[Tensor, "height width"]
    patches: int
    prefix_share: float
    identity_share: float
    negative_share: float
    effective_share: float
    outside: float = 0.0
    noun: str = "attention"

    @property
    def empty(self) -> bool:
        """Whether nothing in the map is positive."""
        return float(self.share.sum()) <= 0

    @property
    def flat(self) -> bool:
        """Whether no patch reaches the moderate band."""
        return not bool((self.bands.labels >= 2).any())

    @property
    def top(self) -> tuple[int, int]:
        """(row, column) of the strongest patch."""
        row, column = divmod(int(self.lift.argmax()), self.lift.shape[1])
        return row, column

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values, without the maps."""
        return {
            "grid": list(self.share.shape),
            "noun": self.noun,
            "patches": self.patches,
            "scale": self.bands.scale,
            "cuts": list(self.bands.cuts),
            "red_from": self.bands.red_from,
            "bands": [
                {"band": name, "share": float(self.bands.share[0, i]), "area": float(self.bands.area[0, i])}
                for i, name in enumerate(BAND_NAMES)
            ],
            "highest_lift": float(self.lift.max()),
            "prefix_share": self.prefix_share,
            "identity_share": self.identity_share,
            "negative_share": self.negative_share,
            "effective_share": self.effective_share,
            "outside_share": self.outside,
        }


def one_item(relevance: Relevance, index: int | None) -> Relevance:
    """Return the relevance of one picture of the batch, still with its batch axis.

    Raises
    ------
    InputError
        If there are several items and none was chosen, the chosen one does not exist, or there is one map
        per query.
    LayoutError
        If the relevance is over text.
    """
    if relevance.scores.dim() != 2:
        raise InputError("a text is written for one map: choose one query instead of 'all'")
    if relevance.layout.grid is None:
        raise LayoutError("this relevance is over text tokens: named parts need a map over patches")
    size = relevance.batch_size
    if index is None and size != 1:
        raise InputError(f"the relevance holds {size} pictures: choose one with index=0..{size - 1}")
    one = relevance.item(index or 0)
    identity = None if one.identity is None else one.identity.detach()
    return replace(one, scores=one.scores.detach(), identity=identity)


def measure_map(relevance: Relevance, band_options: Mapping[str, Any]) -> MapNumbers:
    """Measure the map of one picture (see :func:`one_item`)."""
    bands = band_map(relevance, without_identity=True, **band_options)
    share = relevance.share(without_identity=True)[0].double()
    seen = relevance.patches_seen()[0].to(share.dtype)
    heat = relevance.heatmap()[0].double() * seen
    positive = float(relevance.positive(without_identity=True)[0].double().sum())
    negative = float((-heat).clamp(min=0).sum())
    lift = share * seen.sum()
    entropy = torch.special.entr(share).sum()
    return MapNumbers(
        share=share,
        lift=lift,
        bands=bands,
        graded=lift if bands.scale == "lift" else ranks_within(share[None], seen[None] > 0)[0],
        seen=seen,
        patches=int(seen.sum()),
        prefix_share=float(relevance.without_identity().prefix_share()[0]),
        identity_share=float(relevance.identity_share()[0]),
        negative_share=negative / (negative + positive) if negative + positive > 0 else 0.0,
        effective_share=float(entropy.exp() / seen.sum()) if share.sum() > 0 else 0.0,
        noun="attention" if relevance.method in _ATTENTION_METHODS else "relevance",
    )


def measure_region(
    region: Region, cover: Float[Tensor, "height width"], numbers: MapNumbers, heat: Tensor
) -> RegionNumbers:
    """Measure one region.

    Parameters
    ----------
    region : what is measured.
    cover : fraction of every patch that it covers.
    numbers : of the whole map.
    heat : signed scores over the patches, for the negative part.
    """
    cover = cover.double() * numbers.seen
    share, area = float((numbers.share * cover).sum()), float(cover.sum() / numbers.seen.sum())
    lift = round(share / area, 6) if area > 0 else 0.0  # a tie with a cut is no matter of rounding
    graded = lift
    if numbers.bands.scale != "lift":
        graded = float((numbers.graded * cover).sum() / cover.sum()) if area > 0 else 0.0
    reach = min(0.5, float(cover.max()))
    inside = torch.where(cover >= max(reach, 1e-9), numbers.lift, -1.0)
    peak_at = divmod(int(inside.argmax()), inside.shape[1]) if area > 0 else None
    below = (-heat.double()).clamp(min=0) * numbers.seen
    rank, windows = window_rank(numbers.share, cover) if area > 0 else (None, None)
    return RegionNumbers(
        region=region.name,
        kind=region.kind,
        source=region.source,
        share=share,
        area=area,
        lift=lift,
        band=BAND_NAMES[band_of(graded, numbers.bands.cuts)],
        peak=float(inside.max()) if area > 0 else 0.0,
        peak_at=None if peak_at is None else (int(peak_at[0]), int(peak_at[1])),
        confidence=region.confidence,
        part_of=region.part_of,
        negative=float((below * cover).sum() / below.sum()) if float(below.sum()) > 0 else None,
        rank=rank,
        windows=windows,
    )


def window_rank(
    share: Float[Tensor, "height width"], cover: Float[Tensor, "height width"]
) -> tuple[int | None, int | None]:
    """Return the place of a region among the windows of its size and shape, and how many there are.

    The pattern of patches that the region covers is laid at every place of the grid where it fits;
    a window counts as higher if it holds more mass by more than rounding.
    """
    rows, columns = torch.nonzero(cover.any(dim=1)).flatten(), torch.nonzero(cover.any(dim=0)).flatten()
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    pattern = cover[top:bottom, left:right]
    sums = torch.nn.functional.conv2d(share[None, None], pattern[None, None])[0, 0]
    if sums.numel() <= 1:
        return None, None
    return int((sums > sums[top, left] + 1e-9).sum()) + 1, sums.numel()


def covers(regions: Regions, relevance: Relevance) -> Float[Tensor, "region height width"]:
    """Return which fraction of every patch each region covers, for a relevance of one picture."""
    return regions.on_maps(relevance)[0].double()
