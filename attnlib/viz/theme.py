"""The one theme: colours of bands, colour maps, fonts and the look of every figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import numpy as np
from jaxtyping import UInt8

from attnlib.errors import InputError

__all__ = [
    "COLOUR_MAPS",
    "CONFIG",
    "DIVERGING",
    "PALETTES",
    "SEQUENTIAL",
    "Palette",
    "choose_palette",
    "colour_map",
]

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Palette:
    """Colours and colour words of the five shades of a band map.

    Parameters
    ----------
    name : what a user types to choose it.
    words : what each shade is called in a legend, minimal first.
    colours : red, green, blue of each shade; None is transparent.
    numbered : whether areas carry the number of their shade, so that no meaning hangs on colour alone.
    """

    name: str
    words: tuple[str, str, str, str, str]
    colours: tuple[Colour | None, Colour, Colour, Colour, Colour]
    numbered: bool = False

    def rgba(self, opacity: float | int) -> UInt8[np.ndarray, "shade 4"]:
        """Return the colours as RGBA rows, the transparent shade with alpha 0."""
        if not 0 <= opacity <= 1:
            raise InputError(f"opacity must be between 0 and 1, got {opacity!r}")
        alpha = round(255 * opacity)
        rows = [(0, 0, 0, 0) if c is None else (*c, alpha) for c in self.colours]
        return np.array(rows, dtype=np.uint8)

    def hex(self, shade: int) -> str | None:
        """Return one colour as #rrggbb, or None if it is transparent."""
        colour = self.colours[shade]
        return None if colour is None else "#{:02x}{:02x}{:02x}".format(*colour)


PALETTES: Mapping[str, Palette] = MappingProxyType(
    {
        "bands": Palette(
            "bands",
            ("transparent", "blue", "green", "yellow", "red"),
            (None, (38, 104, 236), (22, 160, 70), (255, 216, 0), (228, 22, 28)),
        ),
        "colour-blind": Palette(
            "colour-blind",
            ("transparent", "dark blue", "sky blue", "yellow", "orange red"),
            (None, (0, 72, 150), (86, 180, 233), (240, 228, 66), (213, 94, 0)),
            numbered=True,
        ),
    }
)
"""Band palettes by name: red, yellow, green, blue, and a twin that colour-blind readers can tell apart."""

SEQUENTIAL = "viridis"
"""Colour map of continuous values."""
DIVERGING = "rdbu"
"""Colour map of signed values, centred on 0."""
COLOUR_MAPS = ("viridis", "inferno", "cividis", "rdbu")
"""Colour maps that a figure accepts; all keep their order in grey and for colour-blind readers."""

CONFIG: Mapping[str, object] = MappingProxyType(
    {"displaylogo": False, "modeBarButtonsToRemove": ["sendChartToCloud"], "responsive": True}
)
"""Options for showing a figure: nothing in its tool bar leads off the machine."""

INK, FAINT, PAPER = "#1f2328", "#59636e", "#ffffff"
DARK_INK, DARK_FAINT, DARK_PAPER = "#e6edf3", "#9da7b3", "#14181d"
FONT = "system-ui, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif"


def choose_palette(name: str) -> Palette:
    """Return a band palette by name.

    Raises
    ------
    InputError
        If there is no such palette.
    """
    if name not in PALETTES:
        raise InputError(f"palette must be one of {', '.join(PALETTES)}; got {name!r}")
    return PALETTES[name]


@cache
def colour_map(name: str) -> UInt8[np.ndarray, "256 3"]:
    """Return a colour map as 256 rows of red, green, blue.

    Raises
    ------
    InputError
        If there is no such colour map.
    """
    from plotly import colors

    if name not in COLOUR_MAPS:
        raise InputError(f"the colour map must be one of {', '.join(COLOUR_MAPS)}; got {name!r}")
    if name == DIVERGING:
        stops = colors.diverging.RdBu[::-1]
    else:
        stops = getattr(colors.sequential, name.capitalize())
    anchors = np.array([_rgb(stop) for stop in stops], dtype=np.float64)
    at = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(at, np.arange(len(anchors)), anchors[:, c]) for c in range(3)]
    table = np.stack(channels, axis=1).round().astype(np.uint8)
    table.flags.writeable = False
    return table


def colour_scale(name: str) -> list[tuple[float, str]]:
    """Return a colour map in plotly's form."""
    table = colour_map(name)
    return [(i / 15, "rgb({},{},{})".format(*table[round(i * 17)])) for i in range(16)]


def look(*, dark: bool = False) -> dict[str, object]:
    """Return the layout that every figure shares."""
    ink, paper = (DARK_INK, DARK_PAPER) if dark else (INK, PAPER)
    return {
        "template": "plotly_dark" if dark else "plotly_white",
        "font": {"family": FONT, "size": 13, "color": ink},
        "paper_bgcolor": paper,
        "plot_bgcolor": paper,
        "margin": {"l": 56, "r": 24, "t": 64, "b": 48},
        "title": {"x": 0, "y": 1, "xanchor": "left", "yanchor": "top", "pad": {"l": 12, "t": 14}},
        "hoverlabel": {"font": {"family": FONT, "size": 13}},
    }


def _rgb(stop: str) -> tuple[int, ...]:
    if stop.startswith("#"):
        return tuple(int(stop[i : i + 2], 16) for i in (1, 3, 5))
    return tuple(int(part) for part in stop[stop.index("(") + 1 : -1].split(","))
