"""View: which part of a picture a model saw."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Box", "View"]

Box = tuple[float | int, float | int, float | int, float | int]
"""(left, top, right, bottom) in pixels; right and bottom are edges."""


@dataclass(frozen=True)
class View:
    """Which part of a picture a model saw, and at what size.

    Parameters
    ----------
    picture_size : (height, width) of the upright original, in pixels.
    input_size : (height, width) of the model input, in pixels.
    box : (left, top, right, bottom) of the original that the model input shows, in pixels of the
        original; reaches beyond the picture where the input was padded.
    notes : what was cropped or padded, in words.
    """

    picture_size: tuple[int, int]
    input_size: tuple[int, int]
    box: Box
    notes: tuple[str, ...] = ()

    @classmethod
    def whole(cls, picture_size: tuple[int, int], input_size: tuple[int, int]) -> View:
        """Return the view of a picture that was only resized."""
        height, width = picture_size
        return cls(picture_size, input_size, (0.0, 0.0, float(width), float(height)))

    def grid_window(self, grid: tuple[int, int], patch_size: tuple[int, int] | None) -> Box:
        """Return the box of the original that the patch grid covers, in pixels of the original.

        The grid starts at the top left of the model input; a remainder smaller than a patch at the
        right or bottom is not seen by the model.
        """
        if patch_size is None:
            return self.box
        left, top, right, bottom = self.box
        height = min(1.0, grid[0] * patch_size[0] / self.input_size[0])
        width = min(1.0, grid[1] * patch_size[1] / self.input_size[1])
        return left, top, left + (right - left) * width, top + (bottom - top) * height

    def to_picture(self, x: float | int, y: float | int) -> tuple[float, float]:
        """Return the place in the original of a place (x, y) in the model input, in pixels."""
        left, top, right, bottom = self.box
        height, width = self.input_size
        return left + x / width * (right - left), top + y / height * (bottom - top)

    def to_input(self, x: float | int, y: float | int) -> tuple[float, float]:
        """Return the place in the model input of a place (x, y) in the original, in pixels."""
        left, top, right, bottom = self.box
        height, width = self.input_size
        return (x - left) / (right - left) * width, (y - top) / (bottom - top) * height
