"""Stability: the same picture, eight times slightly different."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from attnlib.bands import BAND_NAMES
from attnlib.evaluate.perturbation import gaussian
from attnlib.interpretation.wording import band_of, spoken_range
from attnlib.picture import Box, Picture, View, load_picture
from attnlib.record import Relevance
from attnlib.regions import Region, Regions

__all__ = ["NEEDED", "NamedView", "Stability", "eight_views", "stability_of"]

NEEDED = 7
"""A band is stable if at least this many of the eight views put the region into it."""
_CROP = 0.95
_QUALITY = 50


@dataclass(frozen=True, eq=False)
class NamedView:
    """A changed copy of a picture, and where the original lies in it.

    Parameters
    ----------
    name : what was done, in words.
    picture : the copy.
    offset : (x, y) of the original that stands at the top left corner of the copy.
    mirrored : whether left and right are exchanged (after the offset).
    """

    name: str
    picture: Picture
    offset: tuple[float, float] = (0.0, 0.0)
    mirrored: bool = False

    def place(self, x: float | int, y: float | int) -> tuple[float, float]:
        """Return where a place of the original lies in the copy."""
        x, y = x - self.offset[0], y - self.offset[1]
        return (self.picture.size[1] - x if self.mirrored else x), y

    def window(self, box: Box) -> Box:
        """Return the box of the original that a box of the copy shows."""
        left, top, right, bottom = box
        if self.mirrored:
            left, right = self.picture.size[1] - right, self.picture.size[1] - left
        x, y = self.offset
        return left + x, top + y, right + x, bottom + y


@dataclass(frozen=True)
class Stability:
    """How the share of a region varies over the views; a range, no confidence interval.

    Every view is measured on the part of the picture that all views show; one factor, that of the
    original, brings these shares back to the whole picture.

    Parameters
    ----------
    low, high : smallest and largest share over the views.
    same_band : in how many views the region is in the band of the claim.
    views : names of the views.
    shares : one per view.
    bands : one per view.
    """

    low: float
    high: float
    same_band: int
    views: tuple[str, ...]
    shares: tuple[float, ...]
    bands: tuple[str, ...]

    @property
    def stable(self) -> bool:
        """Whether enough views agree on the band."""
        return self.same_band >= NEEDED

    def sentence(self, band: str) -> str:
        """Say the range, and whether the band holds."""
        text = f"Range over {len(self.views)} views: {spoken_range(self.low, self.high)}"
        if self.stable:
            return f"{text}, in this band in {self.same_band} of {len(self.views)}."
        others = sorted(set(self.bands) - {band}, key=BAND_NAMES.index)
        also = f" (also {' and '.join(others)})" if others else ""
        return f"{text}, in this band in only {self.same_band} of {len(self.views)}{also}."

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return {
            "low": self.low,
            "high": self.high,
            "same_band": self.same_band,
            "stable": self.stable,
            "views": list(self.views),
            "shares": list(self.shares),
            "bands": list(self.bands),
        }


def eight_views(picture: Picture, patch: tuple[float, float], *, text: bool) -> tuple[NamedView, ...]:
    """Return eight slightly changed copies of a picture.

    Parameters
    ----------
    picture : the original.
    patch : (height, width) of a patch in pixels of the original; the shifts are no multiple of it.
    text : whether there is lettering: then nothing is mirrored.
    """
    height, width = picture.size
    views = [
        _moved(picture, 0.4 * patch[1], 0.3 * patch[0], "moved right and down by a part of a patch"),
        _moved(picture, -0.3 * patch[1], -0.45 * patch[0], "moved left and up by a part of a patch"),
    ]
    if text:
        views.append(
            _moved(picture, 0.45 * patch[1], -0.4 * patch[0], "moved right and up by a part of a patch")
        )
    else:
        flipped = np.ascontiguousarray(picture.pixels[:, ::-1])
        views.append(NamedView("mirrored", Picture(flipped, picture.name), mirrored=True))
    tall, wide = max(1, round(_CROP * height)), max(1, round(_CROP * width))
    for name, top, left in (
        ("cropped to the middle 95 %", (height - tall) // 2, (width - wide) // 2),
        ("cropped to the upper left 95 %", 0, 0),
        ("cropped to the lower right 95 %", height - tall, width - wide),
    ):
        cut = np.ascontiguousarray(picture.pixels[top : top + tall, left : left + wide])
        views.append(NamedView(name, Picture(cut, picture.name), (float(left), float(top))))
    radius = max(0.6, 0.06 * min(patch))
    views.append(NamedView("blurred mildly", Picture(blurred(picture.pixels, radius), picture.name)))
    views.append(NamedView(f"saved as JPEG of quality {_QUALITY}", _as_jpeg(picture)))
    return tuple(views)


def stability_of(
    regions: Sequence[Region],
    bands: Sequence[str],
    base: Relevance,
    picture: Picture,
    make: Callable[..., Relevance],
    cuts: Sequence[float],
    *,
    text: bool,
    progress: Callable[[str], None],
) -> dict[str, Stability]:
    """Make the map for eight views and measure the regions in the part that all of them show.

    Parameters
    ----------
    regions, bands : what is measured, and the band that its claim states.
    base : the map of the original.
    picture : the original.
    make : makes the map of a copy, as a :class:`MapMaker` does.
    cuts : of the bands, in multiples of the even share.
    text : whether there is lettering.
    progress : called once for each view.
    """
    grid = base.layout.grid or (1, 1)
    window = _window(base, base.views[0] if base.views else View.whole(picture.size, picture.size))
    patch = ((window[3] - window[1]) / grid[0], (window[2] - window[0]) / grid[1])
    maps, windows, views = [], [], eight_views(picture, patch, text=text)
    for view in views:
        relevance = make(view.picture, view.place)
        seen = relevance.views[0] if relevance.views else View.whole(view.picture.size, view.picture.size)
        share = relevance.share(without_identity=True)[0].double()
        maps.append(share.flip(-1) if view.mirrored else share)
        windows.append(view.window(_window(relevance, seen)))
        progress(view.name)
    height, width = picture.size
    field = _common((0.0, 0.0, float(width), float(height)), window, *windows)
    everything = Regions(
        (*(_cut(region, field) for region in regions), _field(picture.size, field)), picture.size
    )
    result = {}
    base_share = base.share(without_identity=True)[0].double()
    base_seen = base.patches_seen()[0].to(base_share)
    base_cover = everything.on_grid(grid, window).double()
    whole = Regions(tuple(regions), picture.size).on_grid(grid, window).double()
    covers = [
        everything.on_grid(tuple(one.shape), box).double() for one, box in zip(maps, windows, strict=True)
    ]
    for place, (region, band) in enumerate(zip(regions, bands, strict=True)):
        if everything[place].area < 0.5 * region.area:
            continue  # too little of it is in every view
        reference = _part(base_share, base_cover, place)
        share = float((base_share * whole[place]).sum())
        factor = share / reference if reference > 0 else 1.0
        area = float((whole[place] * base_seen).sum() / base_seen.sum())
        shares = [factor * _part(one, cover, place) for one, cover in zip(maps, covers, strict=True)]
        found = tuple(BAND_NAMES[band_of(share / area if area > 0 else 0.0, cuts)] for share in shares)
        names = tuple(view.name for view in views)
        result[region.name] = Stability(
            min(shares), max(shares), found.count(band), names, tuple(shares), found
        )
    return result


def _part(share: torch.Tensor, cover: torch.Tensor, place: int) -> float:
    """Return the share of a region, of what lies on the part that all views show (the last cover)."""
    held = float((share * cover[-1]).sum())
    return float((share * cover[place]).sum()) / held if held > 0 else 0.0


def blurred(pixels: np.ndarray, radius: float) -> np.ndarray:
    """Return a picture blurred by a Gaussian of standard deviation ``radius``, in pixels."""
    tensor = torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None]
    soft = gaussian(tensor, radius)[0].permute(1, 2, 0)
    return (soft + 0.5).clamp(0, 255).to(torch.uint8).numpy()


def _moved(picture: Picture, right: float, down: float, name: str) -> NamedView:
    """Move the content by whole pixels; the border that comes in repeats the edge."""
    x, y = (int(np.sign(step)) * max(1, round(abs(step))) for step in (right, down))
    before, after = (max(y, 0), max(x, 0)), (max(-y, 0), max(-x, 0))
    padded = np.pad(picture.pixels, ((before[0], after[0]), (before[1], after[1]), (0, 0)), mode="edge")
    height, width = picture.size
    cut = padded[after[0] : after[0] + height, after[1] : after[1] + width]
    return NamedView(name, Picture(np.ascontiguousarray(cut), picture.name), (-float(x), -float(y)))


def _as_jpeg(picture: Picture) -> Picture:
    buffer = io.BytesIO()
    picture.to_pil().save(buffer, "JPEG", quality=_QUALITY)
    return Picture(load_picture(buffer.getvalue()).pixels, picture.name)


def _window(relevance: Relevance, view: View) -> Box:
    return view.grid_window(relevance.layout.grid or (1, 1), relevance.layout.patch_size)


def _common(*boxes: Box) -> Box:
    edges = np.array(boxes)
    left, top = edges[:, :2].max(axis=0).tolist()
    right, bottom = edges[:, 2:].min(axis=0).tolist()
    return left, top, right, bottom


def _cut(region: Region, field: Box) -> Region:
    left, top, right, bottom = (round(edge) for edge in field)
    mask = np.zeros_like(region.mask)
    window = (slice(max(top, 0), bottom), slice(max(left, 0), right))
    mask[window] = region.mask[window]
    return Region(region.name, mask, region.kind)


def _field(size: tuple[int, int], field: Box) -> Region:
    return _cut(Region("all", np.ones(size, dtype=bool)), field)
