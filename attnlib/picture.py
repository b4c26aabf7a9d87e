"""Pictures in: decoded and upright, and the map between picture, model input and patch grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from attnlib.errors import PictureError

__all__ = ["Picture", "View", "load_picture", "sample", "samples"]

Box = tuple[float, float, float, float]


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


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture, upright, in colour.

    Parameters
    ----------
    pixels : uint8 RGB, [height, width, 3].
    name : file name without folders, or "picture".
    sha256 : hash of the pixels.
    notes : what was done to it, in words (turned upright, first frame of many ...).
    """

    pixels: np.ndarray
    name: str = "picture"
    sha256: str = ""
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def to_pil(self) -> Image.Image:
        """Return the picture as a PIL image."""
        return Image.fromarray(self.pixels)

    def __repr__(self) -> str:
        return f"Picture({self.name!r}, {self.size[1]}x{self.size[0]} px)"


def load_picture(source: Any) -> Picture:
    """Read a picture: path, "sample:NAME", bytes, PIL image, array or Picture."""
    if isinstance(source, Picture):
        return source
    if isinstance(source, str) and source.startswith("sample:"):
        source = sample(source.removeprefix("sample:"))
    if isinstance(source, np.ndarray):
        return Picture(np.ascontiguousarray(source))
    try:
        image = source if isinstance(source, Image.Image) else Image.open(source)
        name = Path(source).name if isinstance(source, (str, Path)) else "picture"
        return Picture(np.asarray(image.convert("RGB")), name)
    except OSError as error:
        raise PictureError(f"cannot read a picture from {source!r}: {error}") from None


def samples() -> dict[str, Path]:
    """Return the pictures that come with attnlib: name -> file."""
    package = Path(__file__).resolve().parent
    for folder in (package / "_images", package.parent / "data" / "images"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix in (".png", ".jpg")}
    return {}


def sample(name: str) -> Path:
    """Return the file of a picture that comes with attnlib, such as "poster".

    Raises
    ------
    PictureError
        If there is no such picture.
    """
    found = samples()
    if name not in found:
        raise PictureError(f"there is no sample picture {name!r}; there are {sorted(found)}")
    return found[name]
