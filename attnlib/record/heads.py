"""Heads that a model computes one by one, seen as the heads of one layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from attnlib.record.sources import AttentionSource, Index

__all__ = ["HeadsAttention"]


@dataclass(eq=False, repr=False)
class HeadsAttention:
    """Calls side by side on the same tokens, whose results are put together: heads of one layer.

    Parameters
    ----------
    parts : sources of the calls, of the same batch, queries and keys, in call order.
    """

    parts: tuple[AttentionSource, ...]
    kind_of_source: str = field(init=False)  # that of the first head

    def __post_init__(self) -> None:
        self.kind_of_source = self.parts[0].kind_of_source

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(batch, heads, queries, keys)."""
        batch, _, queries, keys = self.parts[0].shape
        return batch, sum(part.shape[1] for part in self.parts), queries, keys

    @property
    def nbytes(self) -> int:
        """Bytes kept alive by this source."""
        return sum(part.nbytes for part in self.parts)

    def weights(self, heads: Index, queries: Index) -> Float[Tensor, "batch head query key"]:
        """Return the weights of some heads and query rows."""
        return self._read(heads, lambda part, own: part.weights(own, queries))

    def gradients(self, heads: Index, queries: Index) -> Float[Tensor, "batch head query key"]:
        """Return d score / d weights of some heads and query rows."""
        return self._read(heads, lambda part, own: part.gradients(own, queries))

    def values(self, heads: Index) -> Float[Tensor, "batch head key dim"]:
        """Return the value vectors."""
        return self._read(heads, lambda part, own: part.values(own))

    def only_heads(self, heads: list[int]) -> HeadsAttention:
        """Return a copy that holds some heads."""
        chosen = [self._places()[head] for head in heads]
        return HeadsAttention(tuple(self.parts[at].only_heads([own]) for at, own in chosen))  # type: ignore[attr-defined]

    def _places(self) -> list[tuple[int, int]]:
        return [(at, own) for at, part in enumerate(self.parts) for own in range(part.shape[1])]

    def _read(self, heads: Index, read: Callable[[AttentionSource, list[int]], Tensor]) -> Tensor:
        places = self._places()
        chosen = places[heads] if isinstance(heads, slice) else [places[head] for head in heads]
        return torch.cat([read(self.parts[at], [own]) for at, own in chosen], dim=1)
