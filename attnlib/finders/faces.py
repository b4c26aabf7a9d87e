"""Upright, frontal faces and their parts (scikit-image's cascade, which comes with the package)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from attnlib.errors import MissingPackageError
from attnlib.finders.shapes import box_mask
from attnlib.regions import Region

__all__ = ["FACE_PARTS", "FaceBox", "detect_faces", "face_regions"]

FACE_PARTS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "the upper face": (0.0, 0.48),
        "the middle of the face": (0.48, 0.68),
        "the mouth and chin": (0.68, 1.0),
    }
)
"""Parts of a face as fractions of the height of its box, from the top."""
AROUND = 0.5
"""The surroundings of a face reach this fraction of its box beyond it, on each side."""
SMALLEST = 0.08
"""Faces smaller than this fraction of the picture's shorter side are not looked for."""
_SURE_VOTES, _POSSIBLE_VOTES = 14.0, 9.0
_WORKING_SIDE = 640


class FaceBox(NamedTuple):
    """One face.

    Parameters
    ----------
    box : (left, top, right, bottom) in pixels.
    votes : how many windows of the search agreed on it, mean of the picture and its mirror image;
        None if the detector counts no votes.
    """

    box: tuple[float, float, float, float]
    votes: float | None = None


def detect_faces(pixels: np.ndarray) -> list[FaceBox]:
    """Detect upright frontal faces; most votes first.

    The cascade answers yes for many windows around a real face and for few around anything else, so
    the votes of the picture and of its mirror image are counted; a face needs both.

    Raises
    ------
    MissingPackageError
        If scikit-image is not installed.
    """
    _cascade()
    height, width = pixels.shape[:2]
    step = max(1.0, max(height, width) / _WORKING_SIDE)
    small = _shrunk(pixels, step)
    if min(small.shape[:2]) < 24:
        return []
    plain, mirrored = (_votes(image) for image in (small, np.ascontiguousarray(small[:, ::-1])))
    turned = [
        (count, np.array([small.shape[1] - b[2], b[1], small.shape[1] - b[0], b[3]])) for count, b in mirrored
    ]
    faces = []
    for count, box in plain:
        others = [(other, flipped) for other, flipped in turned if _overlap(box, flipped[None])[0] > 0.4]
        if not others:
            continue
        other, flipped = max(others, key=lambda pair: pair[0])
        votes = (count + other) / 2
        if votes >= _POSSIBLE_VOTES and min(count, other) >= 4:
            left, top, right, bottom = ((box + flipped) / 2 * step).tolist()
            faces.append(FaceBox((left, top, min(right, width), min(bottom, height)), votes))
    return sorted(_apart(faces), key=lambda face: -(face.votes or 0))


def face_regions(
    pixels: np.ndarray, detector: Callable[[np.ndarray], Sequence[Any]] | None = None
) -> tuple[list[Region], list[str]]:
    """Return a region for each face, for its three parts and its surroundings, and notes on what was unsure.

    Parameters
    ----------
    pixels : uint8 RGB, [height, width, 3].
    detector : gets the pixels and returns boxes (left, top, right, bottom); scikit-image's cascade
        if omitted.
    """
    size = (pixels.shape[0], pixels.shape[1])
    found = detect_faces(pixels) if detector is None else [_face_box(one) for one in detector(pixels)]
    source = "scikit-image" if detector is None else "your detector"
    found.sort(key=lambda face: face.box[0])
    regions, unsure = [], 0
    for number, face in enumerate(found, start=1):
        possible = face.votes is not None and face.votes < _SURE_VOTES
        unsure += possible
        ending = "" if len(found) == 1 else f" {number} of {len(found)}, from the left"
        name = f"{'what is possibly a' if possible else 'the'} face{ending}"
        details = {"box": [round(edge, 1) for edge in face.box], "votes": face.votes}
        mask = box_mask(face.box, size)
        if not mask.any():
            continue
        regions.append(Region(name, mask, "face", source, _confidence(face.votes), details))
        if not possible:
            regions.append(_around(face.box, mask, name, ending, size, source))
        for part, (start, stop) in FACE_PARTS.items() if not possible else ():
            left, top, right, bottom = face.box
            tall = bottom - top
            cut = box_mask((left, top + start * tall, right, top + stop * tall), size)
            owner = "" if len(found) == 1 else f" of {name}"
            facts = {"part_of": name, "fractions": [start, stop]}
            regions.append(Region(f"{part}{owner}", cut, "face part", source, None, facts))
    notes = []
    if unsure:
        notes.append(f"{unsure} of {len(found)} faces had few votes of the detector and may be none.")
    return regions, notes


