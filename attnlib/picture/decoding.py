"""load_picture: from pictures as people have them to upright RGB."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from attnlib.errors import PictureError
from attnlib.picture.modes import from_array, is_deep, to_rgb
from attnlib.picture.samples import sample

__all__ = ["MAX_PIXELS", "Picture", "load_picture"]

MAX_PIXELS = 200_000_000
_ORIENTATION = 0x0112
# formats that run a program or a script to draw themselves
_DRAWINGS = ("EPS", "WMF")
_KNOWN_STARTS = {
    b"%PDF": "a PDF document: export the page as PNG or JPEG",
    b"%!PS": "a PostScript drawing: export it as PNG",
    b"<svg": "an SVG drawing: export it as PNG",
    b"<?xm": "an XML or SVG file: export the drawing as PNG",
    b"<!DO": "a web page, not a picture: download the picture itself",
    b"<htm": "a web page, not a picture: download the picture itself",
    b"vers": "perhaps a Git LFS pointer: run git lfs pull",
    b"\x93NUM": "a NumPy file: load it with numpy.load and give the array",
}


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture, upright, in colour.

    Parameters
    ----------
    pixels : uint8 RGB, [height, width, 3]; read-only.
    name : file name without folders, or "picture".
    sha256 : hash of the upright pixels and their shape; computed if omitted.
    notes : what was done to it, in words (turned upright, first frame of many ...).
    file_sha256 : hash of the file it was read from; "" if it came as pixels.

    Raises
    ------
    PictureError
        If the pixels are not uint8 [height, width, 3] with at least one pixel.
    """

    pixels: np.ndarray
    name: str = "picture"
    sha256: str = ""
    notes: tuple[str, ...] = ()
    file_sha256: str = ""

    def __post_init__(self) -> None:
        pixels = np.asarray(self.pixels)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
            raise PictureError(
                f"the pixels of a Picture are uint8 [height, width, 3], got {pixels.dtype} "
                f"{list(pixels.shape)}; load_picture converts other kinds"
            )
        pixels = np.array(pixels, order="C")
        pixels.setflags(write=False)
        object.__setattr__(self, "pixels", pixels)
        if not self.sha256:
            shape = "x".join(map(str, pixels.shape)).encode()
            object.__setattr__(self, "sha256", hashlib.sha256(shape + b":" + pixels.data).hexdigest())

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def to_pil(self) -> Image.Image:
        """Return the picture as a PIL image."""
        return Image.fromarray(self.pixels)

    def __repr__(self) -> str:
        return f"Picture({self.name!r}, {self.size[1]}x{self.size[0]} px)"

    def _repr_png_(self) -> bytes:
        """Show a picture of at most 512 px in a notebook."""
        small, file = self.to_pil(), io.BytesIO()
        small.thumbnail((512, 512))
        small.save(file, "PNG")
        return file.getvalue()


