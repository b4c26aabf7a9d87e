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


def positions(size: tuple[int, int]) -> Regions:
    """Return the upper and lower half, the left, centre and right third, and the border of a picture.

    These overlap on purpose: each of the three groups divides the whole picture (the border's
    counterpart is the inside).

    Parameters
    ----------
    size : (height, width) of the picture in pixels.
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
    masks = {name: box_mask(box, size) for name, box in boxes.items()}
    inside = box_mask((BORDER * width, BORDER * height, (1 - BORDER) * width, (1 - BORDER) * height), size)
    masks[f"the border (outer {100 * BORDER:.0f} % on each side)"] = 1 - inside.astype(np.float32)
    return _regions(masks, size)


def nine_fields(size: tuple[int, int]) -> Regions:
    """Return the nine equal fields of a picture, "the upper left" to "the lower right"; no field overlaps.

    Parameters
    ----------
    size : (height, width) of the picture in pixels.
    """
    rows, columns = (pairwise(np.linspace(0, side, 4)) for side in size)
    boxes = [(left, top, right, bottom) for (top, bottom), (left, right) in product(rows, columns)]
    masks = {f"the {name}": box_mask(box, size) for name, box in zip(FIELDS, boxes, strict=True)}
    return _regions(masks, size)


def _regions(masks: dict[str, np.ndarray], size: tuple[int, int]) -> Regions:
    items = (Region(name, mask, "position", "position") for name, mask in masks.items())
    return Regions(tuple(items), size)
