"""The first picture of a finished page, made small: so that an index shows what it leads to."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

from PIL import Image

__all__ = ["thumbnail"]

_PICTURE = re.compile(r'<img\b[^>]*?\bsrc="data:image/(?:png|jpeg);base64,([^"]+)"')
_LONGEST = (300, 200)
"""Pixels of a small picture: width, height."""


def thumbnail(page: Path) -> str:
    """Return the first picture of a page as the address of a small JPEG; "" if there is none.

    Parameters
    ----------
    page : an HTML file with its pictures inside.
    """
    found = _PICTURE.search(page.read_text(encoding="utf-8", errors="replace"))
    if found is None:
        return ""
    try:
        image = Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGB")
    except (OSError, ValueError):  # a page of somebody else's: the index does without
        return ""
    image.thumbnail(_LONGEST)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
