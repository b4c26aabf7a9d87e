"""plotly's own script, packed once for a page that must work without a network."""

from __future__ import annotations

import base64
import gzip
from functools import cache

__all__ = ["packed_plotly"]


@cache
def packed_plotly() -> str:
    """Return plotly.js, compressed with gzip and written in base64 (about 2 MB)."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()
