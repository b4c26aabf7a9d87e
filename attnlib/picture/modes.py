"""From any pixel format to 8-bit RGB."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from attnlib.errors import PictureError

__all__ = ["from_array", "is_deep", "to_rgb"]

Notes = tuple[str, ...]


def is_deep(image: Image.Image) -> bool:
    """Return whether the file of an image that is not decoded yet has 16 bits per channel."""
    return any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()) if len(tile) > 3)


def to_rgb(image: Image.Image, *, deep: bool = False) -> tuple[np.ndarray, Notes]:
    """Return uint8 pixels [height, width, 3] of a PIL image, and what was done."""
    mode = image.mode
    if mode == "F" or mode.startswith("I"):
        values = np.asarray(image)
        if mode == "I" and values.min(initial=0) >= 0 and (deep or values.max(initial=0) > 255):
            # 16-bit files may arrive in 32-bit pixels
            if values.max() > 65535:
                raise PictureError(f"32-bit values up to {values.max()} have no plain meaning as brightness")
            values = values.astype(np.uint16)
        return from_array(values)
    notes: Notes = ("16 bits per channel reduced to 8",) if deep else ()
    if mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        notes += (f"converted from {mode} to RGB",)
    if image.has_transparency_data:
        pixels, alpha_notes = _over_white(np.asarray(image.convert("RGBA")))
        return pixels, notes + alpha_notes
    return np.asarray(image.convert("RGB")), notes


def from_array(source: Any) -> tuple[np.ndarray, Notes]:
    """Return uint8 pixels [height, width, 3] of an array or tensor, and what was done.

    Raises
    ------
    PictureError
        If the shape or the numbers are not those of one picture.
    """
    is_tensor = hasattr(source, "detach")
    array = _numpy(source, is_tensor)
    shape = array.shape
    if array.size == 0:
        raise PictureError(f"the array has no pixels: {list(shape)}")
    if array.ndim == 2:
        array = array[:, :, None]
    elif array.ndim == 3 and is_tensor and shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, 2)
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise PictureError(f"one picture is {_shapes(is_tensor)}, got {list(shape)}{_hint(shape, is_tensor)}")
    values, notes = _eight_bits(array)
    if values.shape[2] == 1:
        return np.repeat(values, 3, axis=2), notes
    if values.shape[2] == 4:
        pixels, alpha_notes = _over_white(values)
        return pixels, notes + alpha_notes
    return values, notes


def _numpy(source: Any, is_tensor: bool) -> np.ndarray:
    if not is_tensor:
        return np.asarray(source)
    tensor = source.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.double()  # numpy has no bfloat16
    return tensor.numpy()


def _shapes(is_tensor: bool) -> str:
    last = "[height, width] or [height, width, 1, 3 or 4]"
    return f"{last}, or [1, 3 or 4, height, width]" if is_tensor else last


def _hint(shape: tuple[int, ...], is_tensor: bool) -> str:
    if len(shape) == 4:
        return ": a batch? Give one picture, or a list of pictures"
    if len(shape) == 3 and not is_tensor and shape[0] in (1, 3, 4):
        return ": channels first? Use numpy.moveaxis(array, 0, -1)"
    return ""


def _eight_bits(array: np.ndarray) -> tuple[np.ndarray, Notes]:
    if array.dtype == np.uint8:
        return array, ()
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255), ()
    if array.dtype == np.uint16:
        return np.rint(array / 257).astype(np.uint8), ("16 bits per channel reduced to 8",)
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise PictureError(
            f"an array of {array.dtype} is not a picture; use uint8, uint16, bool or floats 0..1"
        )
    if not np.isfinite(array).all():
        raise PictureError("the array holds NaN or infinite values; a picture has none")
    low, high = array.min(), array.max()
    limit = 1 if np.issubdtype(array.dtype, np.floating) else 255
    if low < 0 or high > limit:
        raise PictureError(
            f"values of {array.dtype} pictures are 0..{limit}, got {low:.4g}..{high:.4g}; if it was "
            "normalised for a model, undo that first; if it is 0..255, give it as uint8"
        )
    return np.rint(array * (255 / limit)).astype(np.uint8), ()


def _over_white(rgba: np.ndarray) -> tuple[np.ndarray, Notes]:
    if (rgba[..., 3] == 255).all():
        return rgba[..., :3], ()
    alpha = rgba[..., 3:].astype(np.float32) / 255
    pixels = np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return pixels, ("transparent parts laid over white",)
