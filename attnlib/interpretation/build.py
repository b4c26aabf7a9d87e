"""interpret: from a map and named regions to a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from attnlib.errors import InputError
from attnlib.finders.positions import nine_fields, positions
from attnlib.interpretation.choose import Measured, Told, choose_claims, region_sentence
from attnlib.interpretation.claims import Claim, Interpretation, Section
from attnlib.interpretation.limits import limits, why
from attnlib.interpretation.numbers import MapNumbers, covers, measure_map, measure_region, one_item
from attnlib.interpretation.sections import band_sections, colours, in_short, picture_section, subject
from attnlib.record import Relevance
from attnlib.regions import Region, Regions

__all__ = ["interpret"]

_BAND_COLOURS = ("transparent", "blue", "green", "yellow", "red")


def interpret(
    relevance: Relevance,
    regions: Regions | None = None,
    *,
    said: Any = None,
    index: int | None = None,
    scale: str = "lift",
    cuts: Sequence[float | int] | None = None,
    colour_words: Sequence[str] = _BAND_COLOURS,
) -> Interpretation:
    """Write what a map says about the named parts of a picture.

    Parameters
    ----------
    relevance : a map over patches, from ``explain`` or built by hand.
    regions : named parts, from ``find_regions`` or ``Regions.from_masks``; None = positions only.
    said : what the model said: a ``Said``, a sentence, or several.
    index : which picture of the batch; needed only if there are several.
    scale, cuts : as for ``band_map``; use those of the figure that the text stands under.
    colour_words : what the five shades are called, minimal first, if the figure uses other colours.

    Returns
    -------
    At most twelve claims, and the whole text in the order: the map, colours, highest, moderate, low,
    minimal, this picture, why, limits.

    Raises
    ------
    InputError
        If the relevance has several pictures or queries and none was chosen, or the regions belong to
        a picture of another size.
    """
    place = _place(relevance, index)
    one = one_item(relevance, index)
    numbers = measure_map(one, {"scale": scale, "cuts": cuts})
    heat = one.heatmap()[0]
    named, background, fields, halves, numbers = _measured(one, regions, numbers, heat)
    leaves = _leaves(named, background) or fields
    claims = choose_claims(named, fields, background, numbers, heat, Told())
    places = _place_claims(halves, numbers, bool(named))
    about = {
        "method": one.method,
        "query": one.query,
        "model": one.provenance.model,
        "options": dict(one.options),
        "index": place,
    }
    notes = regions.notes if regions is not None else ()
    sections = (
        subject(about, numbers),
        in_short(claims, numbers),
        colours(numbers, tuple(colour_words)),
        *band_sections(claims, leaves, numbers),
        picture_section(claims, leaves, places, numbers, _said_lines(said, place), ()),
        why(named, numbers),
        limits(about, numbers, sum(not claim.certain for claim in claims), one.notes),
        Section("sources", "How the parts were found", tuple(notes)) if notes else None,
    )
    return Interpretation(
        claims=(*claims, *places),
        sections=tuple(section for section in sections if section is not None),
        numbers=tuple(m.numbers for m in (*named, *([background] if background else []), *fields, *halves)),
        map_numbers=numbers,
        about=about,
        notes=tuple(notes),
    )


def _place(relevance: Relevance, index: int | None) -> int:
    return (index or 0) % max(relevance.batch_size, 1)


def _measured(
    one: Relevance, regions: Regions | None, numbers: MapNumbers, heat: Tensor
) -> tuple[list[Measured], Measured | None, list[Measured], list[Measured], MapNumbers]:
    """Measure the named regions, the background, the nine fields and the halves, thirds and border."""
    grid = one.layout.grid or (1, 1)
    size = regions.size if regions is not None else _picture_size(one, grid)
    given = list(regions.items) if regions is not None else []
    held = [region for region in given if region.kind == "background"]
    rest = held[0] if held else Regions(tuple(given), size).background() if given else None
    named = [region for region in given if region is not rest]
    whole = Region("the picture", torch.ones(size, dtype=torch.bool).numpy(), "position")
    fields, halves = nine_fields(size), positions(size)
    everything = [*named, *([rest] if rest else []), *fields, *halves, whole]
    cover = covers(Regions(tuple(everything), size), one)
    outside = float((numbers.share * (1 - cover[-1])).sum())
    numbers = replace(numbers, outside=outside if outside > 1e-6 else 0.0)
    measured = [
        Measured(region, patches, measure_region(region, patches, numbers, heat))
        for region, patches in zip(everything[:-1], cover[:-1], strict=True)
    ]
    first, second = len(named), len(named) + bool(rest)
    third = second + len(fields)
    background = measured[first] if rest else None
    return measured[:first], background, measured[second:third], measured[third:], numbers


def _picture_size(one: Relevance, grid: tuple[int, int]) -> tuple[int, int]:
    if one.views:
        return one.views[0].picture_size
    patch = one.layout.patch_size or (12, 12)
    return grid[0] * patch[0], grid[1] * patch[1]


def _leaves(named: Sequence[Measured], background: Measured | None) -> list[Measured]:
    """Return the regions that divide the picture: no face where its parts are told, and the background."""
    if not named:
        return []
    whole = {one.region.part_of for one in named if one.region.kind == "face part"}
    leaves = [one for one in named if one.region.name not in whole]
    return [*leaves, background] if background is not None else leaves


def _place_claims(halves: Sequence[Measured], numbers: MapNumbers, named: bool) -> list[Claim]:
    """Return two claims on where the attention lies: the fuller half, and the fullest third or the border."""
    if numbers.empty:
        return []
    upper, lower, *thirds, border = halves
    chosen = [max(upper, lower, key=lambda m: m.numbers.lift), max(thirds, key=lambda m: m.numbers.lift)]
    if border.numbers.lift > chosen[-1].numbers.lift and named:
        chosen[-1] = border
    claims = []
    for one in chosen:
        n = one.numbers
        text = region_sentence(one.name, n.share, n.area, n.lift, numbers.bands.cuts, numbers.bands.scale)
        claims.append(Claim(n.region, n.band, n.share, n.area, n.lift, text, "position", (n.region,), n.peak))
    return claims


def _said_lines(said: Any, place: int) -> tuple[str, ...]:
    """Return what the model said about one picture."""
    if said is None:
        return ()
    if isinstance(said, str):
        return (f"The model's own answer: {said}",)
    if hasattr(said, "sentences"):
        sentences = tuple(said.sentences)
        own = sentences[place] if place < len(sentences) else sentences[0] if len(sentences) == 1 else None
        return (f"The model's own answer: {own}", *getattr(said, "notes", ())) if own else ()
    if isinstance(said, Mapping) or not isinstance(said, Sequence):
        raise InputError(f"said must be a Said, a sentence or several, got {type(said).__name__}")
    return tuple(f"The model's own answer: {one}" for one in said)
