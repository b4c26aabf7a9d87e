"""Does it matter? Hide a part of the picture, watch the answer, and compare with random masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from attnlib.errors import NeedsError
from attnlib.evaluate.answer import read_answer
from attnlib.evaluate.perturbation import fill_values
from attnlib.interpretation.remake import first_tensor
from attnlib.interpretation.wording import count, percent
from attnlib.picture import View
from attnlib.regions import Region, Regions

__all__ = ["FILLS", "MOST_FORWARDS", "CausalCheck", "Use", "causal_check", "use_note"]

FILLS = ("blur", "mean colour")
"""What a hidden part is filled with."""
MOST_FORWARDS = 70
"""The check never runs the model more often than this."""
_POOL, _LEAST_POOL = 40, 24
_USED, _LITTLE = 0.95, 0.5
_FREE = 0.05  # a random mask may lie on the main parts with at most this part of its area


@dataclass(frozen=True)
class Use:
    """What hiding a region does to the answer.

    Parameters
    ----------
    verdict : "used", "little used" or "unclear".
    attended : whether the region is in the moderate or highest band.
    percentiles : per fill, the part of the random masks whose change, brought to the same area, is
        at most as large.
    changes : per fill, the change of the answer (outside the hidden part, if the answer is a map).
    inside : per fill, the change inside the hidden part, if the answer is a map.
    pool : number of random masks.
    answer : what was watched.
    """

    verdict: str
    attended: bool
    percentiles: dict[str, float]
    changes: dict[str, float]
    inside: dict[str, float] | None
    pool: int
    answer: str

    @property
    def words(self) -> str:
        """The verdict beside the attention."""
        if self.verdict == "unclear":
            return f"{'attended' if self.attended else 'little attended'}, use unclear"
        used = self.verdict == "used"
        if self.attended:
            return "attended and used" if used else "attended, little used"
        return "little attended, but used" if used else "little attended and little used"

    def sentence(self) -> str:
        """Say how the change compares with that of random masks."""
        told = " and ".join(f"{percent(self.percentiles[fill])} ({fill})" for fill in FILLS)
        return (
            f"Hiding it changes {self.answer} at least as much as {told} of {self.pool} random masks do for "
            f"their area: {self.words}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return {
            "verdict": self.verdict,
            "words": self.words,
            "attended": self.attended,
            "percentiles": dict(self.percentiles),
            "changes": dict(self.changes),
            "inside": None if self.inside is None else dict(self.inside),
            "pool": self.pool,
            "answer": self.answer,
        }


@dataclass(frozen=True, eq=False)
class CausalCheck:
    """The uses of all regions that were checked.

    Parameters
    ----------
    uses : region name -> use.
    answer : what was watched.
    forwards : how often the model ran.
    pool : number of random masks.
    slope : how the change of random masks grows with their area, as a power.
    """

    uses: dict[str, Use]
    answer: str
    forwards: int
    pool: int
    slope: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return {
            "answer": self.answer,
            "forwards": self.forwards,
            "pool": self.pool,
            "slope": self.slope,
            "fills": list(FILLS),
            "uses": {name: use.to_dict() for name, use in self.uses.items()},
        }


@torch.no_grad()
def causal_check(
    regions: Sequence[Region],
    attended: Sequence[bool],
    model: Callable[..., Any],
    inputs: dict[str, Any],
    view: View,
    size: tuple[int, int],
    *,
    labels: tuple[str, ...] = (),
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> CausalCheck:
    """Hide each region with two fills and compare the change of the answer with random masks.

    About forty random rectangles of the regions' sizes and shapes, off the regions, are hidden, half of
    them with each fill. Their change grows with the area; a straight line through the logarithms,
    with its own height for each fill, brings all of them to the area of a region. A region is "used"
    if its change reaches the 95th percentile under both fills, "little used" if it stays at or below
    the 50th under both, else the use is "unclear".

    Parameters
    ----------
    regions, attended : at most fourteen, and whether the map puts them into the moderate band or higher.
    model : the forward pass.
    inputs : its keyword arguments for the picture.
    view, size : what the input shows of the picture, and the size of the picture.
    labels : names of the classes.
    seed : of the random masks.
    progress : called once for each forward pass.

    Raises
    ------
    NeedsError
        If the output cannot be compared, or there is no room for random masks off the regions.
    """
    name, pixels = first_tensor(inputs)
    shown = (int(pixels.shape[-2]), int(pixels.shape[-1]))
    regions = list(regions)[: (MOST_FORWARDS - _POOL - 1) // len(FILLS)]
    hidden = Regions(tuple(regions), size).on_grid(shown, view.box)
    visible = [place for place in range(len(regions)) if float(hidden[place].sum()) >= 1]
    if not visible:
        raise NeedsError("the model saw none of the parts")
    masks = random_masks(hidden[visible], np.random.default_rng(seed))
    if len(masks) < _LEAST_POOL:
        raise NeedsError(
            f"only {len(masks)} random masks of like area fit beside the parts; {_LEAST_POOL} are needed"
        )
    base = model(**inputs)
    answer = read_answer(base, labels)
    fills = {"blur": fill_values(pixels, "blur"), "mean colour": fill_values(pixels, "mean")}
    forwards = 1
    progress("the picture as it is")

    def change(mask: Tensor, fill: str) -> tuple[float, float | None]:
        nonlocal forwards
        cover = mask.to(pixels)[None, None]
        changed = model(**{**inputs, name: pixels * (1 - cover) + fills[fill] * cover})
        forwards += 1
        return answer.change(changed, mask)

    pool = []
    for place, mask in enumerate(masks):
        pool.append(change(mask, FILLS[place % len(FILLS)])[0])
        progress(f"random mask {place + 1}")
    scale = _Scale.fit([float(mask.mean()) for mask in masks], pool)
    uses = {}
    for place in visible:
        found = {}
        for fill in FILLS:
            found[fill] = change(hidden[place], fill)
            progress(f"{regions[place].name}, {fill}")
        area = float(hidden[place].mean())
        ranks = {fill: scale.percentile(area, found[fill][0], number) for number, fill in enumerate(FILLS)}
        inside = {fill: value[1] for fill, value in found.items() if value[1] is not None}
        uses[regions[place].name] = Use(
            _verdict(list(ranks.values())),
            bool(attended[place]),
            ranks,
            {fill: value[0] for fill, value in found.items()},
            inside or None,
            len(masks),
            answer.name,
        )
    return CausalCheck(uses, answer.name, forwards, len(masks), scale.slope)


def random_masks(
    hidden: Float[Tensor, "region height width"], rng: np.random.Generator
) -> list[Float[Tensor, "height width"]]:
    """Return up to forty rectangles with areas and shapes like the regions', off all of them."""
    height, width = hidden.shape[-2:]
    taken = hidden.amax(dim=0).double().numpy()
    summed = np.pad(taken, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    areas, ratios = [], []
    for one in hidden:
        rows, columns = torch.nonzero(one.any(dim=1)), torch.nonzero(one.any(dim=0))
        tall, wide = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
        areas.append(max(float(one.sum()), 1.0))
        ratios.append(wide / tall)
    masks = []
    for _ in range(4000):
        if len(masks) == _POOL:
            break
        area = np.exp(rng.uniform(np.log(min(areas)), np.log(max(areas))))
        ratio = ratios[rng.integers(len(ratios))] * np.exp(rng.uniform(-0.3, 0.3))
        if rng.random() < 0.5:
            ratio = 1 / ratio  # lying and standing: a long line of text must find free room
        tall, wide = round(np.sqrt(area / ratio)), round(np.sqrt(area * ratio))
        if not (1 <= tall < height and 1 <= wide < width):
            continue
        top, left = int(rng.integers(height - tall)), int(rng.integers(width - wide))
        bottom, right = top + tall, left + wide
        under = summed[bottom, right] - summed[top, right] - summed[bottom, left] + summed[top, left]
        if under <= _FREE * tall * wide:
            mask = torch.zeros(height, width)
            mask[top:bottom, left:right] = 1
            masks.append(mask)
    return masks


@dataclass(frozen=True, eq=False)
class _Scale:
    """The line log(change) = height[fill] + slope * log(area), and what the masks are off it."""

    slope: float
    heights: tuple[float, ...]
    residuals: np.ndarray
    floor: float

    @classmethod
    def fit(cls, areas: Sequence[float], changes: Sequence[float]) -> _Scale:
        floor = max(float(np.median(changes)) * 1e-3, 1e-12)
        x, y = np.log(np.asarray(areas)), np.log(np.asarray(changes) + floor)
        fill = np.arange(len(areas)) % len(FILLS)
        means = [(x[fill == k].mean(), y[fill == k].mean()) for k in range(len(FILLS))]
        dx = x - np.array([m[0] for m in means])[fill]
        dy = y - np.array([m[1] for m in means])[fill]
        # areas that hardly differ say nothing about the slope: then the change counts per area
        slope = float(np.clip((dx @ dy + 1.0) / (dx @ dx + 1.0), 0.0, 2.0))
        heights = tuple(float(m[1] - slope * m[0]) for m in means)
        return cls(slope, heights, np.sort(dy - slope * dx), floor)

    def percentile(self, area: float, change: float, fill: int) -> float:
        off = np.log(change + self.floor) - self.heights[fill] - self.slope * np.log(area)
        return float((self.residuals <= off + 1e-12).mean())


def _verdict(percentiles: Sequence[float]) -> str:
    if min(percentiles) >= _USED:
        return "used"
    return "little used" if max(percentiles) <= _LITTLE else "unclear"


def use_note(check: CausalCheck) -> str:
    """Say what was done, and what it cannot say."""
    return (
        f"The check on use ran the model {count(check.forwards, 'time')} and watched {check.answer}; a "
        "hidden part looks like nothing the model was trained on, and where the picture says the same thing "
        "twice hiding one place changes little."
    )
