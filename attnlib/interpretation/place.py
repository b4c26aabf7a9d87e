"""Position: what the same place gets on pictures without content."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attnlib.interpretation.wording import spoken_range
from attnlib.picture import Picture
from attnlib.record import Relevance
from attnlib.regions import Region, Regions

__all__ = ["PositionShare", "content_free", "position_shares"]

_SCRAMBLED = 4


@dataclass(frozen=True)
class PositionShare:
    """What the place of a region gets on inputs without content.

    Parameters
    ----------
    share : what the region gets in the picture itself.
    shares : what its place gets on each content-free input.
    inputs : names of these inputs.
    """

    share: float
    shares: tuple[float, ...]
    inputs: tuple[str, ...]

    @property
    def exceeds(self) -> bool:
        """Whether the picture gives more than every content-free input."""
        return self.share > max(self.shares)

    def sentence(self) -> str:
        """Say whether the place alone would explain the share."""
        count, found = len(self.shares), spoken_range(min(self.shares), max(self.shares))
        if self.exceeds:
            return f"On {count} inputs without content the same place gets {found}: because of what is there."
        more = sum(other >= self.share for other in self.shares)
        return (
            f"On {count} inputs without content the same place gets {found}, in {more} of them as much or "
            "more: the place alone may explain this share."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return {
            "share": self.share,
            "position_share": list(self.shares),
            "largest_position_share": max(self.shares),
            "inputs": list(self.inputs),
            "exceeds": self.exceeds,
        }


def content_free(picture: Picture, *, seed: int = 0) -> Mapping[str, Picture]:
    """Return pictures without content: the mean colour, and copies of the picture with scrambled phases.

    Scrambling the phases keeps how strongly each fineness is present in each colour (the amplitude
    spectrum) and destroys every form.

    Parameters
    ----------
    picture : the original.
    seed : of the scrambling.
    """
    pixels = picture.pixels
    flat = np.broadcast_to(pixels.reshape(-1, 3).mean(axis=0).round().astype(np.uint8), pixels.shape)
    free = {"mean colour": Picture(np.ascontiguousarray(flat), picture.name)}
    spectrum = np.fft.rfft2(pixels.astype(np.float32), axes=(0, 1))
    mean = pixels.reshape(-1, 3).mean(axis=0)
    for number in range(1, _SCRAMBLED + 1):
        noise = np.random.default_rng(seed + number).standard_normal(pixels.shape[:2])
        turn = np.exp(1j * np.angle(np.fft.rfft2(noise)))[..., None]  # one turn for all colours
        mixed = np.fft.irfft2(spectrum * turn, s=pixels.shape[:2], axes=(0, 1))
        mixed += mean - mixed.mean(axis=(0, 1))
        free[f"scrambled phases {number}"] = Picture(
            np.clip(mixed + 0.5, 0, 255).astype(np.uint8), picture.name
        )
    return free


def position_shares(
    regions: Sequence[Region],
    shares: Sequence[float],
    picture: Picture,
    make: Callable[..., Relevance],
    progress: Callable[[str], None],
) -> dict[str, PositionShare]:
    """Make the map for content-free inputs and measure the places of the regions.

    Parameters
    ----------
    regions, shares : what is measured, and what it gets in the picture.
    picture : the original.
    make : makes the map of another picture, as a :class:`MapMaker` does.
    progress : called once for each input.
    """
    held = Regions(tuple(regions), picture.size)
    found: dict[str, list[float]] = {region.name: [] for region in regions}
    inputs = content_free(picture)
    for name, other in inputs.items():
        relevance = make(other)
        for region, values in held.shares(relevance).items():
            found[region].append(float(values["share"][0]))
        progress(name)
    return {
        region.name: PositionShare(share, tuple(found[region.name]), tuple(inputs))
        for region, share in zip(regions, shares, strict=True)
    }
