"""Two maps beside each other, in words: layers, methods, pictures or models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from attnlib.interpretation.claims import Interpretation, Section
from attnlib.interpretation.numbers import MapNumbers, RegionNumbers
from attnlib.interpretation.wording import called, clean, percent, times

__all__ = ["contrast"]

_MOST = 5


def contrast(
    own: Sequence[RegionNumbers], whole: MapNumbers, others: Mapping[str, Interpretation]
) -> Section | None:
    """Write how the shares of the same parts differ in other maps; None if there is no other map.

    Parameters
    ----------
    own, whole : the numbers of this map.
    others : name -> interpretation of the other map.
    """
    lines = [line for name, other in others.items() for line in _lines(own, whole, clean(name), other)]
    return Section("comparison", "Compared", tuple(lines)) if lines else None


def _lines(own: Sequence[RegionNumbers], whole: MapNumbers, name: str, other: Interpretation) -> list[str]:
    theirs = {numbers.region: numbers for numbers in other.numbers}
    named = [n for n in own if n.kind not in ("position", "background") and n.region in theirs]
    if not named:
        named = [n for n in own if n.kind == "position" and n.region in theirs][:9]
    pairs = sorted(
        ((numbers, theirs[numbers.region]) for numbers in named), key=lambda p: -abs(p[0].share - p[1].share)
    )
    lines = []
    for mine, their in pairs[:_MOST]:
        points = 100 * (mine.share - their.share)
        words = called(mine.region, mine.kind)
        lift = (
            f"{times(mine.lift, whole.bands.cuts)} against {times(their.lift, other.map_numbers.bands.cuts)}"
        )
        if abs(points) < 0.05:
            lines.append(
                f"{percent(mine.share)} of the {whole.noun} falls on {words} here and in {name} alike "
                f"({lift} times the even share)."
            )
            continue
        direction = "more" if points > 0 else "less"
        band = f"{mine.band} in both" if mine.band == their.band else f"{mine.band} here, {their.band} there"
        lines.append(
            f"{percent(mine.share)} of the {whole.noun} falls on {words} here, {percent(their.share)} in "
            f"{name}: {abs(points):.1f} points {direction} here ({lift} times the even share; {band})."
        )
    if whole.share.shape == other.map_numbers.share.shape and not (whole.empty or other.map_numbers.empty):
        common = float(torch.minimum(whole.share, other.map_numbers.share).sum())
        lines.append(
            f"{percent(common)} of the {whole.noun} of this map and of {name} lies on the same patches "
            "(100 % would be the same map)."
        )
    if not lines:
        lines.append(f"0 parts are named in both this map and {name}, so nothing can be compared.")
    return lines
