"""Regions: named parts of a picture, and how much of a map falls on each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from attnlib.errors import InputError
from attnlib.record import Relevance

__all__ = ["Region", "Regions"]


@dataclass(frozen=True, eq=False)
class Region:
    """A named part of the picture.

    Parameters
    ----------
    name : what a reader would call it, such as 'the words "A LIFE"' or "mouth and chin".
    mask : how much of each pixel belongs to it, 0..1, [height, width] of the original picture.
    kind : "text", "face", "face part", "box", "mask", "position" or "background".
    source : who found it, such as "rapidocr", "given".
    confidence : the finder's own confidence, 0..1, if it has one.
    details : further facts, such as the words read.
    """

    name: str
    mask: np.ndarray
    kind: str = "mask"
    source: str = "given"
    confidence: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def area(self) -> float:
        """Share of the picture's pixels."""
        return float(self.mask.mean())

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) in pixels, right and bottom exclusive."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        if rows.size == 0:
            return 0, 0, 0, 0
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@dataclass(frozen=True, eq=False)
class Regions:
    """Named regions of one picture, and what was tried to find them.

    Parameters
    ----------
    items : the regions, most specific first.
    size : (height, width) of the picture in pixels.
    notes : what each finder did: found nothing, was unsure, failed, is not installed.
    """

    items: tuple[Region, ...]
    size: tuple[int, int]
    notes: tuple[str, ...] = ()

    @classmethod
    def from_masks(cls, masks: Mapping[str, Any]) -> Regions:
        """Make regions from named masks of one size (boolean, 0..1, or 0..255)."""
        if not masks:
            raise InputError("from_masks got no mask: give {name: [height, width] array}")
        items, sizes = [], {}
        for name, mask in masks.items():
            array = np.asarray(mask)
            if array.ndim != 2:
                raise InputError(f"the mask {name!r} must be [height, width], got {array.shape}")
            sizes[name] = array.shape
            array = array.astype(np.float32)
            items.append(Region(name, array / 255 if array.max(initial=0) > 1 else array))
        if len(set(sizes.values())) > 1:
            raise InputError(f"the masks differ in size: {sizes}")
        return cls(tuple(items), next(iter(sizes.values())))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the regions."""
        return tuple(region.name for region in self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Region]:
        return iter(self.items)

    def __getitem__(self, key: int | str) -> Region:
        if isinstance(key, int):
            return self.items[key]
        for region in self.items:
            if region.name == key:
                return region
        raise InputError(f"no region {key!r}; there are {list(self.names)}")

    def on_grid(
        self, grid: tuple[int, int], window: tuple[float, float, float, float] | None = None
    ) -> Float[Tensor, "region height width"]:
        """Return for each region the fraction of every patch that it covers (straddling is shared by area).

        Parameters
        ----------
        grid : (height, width) in patches.
        window : (left, top, right, bottom) of the original picture, in pixels, that the grid covers;
            the whole picture if omitted.
        """
        height, width = self.size
        left, top, right, bottom = window or (0.0, 0.0, float(width), float(height))
        rows = _overlap(np.linspace(top, bottom, grid[0] + 1), height)
        columns = _overlap(np.linspace(left, right, grid[1] + 1), width)
        patches = [rows @ region.mask.astype(np.float64) @ columns.T for region in self.items]
        return torch.from_numpy(np.stack(patches)).to(torch.float32)

    def shares(
        self, relevance: Relevance, *, window: tuple[float, float, float, float] | None = None
    ) -> dict[str, dict[str, Tensor]]:
        """Return share of mass, share of area and lift of each region, one value per item.

        Regions may overlap, so the shares of several regions may sum to more than 1.
        """
        if relevance.layout.grid is None:
            raise InputError("regions need a map over patches")
        covered = self.on_grid(relevance.layout.grid, window).to(relevance.scores.dtype)
        share = relevance.share(without_identity=True)
        result = {}
        for name, patches in zip(self.names, covered, strict=True):
            mass, area = (share * patches).sum(dim=(-2, -1)), patches.mean()
            lift = mass / area if float(area) > 0 else torch.zeros_like(mass)
            result[name] = {"share": mass, "area": area.expand_as(mass), "lift": lift}
        return result


def _overlap(edges: np.ndarray, length: int) -> np.ndarray:
    """Return [cell, pixel]: the fraction of each cell that each pixel covers."""
    start, stop = edges[:-1, None], edges[1:, None]
    pixel = np.arange(length)[None, :]
    covered = np.clip(np.minimum(stop, pixel + 1) - np.maximum(start, pixel), 0, None)
    return covered / np.maximum(stop - start, 1e-12)
