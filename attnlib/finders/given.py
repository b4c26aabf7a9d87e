"""Regions that a person gives: boxes, masks, COCO files, a segmenter of their own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attnlib.errors import InputError
from attnlib.finders.names import free_name
from attnlib.finders.shapes import box_mask, polygon_mask, run_length_mask
from attnlib.picture import Picture, load_picture
from attnlib.regions import Region, Regions

__all__ = ["given_boxes", "given_masks", "segmented"]


def given_boxes(boxes: Any, picture: Picture) -> list[Region]:
    """Return regions for boxes.

    Parameters
    ----------
    boxes : {name: (left, top, right, bottom)} in pixels of the upright picture, or {name: [box, box]}; a list
        of boxes, which are numbered; or a COCO document (a mapping with "annotations", or the path of a JSON
        file).
    picture : the picture that they belong to.

    Raises
    ------
    InputError
        If a box is empty, lies outside the picture, or a file cannot be used.
    """
    if isinstance(boxes, str | os.PathLike):
        boxes = _read_json(Path(boxes))
    if not isinstance(boxes, Mapping):
        rows = _numbers(boxes)
        if rows is None or rows.ndim != 2:
            raise InputError(
                "boxes must be {name: (left, top, right, bottom)}, a list of such boxes, or COCO, got "
                f"{type(boxes).__name__}"
            )
        boxes = {f"box {number}": row for number, row in enumerate(rows, start=1)}
    if "annotations" in boxes:
        return _coco(boxes, picture)
    regions = []
    for name, given in boxes.items():
        rows = _numbers(given)
        many = given if rows is not None and rows.ndim == 2 else [given]
        mask = np.zeros(picture.size, dtype=np.float32)
        for box in many:
            np.maximum(mask, _checked_box(str(name), box, picture.size), out=mask)
        whole = mask > 0 if bool(np.isin(mask, (0, 1)).all()) else mask
        regions.append(Region(str(name), whole, "box", "given"))
    return regions


def given_masks(masks: Any, picture: Picture) -> list[Region]:
    """Return regions for masks.

    Parameters
    ----------
    masks : {name: mask}, each an array [height, width] (boolean, 0..1 or 0..255) or the path of a
        PNG (black = not part of it); or a COCO document, as for boxes.
    picture : the picture that they belong to.

    Raises
    ------
    InputError
        If a mask has another size than the picture, is empty, or cannot be read.
    """
    if isinstance(masks, str | os.PathLike):
        masks = _read_json(Path(masks))
    if not isinstance(masks, Mapping):
        raise InputError(f"masks must be {{name: mask}} or COCO, got {type(masks).__name__}")
    if "annotations" in masks:
        return _coco(masks, picture)
    if not masks:
        return []
    arrays = {str(name): _mask_array(mask) for name, mask in masks.items()}
    for region in (regions := Regions.from_masks(arrays)):
        if region.mask.shape != picture.size:
            raise InputError(
                f"the mask {region.name!r} is {region.mask.shape[1]}x{region.mask.shape[0]} px, the picture "
                f"{picture.size[1]}x{picture.size[0]} px (width x height)"
            )
        if not region.mask.any():
            raise InputError(f"the mask {region.name!r} is empty")
    return list(regions)


def segmented(segmenter: Callable[[np.ndarray], Any], picture: Picture) -> list[Region]:
    """Return what a person's own segmenter finds.

    Parameters
    ----------
    segmenter : gets the pixels [height, width, 3] (uint8) and returns Regions, {name: mask}, or
        pairs (name, mask). Empty masks are left out.
    picture : the picture.
    """
    found = segmenter(picture.pixels)
    if isinstance(found, Regions):
        return list(found)
    pairs: Iterable[Any] = found.items() if isinstance(found, Mapping) else found
    named: dict[str, np.ndarray] = {}
    for name, mask in pairs:
        array = np.asarray(mask)
        if array.any():
            named[free_name(str(name), named)] = array
    source = getattr(segmenter, "__name__", type(segmenter).__name__)
    regions = given_masks(named, picture) if named else []
    return [Region(r.name, r.mask, "mask", f"segmenter {source}") for r in regions]


def _numbers(given: Any) -> np.ndarray | None:
    """Return what was given as an array of numbers, or None if it is none."""
    try:
        return np.asarray(given, dtype=float)
    except (TypeError, ValueError):
        return None


def _checked_box(name: str, box: Any, size: tuple[int, int]) -> np.ndarray:
    numbers = _numbers(box)
    edges = np.zeros(0) if numbers is None else numbers.flatten()
    if edges.size != 4 or not np.isfinite(edges).all():
        raise InputError(f"the box {name!r} must be (left, top, right, bottom), got {box!r}")
    left, top, right, bottom = edges.tolist()
    if right <= left or bottom <= top:
        raise InputError(
            f"the box {name!r} is empty: (left, top, right, bottom) = {tuple(edges.tolist())}; "
            "right and bottom are edges, not width and height"
        )
    mask = box_mask((left, top, right, bottom), size)
    if not mask.any():
        raise InputError(f"the box {name!r} lies outside the picture of {size[1]}x{size[0]} px")
    return mask.astype(np.float32)


def _mask_array(mask: Any) -> np.ndarray:
    if isinstance(mask, str | os.PathLike):
        return load_picture(mask).pixels.max(axis=2)
    return np.asarray(mask)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read regions from {path}: {error}") from None


def _coco(document: Mapping[str, Any], picture: Picture) -> list[Region]:
    """Return the annotations of one picture; several of one category are numbered."""
    chosen = _coco_image(document.get("images") or [], picture)
    categories = {one["id"]: str(one["name"]) for one in document.get("categories") or []}
    own = [
        one
        for one in document["annotations"]
        if chosen is None or one.get("image_id") in (None, chosen["id"])
    ]
    names = [categories.get(one.get("category_id"), f"category {one.get('category_id')}") for one in own]
    regions, numbers = [], dict.fromkeys(names, 0)
    for name, one in zip(names, own, strict=True):
        numbers[name] += 1
        label = f"{name} {numbers[name]}" if names.count(name) > 1 else name
        mask = _coco_mask(one, label, picture.size)
        regions.append(Region(label, mask, "mask" if one.get("segmentation") else "box", "given (COCO)"))
    return regions


def _coco_image(images: Sequence[Mapping[str, Any]], picture: Picture) -> Mapping[str, Any] | None:
    if not images:
        return None
    matching = [one for one in images if Path(str(one.get("file_name", ""))).name == picture.name]
    if len(images) == 1:
        matching = list(images)
    if len(matching) != 1:
        raise InputError(
            f"the COCO document has {len(images)} images and {len(matching)} of them are called "
            f"{picture.name!r}: name the picture as the document does, or keep one image in it"
        )
    found = matching[0]
    size = (found.get("height"), found.get("width"))
    if None not in size and size != picture.size:
        raise InputError(
            f"the COCO document describes a picture of {size[1]}x{size[0]} px, this one has "
            f"{picture.size[1]}x{picture.size[0]} px"
        )
    return found


def _coco_mask(one: Mapping[str, Any], name: str, size: tuple[int, int]) -> np.ndarray:
    shape = one.get("segmentation")
    if isinstance(shape, Mapping):
        mask = run_length_mask(shape["counts"], size)
    elif shape:
        mask = np.zeros(size, dtype=bool)
        for polygon in shape:
            mask |= polygon_mask(polygon, size)
    elif "bbox" in one:
        left, top, width, height = one["bbox"]
        return _checked_box(name, (left, top, left + width, top + height), size)
    else:
        raise InputError(f"the COCO annotation of {name!r} has neither segmentation nor bbox")
    if not mask.any():
        raise InputError(f"the COCO annotation of {name!r} covers no pixel of the picture")
    return mask
