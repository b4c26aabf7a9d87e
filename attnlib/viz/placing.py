"""Where a map lies on a picture: from patches to pixels of the original."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Num

from attnlib.errors import InputError
from attnlib.picture import Box, Picture
from attnlib.record import Relevance

__all__ = ["Placement", "place"]


@dataclass(frozen=True)
class Placement:
    """The patch grid of one item, placed on its picture.

    Parameters
    ----------
    grid : (height, width) in patches.
    window : (left, top, right, bottom) that the grid covers, in pixels of the picture; may reach
        beyond it where the input was padded.
    picture_size : (height, width) of the picture.
    notes : what was cropped or padded, in words.
    """

    grid: tuple[int, int]
    window: Box
    picture_size: tuple[int, int]
    notes: tuple[str, ...] = ()

    @property
    def patch(self) -> tuple[float, float]:
        """(height, width) of one patch in pixels of the picture."""
        left, top, right, bottom = self.window
        return (bottom - top) / self.grid[0], (right - left) / self.grid[1]

    @property
    def covers_all(self) -> bool:
        """Whether the model saw every part of the picture (to within a pixel)."""
        left, top, right, bottom = self.window
        height, width = self.picture_size
        return left < 1 and top < 1 and right > width - 1 and bottom > height - 1

    def centres(self) -> tuple[np.ndarray, np.ndarray]:
        """Return x of the columns and y of the rows of patches, in pixels of the picture."""
        left, top, _, _ = self.window
        height, width = self.patch
        rows, columns = self.grid
        return left + width * (np.arange(columns) + 0.5), top + height * (np.arange(rows) + 0.5)

    def rows_and_columns(self, size: tuple[int, int]) -> tuple[Int[np.ndarray, " y"], Int[np.ndarray, " x"]]:
        """Return the patch row and column under each pixel of the picture at ``size``; -1 = not seen."""
        left, top, _, _ = self.window
        height, width = self.patch
        y = (np.arange(size[0]) + 0.5) * self.picture_size[0] / size[0]
        x = (np.arange(size[1]) + 0.5) * self.picture_size[1] / size[1]
        row, column = np.floor((y - top) / height).astype(int), np.floor((x - left) / width).astype(int)
        row[(row < 0) | (row >= self.grid[0])] = -1
        column[(column < 0) | (column >= self.grid[1])] = -1
        return row, column

    def spread(
        self, values: Num[np.ndarray, "row column *channel"], size: tuple[int, int], outside: float = 0
    ) -> Num[np.ndarray, "y x *channel"]:
        """Return the value under each pixel of the picture drawn at ``size`` (one flat colour per patch)."""
        row, column = self.rows_and_columns(size)
        drawn = values[row][:, column].copy()
        drawn[row < 0] = outside
        drawn[:, column < 0] = outside
        return drawn


def place(relevance: Relevance, picture: Picture, index: int = 0) -> Placement:
    """Place the map of one item on the picture it belongs to.

    Raises
    ------
    InputError
        If the item does not exist, the map holds several queries, or the picture has another size than
        the one the map was made from.
    """
    if relevance.layout.grid is None:
        raise InputError("this relevance is over text tokens: it cannot be laid over a picture")
    if relevance.scores.dim() != 2:
        raise InputError("an overlay needs one map per item: choose one query instead of 'all'")
    if not -relevance.batch_size <= index < relevance.batch_size:
        raise InputError(f"there is no item {index}: the batch holds {relevance.batch_size}")
    height, width = picture.size
    if not relevance.views:
        return Placement(relevance.layout.grid, (0.0, 0.0, float(width), float(height)), picture.size)
    view = relevance.views[index]
    if view.picture_size != picture.size:
        raise InputError(
            f"the map of item {index} was made from a picture of {view.picture_size[1]}x"
            f"{view.picture_size[0]} pixels, {picture.name} has {width}x{height}: pass the same picture"
        )
    window = view.grid_window(relevance.layout.grid, relevance.layout.patch_size)
    return Placement(relevance.layout.grid, window, picture.size, view.notes)