def load_picture(source: Any, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a picture, upright, in colour, and note what was done to it.

    Parameters
    ----------
    source : a path, "sample:NAME" (a picture that comes with attnlib), bytes, an open binary file, a
        PIL image, a Picture, an array or tensor. Arrays are [height, width] or
        [height, width, 1, 3 or 4]; torch tensors may also be [channel, height, width]. Numbers are 0..255
        (integers), 0..65535 (uint16), 0..1 (floating point) or booleans.
    max_pixels : refuse files that unpack to more than this (decompression bombs).

    Returns
    -------
    Picture whose ``notes`` say what was done: turned upright, laid over white, first frame of
    many, fewer bits, other colours.

    Raises
    ------
    PictureError
        If it is not a picture, empty, cut off, too large, or its numbers have no plain meaning as colours.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, Image.Image):
        return _from_image(source, _file_name(getattr(source, "filename", "")), max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_bytes(bytes(source), "picture", max_pixels)
    if isinstance(source, (str, os.PathLike)):
        path = _path(source)
        return _from_bytes(_read(path), path.name, max_pixels)
    if hasattr(source, "read"):
        content = source.read()
        if not isinstance(content, bytes):
            raise PictureError("the file is open as text; open it in binary mode: open(path, 'rb')")
        return _from_bytes(content, _file_name(getattr(source, "name", "")), max_pixels)
    if hasattr(source, "shape") and hasattr(source, "dtype"):
        pixels, notes = from_array(source)
        return Picture(pixels, notes=notes)
    raise PictureError(
        f"cannot read a picture from {type(source).__name__}; give a path, bytes, an open file, a PIL image, "
        "an array or a tensor"
    )


def _path(source: str | os.PathLike[Any]) -> Path:
    text = os.fsdecode(source)
    if text.startswith("sample:"):
        return sample(text.removeprefix("sample:"))
    if text.startswith("file:"):
        raise PictureError(f"give the path of the picture without 'file://': {text:.80}")
    if "://" in text or text.startswith("data:"):
        raise PictureError(
            f"attnlib fetches nothing from the network; download the picture first: {text:.80}"
        )
    if not text:
        raise PictureError("the path of the picture is empty")
    return Path(text).expanduser()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise PictureError(f"there is no file {str(path)!r}; the current folder is {Path.cwd()}") from None
    except IsADirectoryError:
        raise PictureError(f"{str(path)!r} is a folder; give one picture of it") from None
    except (OSError, ValueError) as error:
        raise PictureError(f"cannot open {str(path)!r}: {error}") from None


def _file_name(name: Any) -> str:
    return (Path(name).name if isinstance(name, str) else "") or "picture"


def _from_bytes(content: bytes, name: str, max_pixels: int) -> Picture:
    if not content:
        raise PictureError(f"{name!r} is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            # the limit is checked below, against max_pixels
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as image:
                picture = _from_image(image, name, max_pixels)
    except Image.UnidentifiedImageError:
        raise PictureError(f"{name!r} is not a picture that can be read: {_advice(content)}") from None
    except Image.DecompressionBombError as error:
        # Pillow's own limit, which max_pixels does not move
        raise PictureError(
            f"{name!r} is too large (a decompression bomb?): {error} Make it smaller; if you trust it, raise "
            "PIL.Image.MAX_IMAGE_PIXELS and max_pixels"
        ) from None
    except PictureError:
        raise
    except Exception as error:
        # decoders raise whatever the broken byte led to: OSError, SyntaxError, struct.error, zlib.error ...
        raise PictureError(f"{name!r} is damaged or cut off and cannot be decoded: {error}") from None
    return Picture(
        picture.pixels, name, picture.sha256, picture.notes, file_sha256=hashlib.sha256(content).hexdigest()
    )


def _advice(content: bytes) -> str:
    for start, advice in _KNOWN_STARTS.items():
        if content.lstrip()[: len(start)].lower() == start.lower():
            return f"it looks like {advice}" if not advice.startswith("perhaps") else advice
    if content[4:8] == b"ftyp":
        return "it looks like a HEIC or AVIF photo or a video: export it as JPEG or PNG"
    return "its first bytes belong to no known format; give a PNG, JPEG, WebP, TIFF, GIF or BMP"


def _from_image(image: Image.Image, name: str, max_pixels: int) -> Picture:
    width, height = image.size
    if width * height == 0:
        raise PictureError(f"{name!r} has no pixels: {width}x{height}")
    if width * height > max_pixels:
        raise PictureError(
            f"{name!r} unpacks to {width}x{height} = {width * height / 1e6:.0f} million pixels, the limit is "
            f"{max_pixels / 1e6:.0f} million (a decompression bomb?); make it smaller, or raise max_pixels"
        )
    if image.format in _DRAWINGS:
        raise PictureError(f"{name!r} is a drawing ({image.format}), not pixels: export it as PNG")
    notes, deep = _frames(image), is_deep(image)
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
        upright = ImageOps.exif_transpose(image) if orientation in range(2, 9) else image
        pixels, colour_notes = to_rgb(upright, deep=deep)
    except PictureError:
        raise
    except Exception as error:  # as above: an image that was opened but not decoded yet
        raise PictureError(f"{name!r} is damaged or cut off and cannot be decoded: {error}") from None
    if orientation in range(2, 9):
        notes += (f"turned upright (EXIF orientation {orientation})",)
    return Picture(pixels, name, notes=notes + colour_notes)


def _frames(image: Image.Image) -> tuple[str, ...]:
    try:
        count = getattr(image, "n_frames", 1)
    except Exception:  # a damaged animation: its first frame may still be whole
        return ()
    if count <= 1:
        return ()
    place = image.tell() + 1
    which = "first" if place == 1 else f"number {place}"
    return (f"only the {which} of its {count} frames is shown",)
