"""Regions for the viewer: outlines to draw and the part of every patch that they cover."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from attnlib.errors import InputError
from attnlib.layout import TokenLayout
from attnlib.picture import Picture
from attnlib.regions import Regions
from attnlib.widgets.packing import Blob

__all__ = ["outline", "region_parts"]

_LONG_SIDE = 160
_WITHOUT_OUTLINE = ("background", "position")


def region_parts(
    blob: Blob, regions: Regions, picture: Picture, layout: TokenLayout, window: list[float]
) -> list[dict[str, Any]]:
    """Describe each region: its name, its outline as fractions of the picture, its part of each patch.

    Where the background is the only region, nothing was found in the picture: there is nothing to tell.

    Raises
    ------
    InputError
        If the regions belong to a picture of another size.
    """
    if layout.grid is None or all(region.kind == "background" for region in regions):
        return []
    if tuple(regions.size) != picture.size:
        raise InputError(
            f"the regions are for a picture of {regions.size[1]}x{regions.size[0]} px, "
            f"this one has {picture.size[1]}x{picture.size[0]}"
        )
    height, width = picture.size
    box = (window[0] * width, window[1] * height, window[2] * width, window[3] * height)
    covered = regions.on_grid(layout.grid, box).numpy()
    return [
        {
            "name": region.name,
            "kind": region.kind,
            "cover": blob.put(cover.reshape(1, -1), pack=None),
            "outline": [] if region.kind in _WITHOUT_OUTLINE else outline(region.mask),
        }
        for region, cover in zip(regions, covered, strict=True)
    ]


def outline(mask: np.ndarray) -> list[list[float]]:
    """Return the border of a mask as straight pieces [x0, y0, x1, y1], in fractions of the picture.

    The mask is read at no more than 160 pixels on its long side: a drawing aid, not a measurement.
    """
    height, width = mask.shape
    factor = min(1.0, _LONG_SIDE / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = Image.fromarray(np.asarray(mask, dtype=np.float32)).resize(size, Image.Resampling.BOX)
    inside = np.pad(np.asarray(small) >= 0.5, 1)
    pieces: list[list[float]] = []
    down = inside[1:, 1:-1] != inside[:-1, 1:-1]  # border above each row: horizontal pieces
    for y, x0, x1 in _runs(down):
        pieces.append([x0 / size[0], y / size[1], x1 / size[0], y / size[1]])
    across = (inside[1:-1, 1:] != inside[1:-1, :-1]).T  # border left of each column: vertical pieces
    for x, y0, y1 in _runs(across):
        pieces.append([x / size[0], y0 / size[1], x / size[0], y1 / size[1]])
    return [[round(v, 4) for v in piece] for piece in pieces]


def _runs(marks: np.ndarray) -> list[tuple[int, int, int]]:
    """Return (line, start, stop) of each unbroken run of True."""
    found = []
    for line, row in enumerate(np.pad(marks, ((0, 0), (1, 1)))):
        edges = np.flatnonzero(np.diff(row.astype(np.int8)))
        found += [(line, int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return found
