"""Edits of a picture for experiments: hide a part, move it, write other words."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import ImageDraw, ImageFont

from attnlib.errors import InputError
from attnlib.picture.decoding import Picture

__all__ = ["hidden", "moved", "rewritten", "shifted"]


def hidden(picture: Picture, mask: Any, *, name: str | None = None) -> Picture:
    """Return the picture with a part filled with the colour around it.

    Parameters
    ----------
    picture : the original; it is not changed.
    mask : what to hide, [height, width] of the picture, boolean or 0..1.
    name : of the new picture.

    Raises
    ------
    InputError
        If the mask has another size or is empty.
    """
    cover = _cover(picture, mask)
    pixels = picture.pixels * (1 - cover[..., None]) + _colour_around(picture, cover) * cover[..., None]
    return _made(pixels, picture, name)


def moved(picture: Picture, mask: Any, *, right: int = 0, down: int = 0, name: str | None = None) -> Picture:
    """Return the picture with a part moved; where it stood, the colour around it is filled in.

    Parameters
    ----------
    picture : the original; it is not changed.
    mask : what to move, [height, width] of the picture, boolean or 0..1.
    right, down : how far, in pixels; negative for left and up.
    name : of the new picture.

    Raises
    ------
    InputError
        If the mask has another size or is empty, or the part would leave the picture.
    """
    cover = _cover(picture, mask)
    left, top, end, bottom = _box(cover)
    height, width = picture.size
    if left + right < 0 or top + down < 0 or end + right > width or bottom + down > height:
        raise InputError(
            f"moving the box {(left, top, end, bottom)} by {right} right and {down} down leaves the picture "
            f"of {width}x{height} px"
        )
    pixels = hidden(picture, mask).pixels.astype(float)
    part = cover[top:bottom, left:end, None]
    place = (slice(top + down, bottom + down), slice(left + right, end + right))
    pixels[place] = pixels[place] * (1 - part) + picture.pixels[top:bottom, left:end] * part
    return _made(pixels, picture, name)


def shifted(mask: Any, *, right: int = 0, down: int = 0) -> np.ndarray:
    """Return a mask moved as :func:`moved` moves the part; what leaves the picture is cut off."""
    cover = np.asarray(mask)
    height, width = cover.shape
    result = np.zeros_like(cover)
    rows, columns = slice(max(down, 0), height + min(down, 0)), slice(max(right, 0), width + min(right, 0))
    source = (
        slice(max(-down, 0), height + min(-down, 0)),
        slice(max(-right, 0), width + min(-right, 0)),
    )
    result[rows, columns] = cover[source]
    return result


def rewritten(picture: Picture, mask: Any, words: str, *, name: str | None = None) -> Picture:
    """Return the picture with other words in the place of a part.

    The part is filled with the colour around it; the words are written as large as its box allows,
    dark on a light ground and light on a dark one.

    Parameters
    ----------
    picture : the original; it is not changed.
    mask : the part that gives way, [height, width] of the picture, boolean or 0..1.
    words : what is written.
    name : of the new picture.

    Raises
    ------
    InputError
        If the mask has another size or is empty, or there are no words.
    """
    if not words.strip():
        raise InputError("there are no words to write")
    cover = _cover(picture, mask)
    left, top, right, bottom = _box(cover)
    image = hidden(picture, mask).to_pil()
    size = 6
    while size < 400:
        box = ImageFont.load_default(size + 1).getbbox(words)
        if box[2] - box[0] > right - left or box[3] - box[1] > bottom - top:
            break
        size += 1
    ink = (244, 240, 230) if float(_colour_around(picture, cover).mean()) < 128 else (20, 20, 26)
    middle = ((left + right) / 2, (top + bottom) / 2)
    ImageDraw.Draw(image).text(middle, words, ink, ImageFont.load_default(size), anchor="mm")
    return _made(np.asarray(image), picture, name)


def _cover(picture: Picture, mask: Any) -> np.ndarray:
    cover = np.asarray(mask, dtype=float)
    if cover.shape != picture.size:
        raise InputError(f"the mask is {cover.shape}, the picture {picture.size} (height, width)")
    if not cover.any():
        raise InputError("the mask is empty: there is nothing to change")
    return cover.clip(0, 1)


def _box(cover: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(cover.any(axis=1)), np.flatnonzero(cover.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _colour_around(picture: Picture, cover: np.ndarray) -> np.ndarray:
    """Return the median colour of a narrow frame around a part; of the whole picture if there is none."""
    left, top, right, bottom = _box(cover)
    reach = max(2, (bottom - top) // 10)
    frame = np.zeros(picture.size, dtype=bool)
    frame[max(0, top - reach) : bottom + reach, max(0, left - reach) : right + reach] = True
    frame &= cover == 0
    pixels = picture.pixels[frame] if frame.any() else picture.pixels.reshape(-1, 3)
    return np.median(pixels, axis=0)


def _made(pixels: np.ndarray, picture: Picture, name: str | None) -> Picture:
    return Picture(np.clip(pixels + 0.5, 0, 255).astype(np.uint8), name or picture.name)
