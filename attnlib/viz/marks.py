"""Marks that carry meaning without colour: one number per connected area of a shade."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

__all__ = ["areas"]


def areas(shades: Int[np.ndarray, "row column"], *, smallest: int = 3) -> list[tuple[int, int, int]]:
    """Return (row, column, shade) of a patch well inside each connected area, transparent areas left out.

    Parameters
    ----------
    shades : shade 0..4 of each patch.
    smallest : areas of fewer patches get no mark.
    """
    from scipy import ndimage  # a third of a second, for palettes with numbers only

    found = []
    for shade in range(1, 5):
        labels = np.asarray(ndimage.label(shades == shade)[0])  # type: ignore[index]
        for area in range(1, int(labels.max()) + 1):
            member = labels == area
            if member.sum() < smallest:
                continue
            depth = np.asarray(ndimage.distance_transform_cdt(np.pad(member, 1)))[1:-1, 1:-1]
            row, column = np.unravel_index(int(np.argmax(depth)), shades.shape)
            found.append((int(row), int(column), shade))
    return found
