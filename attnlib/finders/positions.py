"""Positions: halves, thirds, the border, and the nine fields of a picture."""

from __future__ import annotations

import numpy as np

from attnlib.regions import Region, Regions

__all__ = ["BORDER", "nine_fields", "positions"]

BORDER = 0.1
"""Width of the border, as a fraction of the picture's height (above, below) and width (at the sides)."""

_ROWS = ("upper", "middle", "lower")
_COLUMNS = ("left", "centre", "right")


def positions(size: tuple[int, int]) -> Regions:
    """Return the upper and lower half, the left, centre and right third, and the border of a picture.

    These overlap on purpose: each of the three groups divides the whole picture (the border's
    counterpart is the inside).

    Parameters
    ----------
    size : (height, width) of the picture in pixels.
    """
    height, width = size
    rows, columns = np.linspace(0, height, 3), np.linspace(0, width, 4)
    upright = {
        "the upper half": _strip(size, rows[0], rows[1], axis=0),
        "the lower half": _strip(size, rows[1], rows[2], axis=0),
        "the left third": _strip(size, columns[0], columns[1], axis=1),
        "the centre third": _strip(size, columns[1], columns[2], axis=1),
        "the right third": _strip(size, columns[2], columns[3], axis=1),
    }
    inside = _strip(size, height * BORDER, height * (1 - BORDER), axis=0) * _strip(
        size, width * BORDER, width * (1 - BORDER), axis=1
    )
    upright[f"the border (outer {100 * BORDER:.0f} % on each side)"] = 1 - inside
    return Regions(tuple(_position(name, mask) for name, mask in upright.items()), size)


def nine_fields(size: tuple[int, int]) -> Regions:
    """Return the nine equal fields of a picture, "the upper left" to "the lower right"; no field overlaps.

    Parameters
    ----------
    size : (height, width) of the picture in pixels.
    """
    rows, columns = np.linspace(0, size[0], 4), np.linspace(0, size[1], 4)
    fields = []
    for i, row in enumerate(_ROWS):
        for j, column in enumerate(_COLUMNS):
            name = "the centre" if (i, j) == (1, 1) else f"the {row} {column}"
            mask = _strip(size, rows[i], rows[i + 1], axis=0) * _strip(
                size, columns[j], columns[j + 1], axis=1
            )
            fields.append(_position(name, mask))
    return Regions(tuple(fields), size)


def _position(name: str, mask: np.ndarray) -> Region:
    return Region(name, mask, "position", "position")


def _strip(size: tuple[int, int], start: float, stop: float, *, axis: int) -> np.ndarray:
    """Return the band of pixels between two coordinates; a pixel on an edge is covered in part."""
    pixel = np.arange(size[axis])
    covered = np.clip(np.minimum(stop, pixel + 1) - np.maximum(start, pixel), 0, 1).astype(np.float32)
    line = covered[:, None] if axis == 0 else covered[None, :]
    return np.broadcast_to(line, size)
