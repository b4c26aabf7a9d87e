"""interpret: from a map and named regions to a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnlib.errors import InputError, NeedsError
from attnlib.finders.positions import nine_fields, positions
from attnlib.interpretation.checks import Checker, chosen_checks, failure
from attnlib.interpretation.choose import Measured, Told, choose_claims, region_sentence
from attnlib.interpretation.claims import Claim, Interpretation, Section
from attnlib.interpretation.contrast import contrast
from attnlib.interpretation.limits import limits, unseen_and_overlapping, why
from attnlib.interpretation.numbers import MapNumbers, covers, measure_map, measure_region, one_item
from attnlib.interpretation.sections import band_sections, colours, in_short, picture_section, subject
from attnlib.interpretation.wording import count
from attnlib.picture import load_picture
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
    against: Relevance | Interpretation | Mapping[str, Any] | None = None,
    picture: Any = None,
    model: Any = None,
    target: Any = None,
    checks: str | Sequence[str] | None = None,
    set_aside_artifacts: bool = False,
    progress: bool = True,
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
    against : another map (of another layer, method, picture or model) to compare with in words, or
        {name: map}; a Relevance is measured on the same regions.
    picture, model : the picture and the LoadedModel of the map; the checks need both.
    target : what a gradient method explains; only the checks need it.
    checks : "stability" (8 views of the picture), "position" (5 inputs without content), "causal" (hide
        the parts and watch the answer, at most 70 forward passes), "artifacts"; several; or "all".
        One that cannot be made leaves a note. None = no checks: the text is there in milliseconds.
    set_aside_artifacts : leave artifact patches out of all numbers (needs picture and model).
    progress : whether bars are shown while the model runs.

    Returns
    -------
    At most twelve claims, and the whole text in the order: the map, colours, highest, moderate, low,
    minimal, this picture, why, limits.

    Raises
    ------
    InputError
        If the relevance has several pictures or queries and none was chosen, the regions belong to a
        picture of another size, or checks are asked for without picture and model.
    LayoutError
        If the relevance is over text.
    """
    wanted = chosen_checks(checks)
    one = one_item(relevance, index)
    place = (index or 0) % relevance.batch_size
    checker, notes, results = None, [], {}
    if wanted or set_aside_artifacts:
        checker = _checker(one, regions, picture, model, target, progress, notes)
    if checker is not None and (set_aside_artifacts or "artifacts" in wanted):
        one = _artifacts(checker, one, set_aside_artifacts, notes, results)
    numbers = measure_map(one, {"scale": scale, "cuts": cuts})
    heat = one.heatmap()[0]
    named, background, fields, halves, numbers, undivided = _measured(one, regions, numbers, heat)
    leaves = _leaves(named, background) or fields
    claims = choose_claims(named, fields, background, numbers, heat, Told())
    if checker is not None and claims:
        told = {name for claim in claims if len(claim.members) == 1 for name in claim.members}
        parts = [*named, *([background] if background else []), *fields]
        claimed = [part for part in parts if part.region.name in told]
        possible = _possible(wanted, scale, set_aside_artifacts, notes)
        text = any(part.region.kind == "text" for part in named)
        checked = checker.check(possible, claimed, numbers.bands.cuts, text=text)
        claims = choose_claims(named, fields, background, numbers, heat, checked.told)
        notes += checked.notes
        results |= checked.results
    places = _place_claims(halves, numbers, bool(named))
    notes += [line for line in undivided if line]
    about = {
        "method": one.method,
        "query": one.query,
        "model": one.provenance.model,
        "options": dict(one.options),
        "index": place,
    }
    notes += unseen_and_overlapping(named)
    sources = (*(regions.notes if regions is not None else ()), *([] if named else _fields_said(fields)))
    table = tuple(m.numbers for m in (*named, *([background] if background else []), *fields, *halves))
    others = _others(against, regions, scale, cuts)
    sections = (
        subject(about, numbers),
        in_short(claims, leaves, numbers),
        colours(numbers, tuple(colour_words)),
        *band_sections(claims, leaves, fields, numbers),
        picture_section(claims, leaves, places, numbers, _said_lines(said, place)),
        contrast(table, numbers, others),
        why(named, numbers),
        limits(about, numbers, sum(not claim.certain for claim in claims), (*notes, *one.notes)),
        Section("sources", "How the parts were found", tuple(sources)) if sources else None,
    )
    return Interpretation(
        claims=(*claims, *places),
        sections=tuple(section for section in sections if section is not None),
        numbers=table,
        map_numbers=numbers,
        about=about,
        notes=(*sources, *notes),
        checks=results,
    )


