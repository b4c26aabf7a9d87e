"""Libraries of the finders, loaded before they are needed."""

from __future__ import annotations

from contextlib import suppress

__all__ = ["load"]


def load() -> None:
    """Load what reads text and detects faces, as far as it is installed."""
    with suppress(ImportError):
        from rapidocr import RapidOCR as RapidOCR
    with suppress(ImportError):
        from skimage.feature import Cascade as Cascade
        from skimage.transform import resize as resize
