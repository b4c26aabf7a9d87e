"""Attention of generation steps: the growing keys and values are kept once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attnlib.record.sources import AttentionSource, Index, ProjectedAttention

__all__ = ["REORDERED", "SLID", "KeyStore", "SteppedAttention", "sees_nothing_behind"]

SLID = "its keys are those of the last tokens: the cache keeps a window and forgets what is before it"
REORDERED = (
    "other keys than those of the step before: items were reordered or dropped between them (beams), or the "
    "cache writes them anew (a quantised one)"
)


_BLOCK = 256  # rows


def sees_nothing_behind(source: AttentionSource, length: int) -> bool:
    """Tell whether the keys from ``length`` on are hidden, as places of a cache that no token has filled."""
    _, _, rows, keys = source.shape
    if keys <= length:
        return False
    blocks = (list(range(start, min(start + _BLOCK, rows))) for start in range(0, rows, _BLOCK))
    return not any(bool(source.weights([0], block)[..., length:].any()) for block in blocks)


@dataclass(eq=False, repr=False)
class KeyStore:
    """Keys and values of one layer, as the last step saw them."""

    key: Float[Tensor, "batch kv_head key dim"]
    value: Float[Tensor, "batch kv_head key value_dim"]

    def grow(self, key: Tensor, value: Tensor) -> bool:
        """Take over longer keys and values that start with the ones held; tell whether they do."""
        length = self.key.shape[2]
        if key.shape[:2] != self.key.shape[:2] or key.shape[2] < length:
            return False
        probe = sorted({0, length // 3, length // 2, length - 1})
        same = torch.equal(key[:, :, probe], self.key[:, :, probe])
        if not same or not torch.equal(value[:, :, probe], self.value[:, :, probe]):
            return False
        self.key, self.value = key, value
        return True


@dataclass(eq=False, repr=False)
class SteppedAttention:
    """One step of a generation: its queries, against the first ``length`` keys of a store."""

    query: Float[Tensor, "batch head query dim"]
    store: KeyStore
    length: int
    mask: Tensor | None = None
    is_causal: bool = False
    scale: float = 1.0
    output_gradient: Tensor | None = None
    kind_of_source: str = "sdpa"

    @property
    def key(self) -> Tensor:
        """The keys this step saw."""
        return self.store.key[:, :, : self.length]

    @property
    def value(self) -> Tensor:
        """The values this step saw."""
        return self.store.value[:, :, : self.length]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(batch, heads, queries, keys)."""
        batch, heads, queries, _ = self.query.shape
        return batch, heads, queries, self.length

    @property
    def nbytes(self) -> int:
        """Bytes kept alive by this step alone; the store counts once, for the last step."""
        held = [self.query, self.mask, self.output_gradient]
        if self.length == self.store.key.shape[2]:
            held += [self.store.key, self.store.value]
        return sum(t.numel() * t.element_size() for t in held if t is not None)

    def weights(self, heads: Index, queries: Index) -> Float[Tensor, "batch head query key"]:
        """Return softmax rows of this step."""
        return self._whole().weights(heads, queries)

    def gradients(self, heads: Index, queries: Index) -> Float[Tensor, "batch head query key"]:
        """Return dO V^T of this step."""
        return self._whole().gradients(heads, queries)

    def values(self, heads: Index) -> Float[Tensor, "batch head key dim"]:
        """Return the value vectors this step saw."""
        return self._whole().values(heads)

    def only_heads(self, heads: list[int]) -> ProjectedAttention:
        """Return a copy that holds some heads."""
        return self._whole().only_heads(heads)

    def masked_rows(self) -> int:
        """Count the rows that may attend to nothing."""
        return self._whole().masked_rows()

    def _whole(self) -> ProjectedAttention:
        return ProjectedAttention(
            self.query, self.key, self.value, self.mask, self.is_causal, self.scale, self.output_gradient
        )
