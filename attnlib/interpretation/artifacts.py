"""Artifact patches: patches in which the model keeps what is not about their place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnlib.evaluate.artifacts import MADS, artifact_patches
from attnlib.interpretation.remake import MapMaker
from attnlib.interpretation.wording import count, percent, times
from attnlib.record import AttentionRecord, Relevance

__all__ = ["RECEIVED", "Artifacts", "find_artifacts"]

RECEIVED = 10.0
"""A patch is an artifact if it gets this many times the even share on average over all queries."""


@dataclass(frozen=True, eq=False)
class Artifacts:
    """The artifact patches of a map, and what they hold.

    Parameters
    ----------
    patches : which patches are artifacts.
    share : what they hold of the attention.
    by_norm, by_received : how many were found by either rule; ``by_norm`` is None where the record does
        not hold the final states.
    set_aside : whether they were left out of all other numbers.
    highest : the largest multiple of the even share among them.
    """

    patches: Bool[Tensor, "height width"]
    share: float
    by_norm: int | None
    by_received: int
    set_aside: bool
    highest: float

    @property
    def count(self) -> int:
        """Number of artifact patches."""
        return int(self.patches.sum())

    def sentence(self) -> str:
        """Say what was found, also if it is nothing."""
        total = self.patches.numel()
        rules = [f"{self.by_received} by {RECEIVED:g} times the even share over all queries"]
        if self.by_norm is not None:
            rules.insert(0, f"{self.by_norm} by a norm above the median plus {MADS:g} deviations")
        found = " and ".join(rules)
        if self.count == 0:
            return f"Artifact patches: 0 of {total:,} ({found})."
        aside = (
            "they are set aside, and all shares are shares of the rest"
            if self.set_aside
            else "they are counted in the shares above"
        )
        return (
            "Artifact patches, in which a model keeps what is not about their place: "
            f"{count(self.count, 'patch', 'patches')} of {total:,} ({found}) with {percent(self.share)} of "
            f"the mass, up to {times(self.highest)} times the even share; {aside}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return {
            "patches": torch.nonzero(self.patches).tolist(),
            "share": self.share,
            "by_norm": self.by_norm,
            "by_received": self.by_received,
            "set_aside": self.set_aside,
            "highest": self.highest,
        }


def find_artifacts(
    relevance: Relevance, record: AttentionRecord, make: MapMaker, *, set_aside: bool
) -> Artifacts:
    """Find artifact patches by the norm of their final state and by what all queries give them.

    Parameters
    ----------
    relevance : the map of one picture.
    record : its attention, captured with internals.
    make : how the map was made; it is made once more for the mean of all queries.
    set_aside : whether the caller leaves them out of the other numbers.
    """
    grid = relevance.layout.grid or (1, 1)
    norms = _norms(record)
    large = torch.zeros(grid, dtype=torch.bool)
    if norms is not None:
        large = artifact_patches(norms[None, relevance.layout.patch_slice].unflatten(1, grid))[0]
    received = make.explained(record, "mean").lift(without_identity=True)[0] >= RECEIVED
    both = large | received
    return Artifacts(
        patches=both,
        share=float((relevance.share(without_identity=True)[0] * both).sum()),
        by_norm=None if norms is None else int(large.sum()),
        by_received=int(received.sum()),
        set_aside=set_aside,
        highest=float((relevance.lift(without_identity=True)[0] * both).max()),
    )


def _norms(record: AttentionRecord) -> Float[Tensor, "token"] | None:
    """Return the norm of every token after the last block, or None if the record does not hold it."""
    for layer in reversed(record.layers):
        held = layer.internals
        total = getattr(held, "second_total", None)
        total = getattr(held, "total", None) if total is None else total
        if isinstance(total, Tensor) and total.shape[1] == record.layout.num_tokens:
            return total[0].detach().float().norm(dim=-1).cpu()
    return None
