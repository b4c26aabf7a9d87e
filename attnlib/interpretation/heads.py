"""Spread: how much the heads differ, for raw attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attnlib.interpretation.remake import MapMaker
from attnlib.interpretation.wording import spoken_range
from attnlib.record import AttentionRecord
from attnlib.regions import Region, Regions

__all__ = ["Spread", "head_spread"]


@dataclass(frozen=True)
class Spread:
    """The middle 80 % of the shares that single heads give to a region.

    Parameters
    ----------
    low, high : 10th and 90th percentile over the heads.
    heads : number of heads.
    """

    low: float
    high: float
    heads: int

    def sentence(self) -> str:
        """Say the spread."""
        return (
            f"Spread over {self.heads} heads (10th to 90th percentile): {spoken_range(self.low, self.high)}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return {"low": self.low, "high": self.high, "heads": self.heads}


def head_spread(
    regions: Sequence[Region], size: tuple[int, int], record: AttentionRecord, make: MapMaker
) -> dict[str, Spread]:
    """Make the raw attention of every head by itself and measure the regions; empty for a single head."""
    held = Regions(tuple(regions), size)
    heads = min(layer.num_heads for layer in record.layers)
    asked = make.options.get("heads")
    chosen = list(range(heads)) if asked is None else [asked] if isinstance(asked, int) else list(asked)
    if len(chosen) < 2:
        return {}
    found: dict[str, list[float]] = {region.name: [] for region in regions}
    for head in chosen:
        for name, values in held.shares(make.explained(record, heads=[head])).items():
            found[name].append(float(values["share"][0]))
    return {
        name: Spread(*(float(q) for q in np.quantile(shares, (0.1, 0.9))), heads=len(chosen))
        for name, shares in found.items()
    }
