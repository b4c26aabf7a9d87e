"""The theme's colours, in the form the viewer reads."""

from __future__ import annotations

import base64
from typing import Any

from attnlib.viz.theme import DIVERGING, PALETTES, colour_map

__all__ = ["CONTINUOUS", "viewer_palettes"]

CONTINUOUS = {"viridis": "viridis", "inferno": "inferno", "cividis": "cividis (colour-blind safe)"}
"""Continuous palettes a reader can choose, with their labels."""


def viewer_palettes() -> dict[str, dict[str, Any]]:
    """Return every palette by name: bands with words and numbers, continuous ones as 768 bytes."""
    found: dict[str, dict[str, Any]] = {}
    for name, palette in PALETTES.items():
        found[name] = {
            "kind": "bands",
            "label": "bands" if name == "bands" else f"bands, {name}",
            "words": list(palette.words),
            "colours": [palette.hex(shade) for shade in range(1, 5)],
            "numbered": palette.numbered,
        }
    for name, label in CONTINUOUS.items():
        found[name] = {"kind": "continuous", "label": label, "lut": _table(name), "numbered": False}
    found["difference"] = {"kind": "diverging", "label": "difference", "lut": _table(DIVERGING)}
    return found


def _table(name: str) -> str:
    return base64.b64encode(colour_map(name).tobytes()).decode()
