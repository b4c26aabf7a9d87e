"""Regions: named parts of a picture, and how much of a map falls on each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, SupportsIndex

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from attnlib.errors import InputError
from attnlib.picture import Box
from attnlib.record import Relevance

__all__ = ["Region", "Regions"]

_ROUNDING = 1e-4  # how far a coverage may lie above 1


@dataclass(frozen=True, eq=False)
class Region:
    """A named part of the picture.

    Parameters
    ----------
    name : what a reader would call it, such as 'the words "A LIFE"' or "mouth and chin".
    mask : how much of each pixel belongs to it, 0..1 (or boolean), [height, width] of the original picture.
    kind : "text", "face", "face part", "around" (what lies next to a face), "box", "mask", "position" or
        "background".
    source : who found it, such as "rapidocr", "given".
    confidence : the finder's own confidence, 0..1, if it has one.
    details : further facts, such as the words read, or ``part_of`` and ``around``: the region it is a part
        of, or lies next to.

    Raises
    ------
    InputError
        If the mask is not [height, width] within 0..1.
    """

    name: str
    mask: np.ndarray
    kind: str = "mask"
    source: str = "given"
    confidence: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = np.shape(self.mask)
        if len(shape) != 2 or 0 in shape:
            raise InputError(f"the mask {self.name!r} must be [height, width], got {list(shape)}")
        partial = np.asarray(self.mask).dtype != np.bool_
        if partial and not (np.min(self.mask) >= 0 and np.max(self.mask) <= 1 + _ROUNDING):
            raise InputError(
                f"the mask {self.name!r} must hold coverage within 0..1, got {np.min(self.mask):g}.."
                f"{np.max(self.mask):g}; Regions.from_masks reads 0..255 too"
            )

    @cached_property
    def area(self) -> float:
        """Share of the picture's pixels."""
        return float(self.mask.mean())

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) in pixels, right and bottom exclusive."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        if rows.size == 0:
            return 0, 0, 0, 0
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    @property
    def part_of(self) -> str | None:
        """Name of the region that it is a part of, if any."""
        return self.details.get("part_of")

    def __repr__(self) -> str:
        return f"Region({self.name!r}, {self.kind} from {self.source}, box {self.box})"


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
    _grids: dict[Any, Tensor] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def from_masks(cls, masks: Mapping[str, Any]) -> Regions:
        """Make regions from named masks of one size (boolean, 0..1, or 0..255).

        Raises
        ------
        InputError
            If there is no mask, or one is not [height, width], differs in size, or holds numbers
            that are no coverage (negative, not finite, above 255).
        """
        if not isinstance(masks, Mapping) or not masks:
            raise InputError("from_masks got no mask: give {name: [height, width] array}")
        items = [Region(str(name), _coverage(mask, str(name))) for name, mask in masks.items()]
        sizes = {item.name: item.mask.shape for item in items}
        if len(set(sizes.values())) > 1:
            raise InputError(f"the masks differ in size: {sizes}")
        height, width = items[0].mask.shape
        return cls(tuple(items), (height, width))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the regions."""
        return tuple(region.name for region in self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Region]:
        return iter(self.items)

    def __getitem__(self, key: SupportsIndex | str) -> Region:
        if not isinstance(key, str):
            return self.items[key]
        for region in self.items:
            if region.name == key:
                return region
        raise InputError(f"no region {key!r}; there are {list(self.names)}")

    def __repr__(self) -> str:
        return f"Regions({', '.join(map(repr, self.names)) or 'none'}; {self.size[1]}x{self.size[0]} px)"

    def background(self, name: str = "the background") -> Region | None:
        """Return what no region claims, or None if nothing is left.

        A pixel that one region covers by 0.3 and its neighbour by 0.7 leaves nothing; what is a part of
        another region takes nothing twice.
        """
        left = np.ones(self.size, dtype=np.float32)
        for region in self.items:
            x0, y0, x1, y1 = region.box
            part, mask = left[y0:y1, x0:x1], region.mask[y0:y1, x0:x1].astype(np.float32)
            if region.part_of is None:
                np.subtract(part, mask, out=part)
        for region in self.items:
            x0, y0, x1, y1 = region.box
            part, mask = left[y0:y1, x0:x1], region.mask[y0:y1, x0:x1].astype(np.float32)
            np.minimum(part, 1 - mask, out=part)
        np.clip(left, 0, 1, out=left)
        left[left < 1e-6] = 0
        rest = left > 0.5 if np.isin(left, (0, 1)).all() else left
        return Region(name, rest, "background", "what no other region claims") if rest.any() else None

    def on_grid(
        self, grid: tuple[int, int], window: Box | None = None
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
        key = (tuple(grid), left, top, right, bottom)
        if key not in self._grids:
            rows = _overlap(np.linspace(top, bottom, grid[0] + 1), height)
            columns = _overlap(np.linspace(left, right, grid[1] + 1), width)
            patches = np.zeros((len(self.items), *grid))
            for place, region in enumerate(self.items):
                x0, y0, x1, y1 = region.box
                mask = region.mask[y0:y1, x0:x1].astype(np.float64)
                patches[place] = rows[:, y0:y1] @ mask @ columns[:, x0:x1].T
            self._grids[key] = torch.from_numpy(patches).to(torch.float32)
        return self._grids[key].clone()

    def on_maps(
        self, relevance: Relevance, *, window: Box | None = None
    ) -> Float[Tensor, "batch region height width"]:
        """Return :meth:`on_grid` for every item of a relevance, each in the box that its model saw.

        Parameters
        ----------
        relevance : a map over patches; its ``views`` say which part of the picture was seen.
        window : the box for every item, instead of the views.

        Raises
        ------
        InputError
            If the relevance has no patches, or a view is of a picture of another size.
        """
        layout = relevance.layout
        if layout.grid is None:
            raise InputError("regions need a map over patches")
        if window is not None or not relevance.views:
            return self.on_grid(layout.grid, window)[None].expand(relevance.batch_size, -1, -1, -1)
        covered = []
        for view in relevance.views:
            if tuple(view.picture_size) != tuple(self.size):
                raise InputError(
                    f"the regions belong to a picture of {self.size[1]}x{self.size[0]} px, the map to one of "
                    f"{view.picture_size[1]}x{view.picture_size[0]} px (width x height)"
                )
            covered.append(self.on_grid(layout.grid, view.grid_window(layout.grid, layout.patch_size)))
        return torch.stack(covered)

    def shares(self, relevance: Relevance, *, window: Box | None = None) -> dict[str, dict[str, Tensor]]:
        """Return share of mass, share of area and lift of each region, one value per item.

        The mass is the positive part over the patches that were seen, without what a method starts
        from; the area is the region's part of those patches. Regions may overlap, so the shares of
        several regions may sum to more than 1.
        """
        share = relevance.share(without_identity=True)
        covered = self.on_maps(relevance, window=window).to(share.dtype)
        seen = relevance.patches_seen().to(share.dtype)
        result = {}
        for place, name in enumerate(self.names):
            mass = (share * covered[:, place]).sum(dim=(-2, -1))
            area = (seen * covered[:, place]).sum(dim=(-2, -1)) / seen.sum(dim=(-2, -1)).clamp(min=1)
            lift = torch.where(area > 0, mass / torch.where(area > 0, area, 1.0), 0.0)
            result[name] = {"share": mass, "area": area, "lift": lift}
        return result


def _coverage(mask: Any, name: str) -> np.ndarray:
    """Return a mask as boolean or float32 within 0..1."""
    array = np.asarray(mask)
    if array.ndim != 2 or array.size == 0:
        raise InputError(f"the mask {name!r} must be [height, width], got {array.shape}")
    if array.dtype == bool:
        return array
    if array.dtype.kind not in "uif":
        raise InputError(f"the mask {name!r} must hold numbers or booleans, got {array.dtype}")
    array = array.astype(np.float32)
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 255:
        raise InputError(
            f"the mask {name!r} must hold coverage within 0..1 (or 0..255), got "
            f"{array.min():g}..{array.max():g}"
        )
    return array / 255 if array.max() > 1 + _ROUNDING else array.clip(max=1)


def _overlap(edges: np.ndarray, length: int) -> np.ndarray:
    """Return [cell, pixel]: the fraction of each cell that each pixel covers."""
    start, stop = edges[:-1, None], edges[1:, None]
    pixel = np.arange(length)[None, :]
    covered = np.clip(np.minimum(stop, pixel + 1) - np.maximum(start, pixel), 0, None)
    return covered / np.maximum(stop - start, 1e-12)
