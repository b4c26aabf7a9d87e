"""An attention call of which only the shape was kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from attnlib.errors import NeedsError
from attnlib.record.sources import Index

__all__ = ["ReleasedAttention"]


@dataclass(eq=False, repr=False)
class ReleasedAttention:
    """Stands for a call that nobody asked for: its tensors were let go as soon as that was known."""

    name: str
    shape: tuple[int, int, int, int]
    kind_of_source: str = "released"
    nbytes: int = 0

    def weights(self, heads: Index, queries: Index) -> NoReturn:  # noqa: ARG002
        """Refuse: nothing was kept."""
        raise NeedsError(f"{self.name} was not among the layers= or kinds= of the capture: capture it too")

    def gradients(self, heads: Index, queries: Index) -> NoReturn:
        """Refuse: nothing was kept."""
        self.weights(heads, queries)

    def values(self, heads: Index) -> NoReturn:
        """Refuse: nothing was kept."""
        self.weights(heads, slice(None))

    def only_heads(self, heads: list[int]) -> ReleasedAttention:
        """Return the same with fewer heads."""
        batch, _, queries, keys = self.shape
        return ReleasedAttention(self.name, (batch, len(heads), queries, keys))
