"""Lines of text, with the words that were read (rapidocr, whose models come with the package)."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from attnlib.errors import MissingPackageError
from attnlib.finders.names import free_name
from attnlib.finders.positions import FIELDS
from attnlib.finders.shapes import polygon_mask
from attnlib.regions import Region

__all__ = ["SURE", "TextLine", "read_lines", "text_regions"]

SURE = 0.8
"""Confidence from which words are quoted as read; below, the name says that they are unsure."""
_READABLE = 0.5
_SMALLEST_SIDE = 8  # no letter fits into fewer pixels
_THINNEST = 3
_MOST_LINES = 60
_MEMORY = 300_000_000  # bytes of masks for one picture


class TextLine(NamedTuple):
    """One line of text.

    Parameters
    ----------
    corners : its outline, (x, y) in pixels, in order.
    words : what was read.
    confidence : of the reading, 0..1.
    """

    corners: Sequence[Sequence[float]] | np.ndarray
    words: str
    confidence: float


def read_lines(pixels: np.ndarray) -> list[TextLine]:
    """Read the lines of text in a picture, in no promised order.

    Raises
    ------
    MissingPackageError
        If rapidocr is not installed.
    """
    engine = _engine()
    if min(pixels.shape[:2]) < _SMALLEST_SIDE:
        return []
    result = engine(_padded(pixels)[..., ::-1])  # the engine expects blue first
    if result.boxes is None or result.txts is None:
        return []
    scores = result.scores if result.scores is not None else [1.0] * len(result.txts)
    return [
        TextLine(np.asarray(box, dtype=float), str(words), float(score))
        for box, words, score in zip(result.boxes, result.txts, scores, strict=True)
    ]


def text_regions(
    pixels: np.ndarray, reader: Callable[[np.ndarray], Sequence[Any]] | None = None
) -> tuple[list[Region], list[str]]:
    """Return one region for each line of text, and notes on what was unsure.

    Parameters
    ----------
    pixels : uint8 RGB, [height, width, 3].
    reader : gets the pixels and returns (corners, words, confidence) for each line; rapidocr if omitted.
    """
    size = (pixels.shape[0], pixels.shape[1])
    lines = read_lines(pixels) if reader is None else [_line(*line) for line in reader(pixels)]
    source = "rapidocr" if reader is None else "your reader"
    readable = [line for line in lines if line.confidence >= _READABLE and _has_words(line.words)]
    notes = []
    if len(readable) < len(lines):
        notes.append(
            f"{len(lines) - len(readable)} of {len(lines)} places that look like text could not be read "
            "and are left out."
        )
    readable.sort(key=lambda line: -_area(line.corners))
    most = int(min(_MOST_LINES, max(8, _MEMORY // (size[0] * size[1]))))
    masks = [polygon_mask(line.corners, size) for line in readable[:most]]
    kept = [(line, mask) for line, mask in zip(readable, masks, strict=False) if mask.any()]
    seen = [_spoken(line) for line, _ in kept]
    regions = []
    for (line, mask), name in zip(kept, seen, strict=True):
        full = f"{name} ({_where(mask)})" if seen.count(name) > 1 else name
        details = {"words": line.words}
        free = free_name(full, {region.name for region in regions})
        regions.append(Region(free, mask, "text", source, float(line.confidence), details))
    if len(readable) > most:
        mask = np.zeros(size, dtype=bool)
        for line in readable[most:]:
            mask |= polygon_mask(line.corners, size)
        count = len(readable) - most
        regions.append(
            Region(f"the {count} smallest lines of text", mask, "text", source, None, {"lines": count})
        )
        notes.append(f"{count} of {len(readable)} lines of text, the smallest ones, are kept as one part.")
    unsure = [line for line, _ in kept if line.confidence < SURE]
    if unsure:
        notes.append(
            f"{len(unsure)} of {len(kept)} lines of text were read with confidence below {100 * SURE:.0f} %."
        )
    return regions, notes


def _line(corners: Any, words: Any, confidence: Any = 1.0) -> TextLine:
    return TextLine(np.asarray(corners, dtype=float), str(words), float(confidence))


@cache
def _engine() -> Any:
    try:
        from rapidocr import RapidOCR
    except ImportError:
        raise MissingPackageError('text needs the package rapidocr: pip install "attnlib[regions]"') from None
    return RapidOCR(params={"Global.log_level": "error", "Global.text_score": 0.0})


def _padded(pixels: np.ndarray) -> np.ndarray:
    """Make a thin picture less thin: the engine enlarges the shorter side, which could take gigabytes."""
    height, width = pixels.shape[:2]
    below, beside = max(0, width // _THINNEST - height), max(0, height // _THINNEST - width)
    return np.pad(pixels, ((0, below), (0, beside), (0, 0)), mode="edge") if below or beside else pixels


def _spoken(line: TextLine) -> str:
    words = " ".join(line.words.split())
    if line.confidence >= SURE:
        return f'the words "{words}"'
    return f'text that reads, unsurely, "{words}"'


def _has_words(words: str) -> bool:
    """Return whether a reading holds letters or digits, and is no lone letter."""
    signs = [sign for sign in words if unicodedata.category(sign)[0] in "LN"]
    wide = any(unicodedata.category(sign) == "Lo" for sign in signs)
    return len(signs) >= 2 or (len(signs) == 1 and wide)


def _where(mask: np.ndarray) -> str:
    """Name the field of the picture in which the middle of a mask lies."""
    rows, columns = np.nonzero(mask)
    row, column = (
        int(3 * place.mean() / side) for place, side in zip((rows, columns), mask.shape, strict=True)
    )
    return FIELDS[3 * row + column]


def _area(corners: Any) -> float:
    x, y = np.asarray(corners, dtype=float).reshape(-1, 2).T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)
