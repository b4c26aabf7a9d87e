"""The sections of the text, in the order in which a reader asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from attnlib.bands import BAND_NAMES
from attnlib.interpretation.choose import Measured
from attnlib.interpretation.claims import Claim, Section
from attnlib.interpretation.numbers import MapNumbers
from attnlib.interpretation.wording import (
    band_of,
    called,
    capital,
    clean,
    count,
    listed,
    percent,
    times,
)

__all__ = ["band_sections", "colours", "in_short", "picture_section", "subject"]

_TITLES = {
    "highest": "Highest",
    "moderate": "Moderate",
    "low": "Low",
    "minimal": "Minimal or no",
}


def subject(about: Mapping[str, Any], numbers: MapNumbers) -> Section:
    """Say which map this is."""
    options = {k: v for k, v in dict(about.get("options") or {}).items() if v is not None}
    shown = ", ".join(f"{clean(str(k))}={clean(str(v))}" for k, v in options.items())
    rows, columns = numbers.share.shape
    line = f"This map comes from the method {clean(str(about['method']))!r}" + (
        f" ({shown})" if shown else ""
    )
    line += f", asked for {clean(str(about['query']))!r}" if about["query"] != "given" else ""
    line += f", model {clean(str(about['model']))!r}" if about["model"] != "given" else ""
    line += f"; it has {rows} x {columns} patches"
    hidden = rows * columns - numbers.patches
    line += f", {hidden:,} of them padding that is left out." if hidden else "."
    return Section("subject", "The map", (line,))


def colours(numbers: MapNumbers, words: Sequence[str]) -> Section:
    """Say what the colours mean, with the cuts in force and what each band holds.

    Parameters
    ----------
    numbers : of the map.
    words : the colour of each of the five shades, minimal first.
    """
    bands, (low, moderate, highest) = numbers.bands, numbers.bands.cuts
    lines = []
    if bands.scale == "lift":
        lines.append(
            f"The even share is 1/{numbers.patches:,} of the {numbers.noun} for each patch; colours tell "
            "how many times that a patch gets, the same for every picture, layer and model."
        )
        ranges = {
            "highest": f"{highest:g} times the even share or more",
            "moderate": f"{moderate:g} to {highest:g} times",
            "low": f"{low:g} to {moderate:g} times",
            "minimal": f"below {low:g} times",
        }
        red = f"{words[4]} from {bands.red_from:g}"
    else:
        lines.append(
            f"Colours tell the rank of a patch within this picture: {100 * (1 - highest):.0f} % of the "
            f"{numbers.patches:,} patches are always in the highest band, even in a flat map."
        )
        ranges = {
            "highest": f"the top {100 * (1 - highest):.0f} % of the patches",
            "moderate": f"above {100 * moderate:.0f} % of the patches",
            "low": f"above {100 * low:.0f} % of the patches",
            "minimal": f"the lowest {100 * low:.0f} % of the patches",
        }
        red = f"{words[4]} for the top {100 * (1 - bands.red_from):.0f} %"
    for band in (3, 2, 1, 0):
        name = BAND_NAMES[band]
        colour = {3: f"{words[4]} and {words[3]}", 2: words[2], 1: words[1], 0: words[0]}[band]
        share, area = float(bands.share[0, band]), float(bands.area[0, band])
        detail = f"{ranges[name]}; {red}" if band == 3 and bands.red_from > highest else ranges[name]
        lines.append(
            f"{capital(colour)}: {name} {numbers.noun} ({detail}). "
            f"{percent(area)} of the picture, {percent(share)} of the {numbers.noun}."
        )
    return Section("colours", "What the colours mean", tuple(lines))


def in_short(claims: Sequence[Claim], leaves: Sequence[Measured], numbers: MapNumbers) -> Section:
    """Say in one line for each band which parts are in it, or on which parts its patches lie."""
    cuts, lines = numbers.bands.cuts, []
    if numbers.empty:
        lines.append(f"The map is empty: 0 of {numbers.patches:,} patches have a positive score.")
    elif numbers.flat and numbers.bands.scale == "lift":
        lines.append(
            f"No part stands out: no patch gets more than {times(float(numbers.lift.max()), cuts)} times the "
            f"even share, and moderate {numbers.noun} begins at {times(cuts[1])}."
        )
    for name in reversed(BAND_NAMES):
        told = [
            f"{called(claim.region, claim.kind)} ({times(claim.lift, cuts)}; {percent(claim.share)})"
            for claim in claims
            if claim.band == name
        ]
        if told:
            lines.append(f"{capital(name)}: {listed(told)}.")
        elif name in ("highest", "moderate") and (told := _where(BAND_NAMES.index(name), leaves, numbers)):
            band = BAND_NAMES.index(name)
            area, share = float(numbers.bands.area[0, band]), float(numbers.bands.share[0, band])
            lines.append(
                f"{capital(name)}: no part as a whole, but patches on {percent(area)} of the picture, with "
                f"{percent(share)} of the {numbers.noun}; of that, {listed(told[:2])}."
            )
    if not lines:
        most = times(float(numbers.lift.max()), cuts)
        lines.append(
            "No place is told: 0 parts of the picture can be told apart. The strongest patch gets "
            f"{most} times the even share."
        )
    if len(lines) > 1:
        lines[-1] += f" In brackets: multiple of the even share; share of all the {numbers.noun}."
    return Section("short", "In short", tuple(lines))


def band_sections(
    claims: Sequence[Claim],
    leaves: Sequence[Measured],
    fields: Sequence[Measured],
    numbers: MapNumbers,
) -> tuple[Section, ...]:
    """Write the four sections: highest, moderate, low, minimal.

    Parameters
    ----------
    claims : the chosen ones, positions apart.
    leaves : regions that do not overlap and cover the picture, to say where a band lies.
    fields : the nine fields of the picture.
    numbers : of the map.
    """
    sections = []
    for band in (3, 2, 1, 0):
        name = BAND_NAMES[band]
        lines = [claim.text for claim in claims if claim.band == name]
        lines += _where_the_band_lies(band, leaves, fields, numbers, bool(lines))
        sections.append(Section(name, f"{_TITLES[name]} {numbers.noun}", tuple(lines)))
    return tuple(sections)


def _where_the_band_lies(
    band: int, leaves: Sequence[Measured], fields: Sequence[Measured], numbers: MapNumbers, has_claims: bool
) -> list[str]:
    bands, area = numbers.bands, float(numbers.bands.area[0, band])
    patches = int(((bands.labels[0] == band) & (numbers.seen > 0)).sum())
    if numbers.empty and band == 0:
        return [f"All of the picture: none of its {numbers.patches:,} patches has a positive score."]
    if patches == 0:
        if band >= 2 and bands.scale == "lift":
            start = times(bands.cuts[band - 1])
            top = times(float(numbers.lift.max()), bands.cuts)
            if band == 2 and float(numbers.lift.max()) >= bands.cuts[2]:
                stop = times(bands.cuts[2])
                return [f"No patch of {numbers.patches:,} gets {start} to {stop} times the even share."]
            return [
                f"No patch: the strongest gets {top} times the even share, and this band begins at {start}."
            ]
        return [f"No patch is in this band (0 of {numbers.patches:,})."]
    inside = (bands.labels[0] == band).double() * numbers.seen
    mass = (numbers.share * inside).sum()
    parts = "field" if leaves is fields else "named part"
    lead = "" if has_claims or not leaves else f"No {parts} as a whole is in this band. "
    lead += f"{count(patches, 'patch', 'patches')} of {numbers.patches:,} ({percent(area)})"
    if band < 2 or not leaves or float(mass) <= 0:
        verb = "is" if patches == 1 else "are"
        return [f"{lead} {verb} in this band, with {percent(float(mass))} of the {numbers.noun}."]
    told = _where(band, leaves, numbers)
    spread = listed(told)
    rest = next((leaf for leaf in leaves if leaf.region.kind == "background"), None)
    if rest is not None and any(part.endswith(f" on {rest.name}") for part in told):
        spread += _where_in_background(rest, inside, float(mass), fields, numbers)
    verb = "reaches" if patches == 1 else "reach"
    return [f"{lead} {verb} this band, with {percent(float(mass))} of the {numbers.noun}; of that, {spread}."]


def _where(band: int, leaves: Sequence[Measured], numbers: MapNumbers) -> list[str]:
    """Say on which parts the attention of a band lies: at most four, the fullest first."""
    inside = (numbers.bands.labels[0] == band).double() * numbers.seen
    mass = float((numbers.share * inside).sum())
    if mass <= 0:
        return []
    portions = sorted(
        ((float((numbers.share * inside * leaf.cover).sum()) / mass, leaf.name) for leaf in leaves),
        reverse=True,
    )
    return [f"{percent(portion)} on {name}" for portion, name in portions if portion >= 0.05][:4]


def _where_in_background(
    rest: Measured, inside: Tensor, mass: float, fields: Sequence[Measured], numbers: MapNumbers
) -> str:
    """Say in which of the nine fields a band lies on the background: it has no name of its own."""
    held = numbers.share * inside * rest.cover
    parts = sorted(((float((held * one.cover).sum()) / mass, one.name) for one in fields), reverse=True)
    told = [f"{percent(share)} in {name}" for share, name in parts[:2] if share >= 0.05]
    return f" (of the background, {listed(told)} of the picture)" if told else ""


def picture_section(
    claims: Sequence[Claim],
    leaves: Sequence[Measured],
    places: Sequence[Claim],
    numbers: MapNumbers,
    said: Sequence[str],
) -> Section:
    """Say what the map amounts to in this picture, beside what the model said."""
    cuts, lines = numbers.bands.cuts, []
    if numbers.empty:
        lines.append(
            f"The map is empty: none of the {numbers.patches:,} patches has a positive score, so nothing can "
            "be said about where the model looked."
        )
        return Section("picture", "In this picture", (*lines, *said))
    if numbers.flat and numbers.bands.scale == "lift":
        lines.append(
            f"No part stands out: the strongest patch gets {times(float(numbers.lift.max()), cuts)} times "
            f"the even share, and moderate {numbers.noun} begins at {times(cuts[1])}."
        )
    else:
        lines += _leaders(claims, leaves, numbers)
    lines.append(
        f"The {numbers.noun} spreads over {percent(numbers.effective_share)} of the picture in effect "
        "(100 % would be perfectly even)."
    )
    return Section("picture", "In this picture", (*lines, *(claim.text for claim in places), *said))


def _leaders(claims: Sequence[Claim], leaves: Sequence[Measured], numbers: MapNumbers) -> list[str]:
    cuts = numbers.bands.cuts
    single = [c for c in claims if len(c.members) == 1 and c.kind != "background"]
    lines = []
    if single:
        best = max(single, key=lambda c: c.lift)
        equal = [c for c in single if times(c.lift, cuts) == times(best.lift, cuts)]
        if len(equal) > 1:
            names = listed([called(c.region, c.kind) for c in equal[:4]])
            rest = f" and {len(equal) - 4} more" if len(equal) > 4 else ""
            lines.append(
                f"For their size, {names}{rest} get the most, {times(best.lift, cuts)} times their even "
                f"share each: {len(equal)} parts tie."
            )
        elif len(single) > 1:
            lines.append(
                f"For its size, the part with the most {numbers.noun} is {called(best.region, best.kind)}, "
                f"with {times(best.lift, cuts)} times its even share ({best.band})."
            )
    row, column = numbers.top
    under = max(leaves, key=lambda leaf: float(leaf.cover[row, column]), default=None)
    at = "" if under is None else f" and lies on {under.name}"
    band = BAND_NAMES[band_of(float(numbers.graded[row, column]), cuts)]
    lines.append(
        f"The strongest patch (row {row + 1} of {numbers.share.shape[0]}, column {column + 1} of "
        f"{numbers.share.shape[1]}) gets {times(float(numbers.lift[row, column]), cuts)} times the "
        f"even share ({band}){at}."
    )
    return lines
