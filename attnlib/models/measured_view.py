"""Which part of a picture does a processor show? Measured by sending rulers through it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from attnlib.errors import PictureError
from attnlib.picture import View

__all__ = ["measure_view", "view_notes"]

Process = Callable[[Image.Image], np.ndarray]

# fits are told from misfits far apart: a straight ruler leaves 0.003 of the side, a mirrored one 0.5
_MISFIT = 0.03
_SNAP = 0.004
_SMALL = 32


def measure_view(process: Process, picture_size: tuple[int, int], input_size: tuple[int, int]) -> View:
    """Measure the view of a picture that a processor gives to its model.

    A black and a white picture tell which pixels of the model input come from the picture; a picture
    whose red grows from left to right and whose green grows from top to bottom tells from where.
    This holds for any resizing, cropping and padding of any library, and is exact to about half a
    thousandth of the picture.

    Parameters
    ----------
    process : from an RGB image to [channel, height, width], normalised or not.
    picture_size : (height, width) of the picture.
    input_size : (height, width) of the model input.

    Raises
    ------
    PictureError
        If the model input is not an upright rectangle of the picture.
    """
    height, width = picture_size
    black = process(Image.new("RGB", (width, height), (0, 0, 0)))
    white = process(Image.new("RGB", (width, height), (255, 255, 255)))
    ruled = process(Image.fromarray(_rulers(height, width)))
    if black.shape[0] != 3 or not (black.shape == white.shape == ruled.shape):
        raise PictureError(
            f"the processor returned {list(black.shape)} where [3, height, width] was expected"
        )
    span = white - black
    full = np.abs(span[2]).max()
    shown = np.abs(span[2]) > 0.99 * full
    if full == 0 or not shown.any():
        raise PictureError("the model input shows nothing of the picture: black and white look the same")
    share = np.where(shown, (ruled - black) / np.where(shown, span, 1), 0)
    left, right = _edges(share[0], shown, axis=1, pixels=width)
    top, bottom = _edges(share[1], shown, axis=0, pixels=height)
    box = (left * width, top * height, right * width, bottom * height)
    return View(picture_size, input_size, box, view_notes(box, picture_size, input_size))


def _rulers(height: int, width: int) -> np.ndarray:
    rulers = np.full((height, width, 3), 255, np.uint8)
    rulers[..., 0] = np.rint((np.arange(width) + 0.5) / width * 255)[None, :]
    rulers[..., 1] = np.rint((np.arange(height) + 0.5) / height * 255)[:, None]
    return rulers


def _edges(share: np.ndarray, shown: np.ndarray, *, axis: int, pixels: int) -> tuple[float, float]:
    """Fit a straight line to a ruler; return the places 0 and 1 (as shares) of the input's two edges."""
    side = ("top to bottom", "left to right")[axis]
    length = share.shape[axis]
    lines = np.flatnonzero(shown.any(axis=1 - axis))
    margin = min(2, (len(lines) - 2) // 2) if len(lines) > 3 else 0
    inner = lines[margin : len(lines) - margin]
    values = np.array([np.median(share.take(i, axis)[shown.take(i, axis)]) for i in inner])
    if pixels < _SMALL:  # enlarging leaves half a pixel of the picture flat, or bent, at either end
        straight = np.abs(values - 0.5) < 0.5 - 1.01 / pixels
        inner, values = inner[straight], values[straight]
    places = inner + 0.5
    if len(inner) < 2:
        little = "the model input shows too little of the picture to tell which part"
        raise PictureError(_too_small(pixels, side) or little)
    slope, start = np.polyfit(places, values, 1)
    misfit = np.abs(start + slope * places - values).max()
    spread = max(float(np.ptp(share.take(i, axis)[shown.take(i, axis)])) for i in inner)
    if slope <= 0 or misfit > _MISFIT or spread > _MISFIT:
        raise PictureError(
            _too_small(pixels, side)
            or f"the processor bends, turns, mirrors or tiles the picture ({side}): a map over its input "
            "cannot be drawn over the picture; prepare tensors yourself and call capture(model.model, inputs)"
        )
    first, last = start, start + slope * length
    if abs(first) < _SNAP:
        first = 0.0
    if abs(last - 1) < _SNAP:
        last = 1.0
    return float(first), float(last)


def _too_small(pixels: int, side: str) -> str:
    """Return the reason why so few pixels cannot be measured; nothing if they are enough."""
    if pixels >= _SMALL:
        return ""
    return (
        f"the picture has only {pixels} pixel{'s' * (pixels > 1)} from {side}: what part of so small a "
        f"picture the model sees cannot be measured; give one of at least {_SMALL} pixels on each side"
    )


def view_notes(
    box: tuple[float, float, float, float], picture_size: tuple[int, int], input_size: tuple[int, int]
) -> tuple[str, ...]:
    """Say in words what was cropped, padded or distorted."""
    height, width = picture_size
    left, top, right, bottom = box
    notes = []
    cut = {
        "left": left / width,
        "top": top / height,
        "right": 1 - right / width,
        "bottom": 1 - bottom / height,
    }
    cropped = [f"{side} {100 * share:.1f} %" for side, share in cut.items() if share > 0.0005]
    padded = [f"{side} {-100 * share:.1f} %" for side, share in cut.items() if share < -0.0005]
    if cropped:
        notes.append(f"the model did not see the edges of the picture (cut off: {', '.join(cropped)})")
    if padded:
        notes.append(f"padding was added around the picture ({', '.join(padded)} of its side)")
    across, down = input_size[1] / (right - left), input_size[0] / (bottom - top)
    if not 0.9 < across / down < 1.1:
        notes.append(
            f"the model saw the picture {'narrower' if across < down else 'wider'} than it is (aspect x "
            f"{across / down:.2f}); the map is drawn back in the picture's own shape"
        )
    return tuple(notes)
