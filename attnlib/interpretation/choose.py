"""Which regions are told, in which order, and the sentence for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from attnlib.bands import BAND_NAMES
from attnlib.interpretation.claims import Claim
from attnlib.interpretation.numbers import MapNumbers, RegionNumbers, measure_region
from attnlib.interpretation.wording import band_of, called, capital, count, listed, percent, times
from attnlib.regions import Region

__all__ = ["MOST_CLAIMS", "Measured", "Told", "choose_claims", "region_sentence"]

MOST_CLAIMS = 12
"""A text makes at most this many claims."""
_NAMED = MOST_CLAIMS - 2  # two places are kept for where in the picture the attention lies
_LEADING_FIELDS = 2


@dataclass(frozen=True, eq=False)
class Measured:
    """A region with what it covers and its numbers."""

    region: Region
    cover: Float[Tensor, "height width"]
    numbers: RegionNumbers

    @property
    def name(self) -> str:
        """How a sentence calls it."""
        return called(self.region)

    @property
    def full_name(self) -> str:
        """How the first sentence about it calls it: with what it is a part of."""
        if self.region.part_of is None or self.region.kind == "face part":
            return self.name
        return f"{self.name} (within {called(self.region.part_of)})"


@dataclass(frozen=True, eq=False)
class Told:
    """What is known about the regions beyond the map itself, by region name."""

    stability: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def choose_claims(
    named: Sequence[Measured],
    places: Sequence[Measured],
    background: Measured | None,
    map_numbers: MapNumbers,
    heat: Tensor,
    told: Told,
) -> tuple[Claim, ...]:
    """Choose at most twelve claims, best band first, and write their sentences.

    Parameters
    ----------
    named : regions that a finder or a person named.
    places : the nine fields of the picture; they are told where nothing is named.
    background : what no named region covers.
    map_numbers, heat : of the map.
    told : what the checks found.
    """
    if map_numbers.empty:
        return ()
    if not named:
        return _place_claims(places, map_numbers, heat, told)
    chosen = _parts_or_whole(named)
    if background is not None:
        chosen.append(background)
    visible = [one for one in chosen if one.numbers.area > 0]
    kept, rest = _within(sorted(visible, key=_order), _NAMED)
    claims = [_claim(one, map_numbers, told, visible) for one in kept]
    claims += [_together(group, map_numbers, heat) for group in rest]
    return tuple(sorted(claims, key=lambda c: (-BAND_NAMES.index(c.band), -c.lift)))


def _place_claims(
    fields: Sequence[Measured], whole: MapNumbers, heat: Tensor, told: Told
) -> tuple[Claim, ...]:
    """Tell the nine fields: each one that stands out, and the others together."""
    visible = sorted((one for one in fields if one.numbers.area > 0), key=_order)
    out = [one for one in visible if one.numbers.band in ("moderate", "highest")]
    claims = [_claim(one, whole, told, visible) for one in out]
    for band in ("low", "minimal"):
        group = [one for one in visible if one.numbers.band == band]
        if len(group) == len(visible) and not whole.flat:
            # All fields together would say nothing of a map that has its peaks somewhere.
            claims += [_claim(one, whole, told, visible) for one in group[:_LEADING_FIELDS]]
            group = group[_LEADING_FIELDS:]
        if len(group) == 1:
            claims.append(_claim(group[0], whole, told, visible))
        elif group:
            noun = f"of the {'nine' if len(fields) == 9 else len(fields)} fields"
            claims.append(_together(group, whole, heat, noun, noun))
    return tuple(claims)


def region_sentence(
    name: str, share: float, area: float, lift: float, whole: MapNumbers, *, several: bool = False
) -> str:
    """Write the sentence that every claim begins with."""
    band_cuts = whole.bands.cuts if whole.bands.scale == "lift" else ()
    return capital(
        f"{percent(share)} of the {whole.noun} falls on {name}, on {percent(area)} of the picture: "
        f"{times(lift, band_cuts)} times {'their' if several else 'its'} even share."
    )


def _order(one: Measured) -> tuple[int, float]:
    return -BAND_NAMES.index(one.numbers.band), -one.numbers.lift


def _parts_or_whole(named: Sequence[Measured]) -> list[Measured]:
    """Tell a face by its parts where they are in different bands, and as one where they are not."""
    parts: dict[str, list[Measured]] = {}
    for one in named:
        if one.region.kind == "face part" and one.region.part_of:
            parts.setdefault(one.region.part_of, []).append(one)
    chosen = []
    for one in named:
        own = parts.get(one.region.name, [])
        differ = len({part.numbers.band for part in own if part.numbers.area > 0}) > 1
        if one.region.kind == "face" and differ:
            continue
        if one.region.kind == "face part":
            siblings = parts.get(one.region.part_of or "", [])
            if len({part.numbers.band for part in siblings if part.numbers.area > 0}) <= 1:
                continue
        chosen.append(one)
    return chosen


def _within(ordered: list[Measured], most: int) -> tuple[list[Measured], list[list[Measured]]]:
    """Keep the first ones and one claim for all that are left in a band."""
    if len(ordered) <= most:
        return ordered, []
    kept, groups = ordered[: most - 3], {}
    for one in ordered[most - 3 :]:
        if one.region.kind == "background":
            kept.append(one)
        else:
            groups.setdefault(one.numbers.band, []).append(one)
    return kept, list(groups.values())


def _claim(one: Measured, whole: MapNumbers, told: Told, among: Sequence[Measured]) -> Claim:
    numbers, cuts = one.numbers, whole.bands.cuts
    sentences = [region_sentence(one.full_name, numbers.share, numbers.area, numbers.lift, whole)]
    peak_band = band_of(numbers.peak, cuts) if whole.bands.scale == "lift" else -1
    if peak_band >= 2 and peak_band > BAND_NAMES.index(numbers.band):
        sentences.append(
            f"It is uneven: its strongest patch gets {times(numbers.peak, cuts)} times the even share, "
            f"which is {BAND_NAMES[peak_band]} {whole.noun}."
        )
    elif peak_band == 3 and times(numbers.peak, cuts) != times(numbers.lift, cuts):
        sentences.append(f"Its strongest patch gets {times(numbers.peak, cuts)} times.")
    tied = [
        called(other.region)
        for other in among
        if other is not one
        and other.numbers.band == numbers.band
        and times(other.numbers.lift, cuts) == times(numbers.lift, cuts)
        and percent(other.numbers.share) == percent(numbers.share)
    ]
    if tied:
        sentences.append(f"That is a tie with {listed(tied[:4])}{', among others' if len(tied) > 4 else ''}.")
    if numbers.rank is not None and numbers.windows is not None and numbers.band in ("moderate", "highest"):
        sentences.append(_rank_sentence(numbers.rank, numbers.windows))
    stability = told.stability.get(one.region.name)
    if stability is not None:
        sentences.append(stability.sentence(numbers.band))
    evidence = dict(told.evidence.get(one.region.name, {}))
    sentences += [evidence[kind].sentence() for kind in ("spread", "position", "use") if kind in evidence]
    certain = stability is None or stability.stable
    evidence["rank"] = {"rank": numbers.rank, "windows": numbers.windows}
    return Claim(
        region=one.region.name,
        band=numbers.band,
        share=numbers.share,
        area=numbers.area,
        lift=numbers.lift,
        text=("" if certain else "Uncertain: ") + " ".join(sentences),
        kind=one.region.kind,
        members=(one.region.name,),
        peak=numbers.peak,
        stability=stability,
        evidence=evidence,
        certain=certain,
    )


def _rank_sentence(rank: int, windows: int) -> str:
    if rank == 1:
        return f"None of the {windows:,} windows of its size and shape holds more."
    return f"It ranks {rank:,} among the {windows:,} windows of its size and shape."


def _together(group: Sequence[Measured], whole: MapNumbers, heat: Tensor, *nouns: str) -> Claim:
    """Tell several regions of one band in one claim; where they overlap, patches count once."""
    cover = sum((one.cover for one in group[1:]), group[0].cover).clamp(max=1)
    kinds = {one.region.kind for one in group}
    noun, plural = nouns or (
        ("further line of text", "further lines of text")
        if kinds == {"text"}
        else ("further part", "further parts")
    )
    name = count(len(group), noun, plural)
    first = group[0].region
    numbers = measure_region(Region(name, first.mask, "several", first.source), cover, whole, heat)
    most = len(group) if kinds == {"position"} else 3
    shown = [called(one.region) for one in group]
    members = listed(shown) if len(shown) <= most else f"{', '.join(shown[:most])} and others"
    band = group[0].numbers.band
    return Claim(
        region=name,
        band=band,
        share=numbers.share,
        area=numbers.area,
        lift=numbers.lift,
        text=region_sentence(
            f"{name} ({members})",
            numbers.share,
            numbers.area,
            numbers.lift,
            whole,
            several=len(group) > 1,
        ),
        kind="several",
        members=tuple(one.region.name for one in group),
        peak=numbers.peak,
    )