def _checker(
    one: Relevance,
    regions: Regions | None,
    picture: Any,
    model: Any,
    target: Any,
    progress: bool,
    notes: list[str],
) -> Checker | None:
    """Return what makes the checks; where the map cannot be made again, leave a note."""
    if picture is None or model is None:
        raise InputError("checks run the model again: pass picture= and model= (a LoadedModel)")
    loaded = load_picture(picture)
    if regions is not None and loaded.size != regions.size:
        raise InputError(f"the regions belong to a picture of size {regions.size}, not {loaded.size}")
    try:
        return Checker(one, loaded, model, target=target, show_progress=progress)
    except NeedsError as error:
        notes.append(f"0 checks were made: {error}.")
        return None


def _artifacts(
    checker: Checker, one: Relevance, set_aside: bool, notes: list[str], results: dict[str, Any]
) -> Relevance:
    """Find artifact patches; return the relevance, without them if they are to be set aside."""
    try:
        found = checker.artifacts(set_aside=set_aside)
    except Exception as error:  # a model may raise anything; the text must not be lost for it
        notes.append(f"0 artifact patches were looked for: {failure(error)}.")
        return one
    notes.append(found.sentence())
    results["artifacts"] = found
    if not set_aside or found.count == 0:
        return one
    seen = torch.ones_like(one.scores, dtype=torch.bool) if one.seen is None else one.seen.clone()
    seen[0, one.layout.patch_slice] &= ~found.patches.flatten()
    return replace(one, seen=seen)


def _possible(wanted: Sequence[str], scale: str, set_aside: bool, notes: list[str]) -> tuple[str, ...]:
    """Leave out the checks that would measure something else than the claims."""
    barred = {"stability", "position"} & set(wanted)
    if barred and (scale != "lift" or set_aside):
        reason = "artifact patches are set aside" if set_aside else "the bands are ranks"
        notes.append(f"0 views were made for {' and '.join(sorted(barred))}: {reason}.")
        return tuple(name for name in wanted if name not in barred)
    return tuple(wanted)


def _others(
    against: Any, regions: Regions | None, scale: str, cuts: Sequence[float | int] | None
) -> dict[str, Interpretation]:
    """Return the maps to compare with, measured."""
    if against is None:
        return {}
    named = dict(against) if isinstance(against, Mapping) else {"the other map": against}
    result = {}
    for name, other in named.items():
        if not isinstance(other, Relevance | Interpretation):
            raise InputError(
                f"against takes a Relevance or an Interpretation, got {type(other).__name__} for {name!r}"
            )
        given = (
            other if isinstance(other, Interpretation) else interpret(other, regions, scale=scale, cuts=cuts)
        )
        result[str(name)] = given
    return result


def _measured(
    one: Relevance, regions: Regions | None, numbers: MapNumbers, heat: Tensor
) -> tuple[list[Measured], Measured | None, list[Measured], list[Measured], MapNumbers, list[str]]:
    """Measure the named regions, the background, the nine fields and the halves, thirds and border.

    The last of what is returned are sentences on what is not told apart.
    """
    grid = one.layout.grid or (1, 1)
    size = regions.size if regions is not None else _picture_size(one, grid)
    window = one.views[0].grid_window(grid, one.layout.patch_size) if one.views else None
    places, num_fields, place_covers = _places(size, grid, window)
    outside = float((numbers.share * (1 - place_covers[-1])).sum())
    numbers = replace(numbers, outside=outside if outside > 1e-6 else 0.0)
    given = [] if regions is None else [region for region in regions if region.kind != "position"]
    held = [] if regions is None else covers(regions, one)[[r.kind != "position" for r in regions]]
    found = [
        Measured(region, cover, measure_region(region, cover, numbers, heat))
        for region, cover in zip(given, held, strict=True)
    ]
    spots = [
        Measured(region, cover, measure_region(region, cover, numbers, heat))
        for region, cover in zip(places, place_covers, strict=True)
    ]
    named = [one for one in found if one.region.kind != "background"]
    background = next((one for one in found if one.region.kind == "background"), None)
    if background is None and named:
        background = _background(regions, one, numbers, heat)
    fields, halves = spots[:num_fields], spots[num_fields:-1]
    return named, background, fields, halves, numbers, _undivided(size, grid)


