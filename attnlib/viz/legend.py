"""The legend: what each colour means, and the numbers that stand beside a map."""

from __future__ import annotations

from dataclasses import dataclass

from attnlib.bands import ARTIFACT_LIFT, SHADES, Bands, percent
from attnlib.record import Relevance
from attnlib.viz.theme import Palette

__all__ = ["LegendRow", "facts", "legend_rows"]


@dataclass(frozen=True)
class LegendRow:
    """One line of a legend.

    Parameters
    ----------
    shade : 0 minimal to 4 the upper part of the highest band.
    colour : #rrggbb, or None where nothing is drawn.
    word : the colour in words.
    band : name of the band.
    range : the cuts in force, in words.
    mass, area : share of the map's mass and of the seen patches.
    """

    shade: int
    colour: str | None
    word: str
    band: str
    range: str
    mass: float
    area: float

    @property
    def text(self) -> str:
        """The line as a sentence."""
        return f"{self.word} ({self.range}): {percent(self.mass)} of mass on {percent(self.area)} of area"


def legend_rows(bands: Bands, palette: Palette, index: int = 0) -> tuple[LegendRow, ...]:
    """Return the legend of one item, highest first; a shade that the cuts leave empty is left out."""
    rows = []
    for shade, (start, stop) in enumerate(bands.ranges):
        if start == stop:
            continue
        rows.append(
            LegendRow(
                shade,
                palette.hex(shade),
                palette.words[shade],
                SHADES[shade].split(",")[0],
                _range(start, stop, bands.scale),
                float(bands.shade_share[index, shade]),
                float(bands.shade_area[index, shade]),
            )
        )
    return tuple(reversed(rows))


def facts(relevance: Relevance, bands: Bands, index: int = 0) -> tuple[str, ...]:
    """Return the sentences that belong beside every map."""
    lift = bands.lift[index]
    row, column = divmod(int(lift.argmax()), lift.shape[-1])
    own, clean = relevance.identity_share(), relevance.without_identity()
    lines = [
        f"1x is the even share: each of {int(relevance.num_seen().flatten()[index]):,} patches alike."
        if bands.scale == "lift"
        else "Colours are ranks within this picture: a flat map shows the same amount of each."
    ]
    if float(bands.share[index].sum()) == 0:
        return ("No patch has a positive score: there is nothing to show.",)
    if bands.scale == "lift" and not bool(bands.stands_out[index]):
        lines.append(f"No part stands out: no patch reaches {bands.cuts[1]:g}x.")
    else:
        lines.append(
            f"Highest patch: row {row + 1} of {lift.shape[0]}, column {column + 1} of {lift.shape[1]}, "
            f"{float(lift.max()):.1f}x."
        )
    lines.append(f"Effective share: the mass spreads over {percent(clean.effective_share()[index])}.")
    lines.append(f"Tokens other than patches: {percent(clean.prefix_share()[index])} of all mass.")
    if float(own[index]) > 0.0005:
        lines.append(
            f"Set aside: {percent(own[index])} of the mass over the picture, there only because the "
            "method starts from the query itself."
        )
    extreme = int((lift >= ARTIFACT_LIFT).sum())
    if extreme:
        lines.append(
            f"Very strong: {extreme} {'patch has' if extreme == 1 else 'patches have'} {ARTIFACT_LIFT:g}x or "
            "more. That may be what was looked at, or an artifact: pretrained transformers store global "
            "information in a few patches. Where nothing is to be seen there, try a later start_layer."
        )
    if relevance.signed:
        lines.append("The map has negative scores; bands and shares use its positive part.")
    return tuple(lines)


def _range(start: float, stop: float, scale: str) -> str:
    unit = "x" if scale == "lift" else ""
    words = "" if scale == "lift" else "rank "
    if start == 0:
        return f"{words}below {stop:g}{unit}"
    if stop == float("inf"):
        return f"{words}{start:g}{unit} and more"
    return f"{words}{start:g}-{stop:g}{unit}"
