"""The rule for regions that overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from attnlib.regions import Region

__all__ = ["OVERLAP_RULE", "arrange", "without_text_faces"]

OVERLAP_RULE = (
    "what lies in a larger part by nine tenths counts as a part of it and both keep their pixels; elsewhere "
    "a pixel that two parts claim goes to the one that was given by hand, then to the smaller one"
)
"""The rule in words."""
_NESTED = 0.9
_WORTH_SAYING = 0.05  # boxes of neighbouring lines of text often touch


def without_text_faces(regions: Sequence[Region]) -> tuple[list[Region], list[str]]:
    """Leave out faces that are covered by a line of text by more than half: lettering looks like faces."""
    texts = [region for region in regions if region.kind == "text"]
    dropped = set()
    for face in (region for region in regions if region.kind == "face"):
        covered = max((_common(face, text) / max(_size(face), 1e-9) for text in texts), default=0.0)
        if covered > 0.5:
            dropped.add(face.name)
    kept = [
        region
        for region in regions
        if not dropped & {region.name, region.part_of, region.details.get("around")}
    ]
    notes = [f"{name} was left out: a line of text covers more than half of it." for name in sorted(dropped)]
    return kept, notes


def arrange(regions: Sequence[Region]) -> tuple[list[Region], list[str]]:
    """Resolve overlaps by :data:`OVERLAP_RULE`; smaller regions come first.

    Returns
    -------
    The regions, where none overlaps another unless it is a part of it, and notes on what was cut.
    """
    ranked = sorted(regions, key=lambda one: (not one.source.startswith("given"), _size(one)))
    done: list[Region] = []
    cut: list[str] = []
    for region in ranked:
        mask = region.mask
        for other in done:
            common = _common(region, other)
            if common <= 0 or _belongs(region, other, common) or _belongs(other, region, common):
                continue
            if region.part_of and region.part_of == other.part_of:
                continue  # parts of one face share the pixels of their border by area
            mask = (
                np.clip(mask.astype(np.float32) - other.mask, 0, 1)
                if _soft(mask, other)
                else mask & ~other.mask
            )
        if mask is not region.mask:
            lost = 1 - float(mask.sum()) / max(_size(region), 1e-9)
            region = replace(region, mask=mask)
            if lost > _WORTH_SAYING:
                cut.append(region.name)
        if mask.any():
            done.append(region)
    done = [_with_owner(region, done) for region in sorted(done, key=_size)]
    names = list(dict.fromkeys(cut))
    parts = "1 part" if len(names) == 1 else f"{len(names)} parts"
    return done, [f"{parts} gave up pixels to others: {OVERLAP_RULE}."] if names else []


def _with_owner(region: Region, regions: Sequence[Region]) -> Region:
    """Record the smallest region in which another lies, if there is one."""
    if region.part_of:
        return region
    owners = [
        other
        for other in regions
        if other is not region
        and _size(other) > _size(region)
        and _common(region, other) >= _NESTED * _size(region)
    ]
    if not owners:
        return region
    owner = min(owners, key=_size)
    return replace(region, details={**region.details, "part_of": owner.name})


def _belongs(small: Region, large: Region, common: float) -> bool:
    return _size(small) <= _size(large) and common >= _NESTED * _size(small)


def _size(region: Region) -> float:
    return region.area * region.mask.size


def _soft(mask: np.ndarray, other: Region) -> bool:
    return mask.dtype != bool or other.mask.dtype != bool


def _common(first: Region, second: Region) -> float:
    """Return the number of pixels that two regions share."""
    a, b = first.box, second.box
    left, top, right, bottom = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    if right <= left or bottom <= top:
        return 0.0
    window = (slice(top, bottom), slice(left, right))
    return float(np.minimum(first.mask[window], second.mask[window]).sum())