@lru_cache(maxsize=8)
def _places(
    size: tuple[int, int], grid: tuple[int, int], window: tuple[float, ...] | None
) -> tuple[tuple[Region, ...], int, Tensor]:
    """Return the nine fields, the halves, thirds and border, and the whole picture; and what they cover.

    Between them, how many of these are fields.
    """
    whole = Region("the picture", np.ones(size, dtype=bool), "position", "position")
    rows, columns = _divided(size, grid)
    fields, halves = (parts(size, rows=rows, columns=columns) for parts in (nine_fields, positions))
    places = Regions((*fields, *halves, whole), size)
    return places.items, len(fields), places.on_grid(grid, window).double()  # type: ignore[arg-type]


def _divided(size: tuple[int, int], grid: tuple[int, int]) -> list[bool]:
    """Return whether the picture has thirds over its height and over its width that a map can tell apart."""
    return [min(sides) >= 3 for sides in zip(size, grid, strict=True)]


def _undivided(size: tuple[int, int], grid: tuple[int, int]) -> list[str]:
    """Say what is not told apart because picture or grid are too small."""
    ways = (("Above and below", "high", "row", "rows"), ("Left and right", "wide", "column", "columns"))
    return [
        f"{words} are not told apart: the picture is {count(pixels, 'pixel')} {long}, and the map has "
        f"{count(patches, one, several)} of patches."
        for (words, long, one, several), pixels, patches, told in zip(
            ways, size, grid, _divided(size, grid), strict=True
        )
        if not told
    ]


def _fields_said(fields: Sequence[Measured]) -> list[str]:
    """Say what the places are that are told where no part has a name."""
    if not fields:
        return []
    return [
        f"Places: 0 parts have a name here, so the text speaks of {len(fields)} fields of equal size"
        f"{', 3 rows of 3' if len(fields) == 9 else ''}, and of halves and thirds."
    ]


def _background(
    regions: Regions | None, one: Relevance, numbers: MapNumbers, heat: Tensor
) -> Measured | None:
    """Return what hand-made regions leave over."""
    rest = None if regions is None else regions.background()
    if rest is None or regions is None:
        return None
    cover = covers(Regions((rest,), regions.size), one)[0]
    return Measured(rest, cover, measure_region(rest, cover, numbers, heat))


def _picture_size(one: Relevance, grid: tuple[int, int]) -> tuple[int, int]:
    if one.views:
        return one.views[0].picture_size
    patch = one.layout.patch_size or (12, 12)
    return grid[0] * patch[0], grid[1] * patch[1]


def _leaves(named: Sequence[Measured], background: Measured | None) -> list[Measured]:
    """Return the regions that divide the picture: parts without what lies in them, and the background."""
    if not named:
        return []
    leaves = []
    for one in named:
        cover = one.cover
        parts = [part for part in named if part.region.part_of == one.region.name]
        for part in parts:
            cover = (cover - part.cover).clamp(min=0)
        if float(cover.sum()) > 0.05 * float(one.cover.sum()):
            region = replace(one.region, name=f"the rest of {one.name}") if parts else one.region
            leaves.append(Measured(region, cover, one.numbers))
    return [*leaves, background] if background is not None else leaves


def _place_claims(halves: Sequence[Measured], numbers: MapNumbers, named: bool) -> list[Claim]:
    """Return up to two claims on where the attention lies: the fuller half, the fullest third or border."""
    if numbers.empty:
        return []
    groups: dict[str, list[Measured]] = {}
    for one in halves:
        groups.setdefault(one.region.name.rsplit(maxsplit=1)[-1], []).append(one)
    chosen = [max(groups[kind], key=lambda m: m.numbers.lift) for kind in ("half", "third") if kind in groups]
    border = halves[-1] if len(groups) > 2 else None
    if border is not None and border.numbers.lift > chosen[-1].numbers.lift and named:
        chosen[-1] = border
    claims = []
    for one in chosen:
        n = one.numbers
        text = region_sentence(one.name, n.share, n.area, n.lift, numbers)
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
