"""Outlines to masks: boxes, polygons and run lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from attnlib.errors import InputError

__all__ = ["box_mask", "polygon_mask", "run_length_mask"]


def box_mask(box: Sequence[float | int], size: tuple[int, int]) -> np.ndarray:
    """Return the pixels of a box (left, top, right, bottom); a pixel on an edge is covered in part."""
    left, top, right, bottom = (float(edge) for edge in box)
    rows, columns = _covered(top, bottom, size[0]), _covered(left, right, size[1])
    if np.isin(rows, (0, 1)).all() and np.isin(columns, (0, 1)).all():
        return (rows > 0)[:, None] & (columns > 0)[None, :]
    return rows[:, None] * columns[None, :]


def polygon_mask(
    points: Sequence[Any] | np.ndarray, size: tuple[int, int]
) -> Bool[np.ndarray, "height width"]:
    """Return the pixels whose centre lies inside a polygon (even-odd rule).

    Parameters
    ----------
    points : corners (x, y) in pixels, in order.
    size : (height, width) of the mask.
    """
    corners = np.asarray(points, dtype=float).reshape(-1, 2)
    if len(corners) < 3:
        raise InputError(f"a polygon needs three corners or more, got {len(corners)}")
    mask = np.zeros(size, dtype=bool)
    left, top = np.floor(corners.min(axis=0)).astype(int).clip(0)
    right, bottom = np.ceil(corners.max(axis=0)).astype(int)
    right, bottom = min(int(right), size[1]), min(int(bottom), size[0])
    if right <= left or bottom <= top:
        return mask
    x = np.arange(left, right)[None, :] + 0.5
    y = np.arange(top, bottom)[:, None] + 0.5
    inside = np.zeros((bottom - top, right - left), dtype=bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        crosses = (y0 > y) != (y1 > y)
        inside ^= crosses & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    mask[top:bottom, left:right] = inside
    return mask


def run_length_mask(
    counts: Sequence[int] | str | bytes, size: tuple[int, int]
) -> Bool[np.ndarray, "height width"]:
    """Return the mask of COCO run lengths: zeros first, down the columns; plain or compressed.

    Raises
    ------
    InputError
        If the runs do not add up to the size.
    """
    runs = _decompressed(counts) if isinstance(counts, str | bytes) else [int(run) for run in counts]
    if sum(runs) != size[0] * size[1] or min(runs, default=0) < 0:
        raise InputError(f"run lengths add up to {sum(runs)}, the mask has {size[0]}x{size[1]} pixels")
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return values.reshape(size, order="F")


def _decompressed(counts: str | bytes) -> list[int]:
    """Decode COCO's run-length string: 5 bits a sign, each run (from the third on) as a difference."""
    signs = counts.encode() if isinstance(counts, str) else counts
    runs: list[int] = []
    place = 0
    while place < len(signs):
        value, shift, more = 0, 0, True
        while more:
            if place >= len(signs):
                raise InputError("a compressed run-length string ends in the middle of a number")
            bits = signs[place] - 48
            value |= (bits & 0x1F) << shift
            more, shift, place = bool(bits & 0x20), shift + 5, place + 1
            if not more and bits & 0x10:
                value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs


def _covered(start: float, stop: float, length: int) -> np.ndarray:
    pixel = np.arange(length)
    return np.clip(np.minimum(stop, pixel + 1) - np.maximum(start, pixel), 0, 1).astype(np.float32)
