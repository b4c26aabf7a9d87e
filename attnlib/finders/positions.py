"""Positions: halves, thirds, the border, and the nine fields of a picture."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np

from attnlib.finders.shapes import box_mask
from attnlib.regions import Region, Regions

__all__ = ["BORDER", "FIELDS", "nine_fields", "positions"]

BORDER = 0.1
"""Width of the border, as a fraction of the picture's height (above, below) and width (at the sides)."""
FIELDS = (
    "upper left", "upper centre", "upper right",
    "middle left", "centre", "middle right",
    "lower left", "lower centre", "lower right",
)  # fmt: skip
"""The nine fields of a picture, row by row."""
_ROWS = ("top", "middle", "bottom")
_COLUMNS = ("left", "centre", "right")


def positions(size: tuple[int, int], *, rows: bool = True, columns: bool = True) -> Regions:
    """Return the upper and lower half, the left, centre and right third, and the border of a picture.

    These overlap on purpose: each of the three groups divides the whole picture (the border's
    counterpart is the inside).

    Parameters
    ----------
    size : (height, width) of the picture in pixels.
    rows, columns : False leaves out the halves, or the thirds; the border needs both.
    """
    height, width = size
    third = width / 3
    boxes = {
        "the upper half": (0, 0, width, height / 2),
        "the lower half": (0, height / 2, width, height),
        "the left third": (0, 0, third, height),
        "the centre third": (third, 0, 2 * third, height),
        "the right third": (2 * third, 0, width, height),
    }
    kept = {"half": rows, "third": columns}
    masks = {name: box_mask(box, size) for name, box in boxes.items() if kept[name.split()[-1]]}
    if rows and columns:
        inner = (BORDER * width, BORDER * height, (1 - BORDER) * width, (1 - BORDER) * height)
        outer = 1 - box_mask(inner, size).astype(np.float32)
        masks[f"the border (outer {100 * BORDER:.0f} % on each side)"] = outer
    return _regions(masks, size)


def nine_fields(size: tuple[int, int], *, rows: bool = True, columns: bool = True) -> Regions:
    """Return the nine equal fields of a picture, "the upper left" to "the lower right"; no field overlaps.

    Parameters
    ----------
    size : (height, width) of the picture in pixels.
    rows, columns : False keeps the picture whole that way: three fields are left, or none.
    """
    names = {(True, True): FIELDS, (True, False): _ROWS, (False, True): _COLUMNS}.get((rows, columns), ())
    bands = [
        list(pairwise(np.linspace(0, side, 4 if cut else 2)))
        for side, cut in zip(size, (rows, columns), strict=True)
    ]
    boxes = [(left, top, right, bottom) for (top, bottom), (left, right) in product(*bands)]
    masks = {f"the {name}": box_mask(box, size) for name, box in zip(names, boxes, strict=False)}
    return _regions(masks, size)


def _regions(masks: dict[str, np.ndarray], size: tuple[int, int]) -> Regions:
    items = (Region(name, mask, "position", "position") for name, mask in masks.items())
    return Regions(tuple(items), size)
