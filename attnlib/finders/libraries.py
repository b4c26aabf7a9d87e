"""Libraries of the finders, loaded before they are needed."""

from __future__ import annotations

from contextlib import suppress

from attnlib.collector import paused

__all__ = ["load"]


def load() -> None:
    """Load what reads text and detects faces; what is missing or broken is told by the finder that needs it.

    Before a search runs beside other work: two threads that load libraries of one family at a time may
    see them half loaded.
    """
    with paused(), suppress(Exception):
        from rapidocr import RapidOCR as RapidOCR
    with paused(), suppress(Exception):
        from skimage.data import lbp_frontal_face_cascade_filename as lbp_frontal_face_cascade_filename
        from skimage.feature import Cascade as Cascade
        from skimage.transform import resize as resize
