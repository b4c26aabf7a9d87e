"""find_regions: every source is asked, none may stop the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from attnlib.errors import AttnlibError, MissingPackageError
from attnlib.finders.faces import AROUND, SMALLEST, face_regions
from attnlib.finders.given import given_boxes, given_masks, segmented
from attnlib.finders.names import free_name
from attnlib.finders.overlap import arrange, without_text_faces
from attnlib.finders.positions import positions as position_regions
from attnlib.finders.text import text_regions
from attnlib.picture import Picture, load_picture
from attnlib.regions import Region, Regions

__all__ = ["find_regions"]

Finder = Callable[[np.ndarray], Sequence[Any]]


def find_regions(
    picture: Any,
    *,
    text: bool | Finder = True,
    faces: bool | Finder = True,
    boxes: Any = None,
    masks: Any = None,
    segmenter: Callable[[np.ndarray], Any] | None = None,
    positions: bool = False,
) -> Regions:
    """Find the named parts of a picture.

    Parameters
    ----------
    picture : anything that ``load_picture`` takes.
    text : look for lines of text and read them; or your own reader: a function that gets the pixels
        and returns (corners, words, confidence) for each line.
    faces : look for upright frontal faces and tell their parts, as fractions of the height of the face
        box (see FACE_PARTS); or your own detector: a function that gets the pixels and returns boxes
        (left, top, right, bottom).
    boxes : {name: (left, top, right, bottom)} in pixels, a list of such boxes, or COCO (a mapping, or the
        path of a JSON file).
    masks : {name: [height, width] array or path of a PNG}, or COCO.
    segmenter : a function that gets the pixels and returns {name: mask}.
    positions : add the halves, thirds and the border of the picture; they overlap the other parts.

    Returns
    -------
    Regions, smallest first, then the background: what no other part claims. Overlaps are resolved by
    OVERLAP_RULE. ``notes`` say what each source did: found nothing, was unsure, failed, is not
    installed; a source that fails stops none of the others.

    Raises
    ------
    InputError
        If boxes or masks that you give cannot be used.
    PictureError
        If the picture cannot be read.
    """
    loaded = load_picture(picture)
    found: list[Region] = []
    notes: list[str] = []
    if boxes is not None:
        found += given_boxes(boxes, loaded)
    if masks is not None:
        found += given_masks(masks, loaded)
    if found:
        notes.append(f"Given by hand: {len(found)}.")
    if segmenter is not None:
        parts, said = _asked("it", lambda: (segmented(segmenter, loaded), []))
        found += _renamed(parts, found)
        count = f"{len(parts)} {'part' if len(parts) == 1 else 'parts'} found."
        notes += [f"Segmenter: {line}" for line in said or [count]]
    for source, finder, name in (("Text", text, "text"), ("Faces", faces, "faces")):
        if finder is False:
            continue
        parts, said = _found(name, finder, loaded)
        found += _renamed(parts, found)
        notes += [f"{source}: {line}" for line in said]
    found, dropped = without_text_faces(found)
    found, cut = arrange(found)
    regions = Regions(tuple(found), loaded.size)
    rest = regions.background()
    extra = tuple(position_regions(loaded.size)) if positions else ()
    if rest is not None and found:
        notes.append(
            f"Background: {100 * rest.area:.1f} % of the picture, all that no other part claims; people's "
            "bodies and things that no finder looks for are in it."
        )
    items = (*found, *((rest,) if rest is not None else ()), *extra)
    return Regions(items, loaded.size, (*notes, *dropped, *cut))


def _found(name: str, finder: bool | Finder, picture: Picture) -> tuple[list[Region], list[str]]:
    own = None if finder is True else finder
    pixels = picture.pixels
    if name == "text":
        parts, said = _asked("the reader", lambda: text_regions(pixels, own))  # type: ignore[arg-type]
        count = len(parts)
        none = "none was found"
        some = f"{count} {'line' if count == 1 else 'lines'} found by {'your reader' if own else 'rapidocr'}"
    else:
        parts, said = _asked("the detector", lambda: face_regions(pixels, own))  # type: ignore[arg-type]
        count = sum(part.kind == "face" for part in parts)
        none = (
            "none was found"
            if own
            else (
                f"none was found (only upright frontal ones of at least {100 * SMALLEST:.0f} % of the "
                "shorter side are looked for; drawn, turned or hidden ones may be missed)"
            )
        )
        some = (
            f"{count} found by {'your detector' if own else 'scikit-image'}; parts are fractions of the box, "
            f"surroundings (hair, neck) reach {100 * AROUND:.0f} % of the box beyond it"
        )
    if said and not parts and said[0].startswith("not looked for"):
        return parts, said
    return parts, [f"{some if parts else none}.", *said]


def _asked(who: str, ask: Callable[[], tuple[list[Region], list[str]]]) -> tuple[list[Region], list[str]]:
    """Ask one source; whatever it raises becomes a note, so that the others can go on."""
    try:
        return ask()
    except MissingPackageError as error:
        return [], [f"not looked for: {error}."]
    except AttnlibError as error:
        return [], [f"not looked for: {who} gave something that cannot be used: {error}."]
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        return [], [f"not looked for: {who} failed with {type(error).__name__}: {reason}."]


def _renamed(parts: Sequence[Region], found: Sequence[Region]) -> list[Region]:
    """Give parts a number where their names are taken; what is a part of them, or around them, follows."""
    taken, names = {one.name for one in found}, {}
    for part in parts:
        names[part.name] = free_name(part.name, taken)
        taken.add(names[part.name])
    return [
        replace(
            part,
            name=names[part.name],
            details={
                key: names.get(value, value) if key in ("part_of", "around") else value
                for key, value in part.details.items()
            },
        )
        for part in parts
    ]
