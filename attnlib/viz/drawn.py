"""Drawn: a picture that also says in words what it shows."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image

__all__ = ["Drawn", "drawn"]


class Drawn(Image.Image):
    """A PIL picture with words for those who cannot see it: its alt text in notebooks and reports."""

    alt: str = ""

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, Any], dict[str, Any]]:
        data = io.BytesIO()
        self.save(data, "PNG", compress_level=6)
        bundle = {
            "image/png": base64.b64encode(data.getvalue()).decode(),
            "text/plain": self.alt or repr(self),
        }
        return bundle, {"alt": self.alt} if self.alt else {}

    def _repr_jpeg_(self) -> None:
        """Show nothing twice: the PNG is the picture."""


def drawn(image: Image.Image, alt: str) -> Drawn:
    """Return a picture together with what it shows, in words.

    Parameters
    ----------
    image : the picture.
    alt : what it shows.
    """
    made = Drawn()
    made.__setstate__(image.__getstate__())
    made.alt = " ".join(alt.split())
    return made