def _face_box(given: Any) -> FaceBox:
    box, votes = given if isinstance(given, FaceBox) else (given, None)
    left, top, right, bottom = (float(edge) for edge in box)
    return FaceBox((left, top, right, bottom), votes)


def _around(
    box: tuple[float, ...], face: np.ndarray, name: str, ending: str, size: tuple[int, int], source: str
) -> Region:
    """Return what lies next to a face: hair, ears, neck; as a fraction of the face box, nothing detected."""
    left, top, right, bottom = box
    wide, tall = AROUND * (right - left), AROUND * (bottom - top)
    ring = box_mask((left - wide, top - tall, right + wide, bottom + tall), size).astype(np.float32)
    details = {"around": name, "fractions": [AROUND, AROUND]}
    return Region(
        f"the surroundings of the face{ending}", np.clip(ring - face, 0, 1), "around", source, None, details
    )


def _confidence(votes: float | None) -> float | None:
    """Return votes / (votes + those needed to be sure): 0.5 at the threshold."""
    return None if votes is None else round(votes / (votes + _SURE_VOTES), 3)


@cache
def _cascade() -> Any:
    try:
        from skimage.data import lbp_frontal_face_cascade_filename
        from skimage.feature import Cascade
    except ImportError:
        raise MissingPackageError(
            'faces need the package scikit-image: pip install "attnlib[regions]"'
        ) from None
    return Cascade(lbp_frontal_face_cascade_filename())


def _shrunk(pixels: np.ndarray, step: float) -> np.ndarray:
    if step == 1.0:
        return pixels
    from skimage.transform import resize

    shape = (round(pixels.shape[0] / step), round(pixels.shape[1] / step), 3)
    return np.asarray(resize(pixels, shape, anti_aliasing=True) * 255 + 0.5).astype(np.uint8)


def _votes(image: np.ndarray) -> list[tuple[int, Float[np.ndarray, "4"]]]:
    """Return groups of agreeing windows: how many, and their mean box; most first."""
    shorter = min(image.shape[:2])
    least = max(24, round(SMALLEST * shorter))
    if shorter < least:
        return []
    raw = _cascade().detect_multi_scale(
        img=image,
        scale_factor=1.1,
        step_ratio=1,
        min_size=(least, least),
        max_size=(shorter, shorter),
        min_neighbor_number=0,
        intersection_score_threshold=1.01,
    )
    boxes = np.array(
        [[one["c"], one["r"], one["c"] + one["width"], one["r"] + one["height"]] for one in raw], dtype=float
    ).reshape(-1, 4)
    groups = []
    while len(boxes):
        agree = np.stack([_overlap(box, boxes) > 0.4 for box in boxes])
        best = agree[int(agree.sum(axis=1).argmax())]
        groups.append((int(best.sum()), boxes[best].mean(axis=0)))
        boxes = boxes[~best]
    return groups


def _apart(faces: list[FaceBox]) -> list[FaceBox]:
    """Keep the face with more votes where one lies in another."""
    kept: list[FaceBox] = []
    for face in sorted(faces, key=lambda one: -(one.votes or 0)):
        if all(_inside(face.box, other.box) < 0.5 and _inside(other.box, face.box) < 0.5 for other in kept):
            kept.append(face)
    return kept


def _common(box: Any, boxes: np.ndarray) -> np.ndarray:
    wide = np.minimum(box[2], boxes[:, 2]) - np.maximum(box[0], boxes[:, 0])
    tall = np.minimum(box[3], boxes[:, 3]) - np.maximum(box[1], boxes[:, 1])
    return wide.clip(0) * tall.clip(0)


def _overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return intersection over union of a box with others."""
    common = _common(box, boxes)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return common / ((box[2] - box[0]) * (box[3] - box[1]) + areas - common)


def _inside(box: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return the fraction of ``box`` that lies in ``other``."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    return float(_common(box, np.array([other]))[0] / area) if area > 0 else 0.0
