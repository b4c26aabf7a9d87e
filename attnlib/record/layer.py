"""LayerAttention: one attention call, as dead data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from attnlib.errors import InputError, LayoutError
from attnlib.layout import TokenLayout
from attnlib.record.indices import Indices, whole_numbers
from attnlib.record.placed import PlacedAttention
from attnlib.record.sources import AttentionSource

__all__ = ["LayerAttention"]


@dataclass(eq=False, repr=False)
class LayerAttention:
    """One attention call: who it belongs to, and its weights on demand.

    Parameters
    ----------
    name : module path that made the call, such as "vit.layers.3.attention".
    index : position in call order within its stream; stays the same after :meth:`AttentionRecord.select`.
    kind : "self", "cross" or "pool" (a learned query that reads the tokens).
    stream : "vision", "text", "encoder", "decoder" ...
    source : what computes the weights.
    query_layout, key_layout : layouts of the two token axes, where known.
    heads : original indices of the heads that were kept; None = all.
    queries : original indices of the query rows that were kept; None = all.
    total_heads, total_queries : heads and query rows of the layer, kept or not; None = those of ``source``.
    step : generation step, for calls inside ``generate``; None otherwise.
    internals : what norm-based methods need, if it was captured.
    key_stream : the stream that the keys belong to, for cross-attention; None = not known, or the own one.
    notes : what a reader of the weights should know.
    unplaced : why windows cannot be shown at the positions of their tokens; None if they can.
    """

    name: str
    index: int
    kind: str
    source: AttentionSource
    stream: str = "tokens"
    query_layout: TokenLayout | None = None
    key_layout: TokenLayout | None = None
    heads: tuple[int, ...] | None = None
    queries: tuple[int, ...] | None = None
    total_heads: int | None = None
    total_queries: int | None = None
    step: int | None = None
    internals: Any = None
    notes: tuple[str, ...] = ()
    key_stream: str | None = None
    unplaced: str | None = None

    @property
    def batch_size(self) -> int:
        """Number of items in the batch."""
        return self.source.shape[0]

    @property
    def num_heads(self) -> int:
        """Number of heads of the layer (kept or not)."""
        return self.total_heads or self.source.shape[1]

    @property
    def num_queries(self) -> int:
        """Number of query rows of the layer (kept or not)."""
        return self.total_queries or self.source.shape[2]

    @property
    def num_keys(self) -> int:
        """Number of keys."""
        return self.source.shape[3]

    def weights(
        self, *, heads: Indices | None = None, queries: Indices | slice | None = None
    ) -> Float[Tensor, "batch head query key"]:
        """Compute post-softmax attention weights: row = query (receives), column = key (gives).

        Parameters
        ----------
        heads : original head indices; None = all that were kept.
        queries : original query rows, an index, a list or a slice; None = all that were kept.

        Returns
        -------
        float32, or the model's dtype if wider. Rows sum to 1, except fully masked rows (0) and
        attention sinks (below 1); both are in ``notes``.

        Raises
        ------
        InputError
            If a selection is empty, outside the layer, or was not captured.
        LayoutError
            If windows share query positions, so that no one row of weights belongs to a position.
        LayoutError
            If the layer works in windows that cannot be placed; see :meth:`window_weights`.
        """
        self._refuse_unplaced()
        weights = self.source.weights(*self._stored(heads, queries))
        if isinstance(self.source, PlacedAttention) and float(weights.sum(dim=-1).amax()) > 1.01:
            raise LayoutError(
                f"the windows of {self.name} share query positions: placed on the image their rows sum to "
                f"{float(weights.sum(dim=-1).amax()):.3g} instead of 1; use window_weights()"
            )
        return weights

    def window_weights(self, *, heads: Indices | None = None) -> Float[Tensor, "window head query key"]:
        """Compute the weights inside the windows, as the model does: one item of the first axis is a window.

        Parameters
        ----------
        heads : original head indices; None = all that were kept.

        Returns
        -------
        For a layer without windows, its weights: the whole item is one window.
        """
        chosen = self._stored(heads, None)[0]
        if isinstance(self.source, PlacedAttention):
            return self.source.window_weights(chosen)
        return self.source.weights(chosen, slice(None))

    def gradients(
        self, *, heads: Indices | None = None, queries: Indices | slice | None = None
    ) -> Float[Tensor, "batch head query key"]:
        """Compute d score / d weights, from the gradient at the output of the call: dO V^T.

        Parameters
        ----------
        heads, queries : as for :meth:`weights`.

        Raises
        ------
        NeedsError
            If the record was captured without a target.
        """
        self._refuse_unplaced()
        return self.source.gradients(*self._stored(heads, queries))

    def values(self, *, heads: Indices | None = None) -> Float[Tensor, "batch head key dim"]:
        """Return the value vectors, one set per query head."""
        return self.source.values(self._stored(heads, None)[0])

    def _refuse_unplaced(self) -> None:
        if self.unplaced is not None:
            raise LayoutError(
                f"{self.name} works in windows that cannot be shown at the positions of their tokens: "
                f"{self.unplaced}. window_weights() gives them raw"
            )

    def _stored(
        self, heads: Indices | None, queries: Indices | slice | None
    ) -> tuple[slice | list[int], slice | list[int]]:
        return (
            _positions(heads, self.num_heads, self.heads, f"heads of {self.name}"),
            _positions(queries, self.num_queries, self.queries, f"queries of {self.name}"),
        )

    def __repr__(self) -> str:
        batch, heads, queries, keys = self.source.shape
        return (
            f"LayerAttention({self.stream} {self.index}, {self.kind}, {self.name!r}, batch {batch}, "
            f"{heads} heads, {queries}x{keys}, from {self.source.kind_of_source})"
        )


def _positions(
    wanted: Indices | slice | None,
    total: int,
    kept: tuple[int, ...] | None,
    what: str,
) -> slice | list[int]:
    """Turn original indices into positions of what was kept."""
    if wanted is None:
        return slice(None)
    if isinstance(wanted, slice):
        if kept is None and (wanted.step is None or wanted.step > 0):
            if len(range(total)[wanted]) == 0:
                raise InputError(f"empty selection of {what}: None means all")
            return wanted
        wanted = range(total)[wanted]
    chosen = whole_numbers(wanted, what)
    outside = [i for i in chosen if not -total <= i < total]
    if outside:
        raise InputError(f"{outside} is outside the {total} {what}")
    original = [i % total for i in chosen]
    if kept is None:
        return original
    missing = [i for i in original if i not in kept]
    if missing:
        raise InputError(f"{_few(missing)} of the {what} was not captured; kept: {_few(kept)}")
    return [kept.index(i) for i in original]


def _few(indices: Sequence[int]) -> str:
    """Name some indices, and how many more there are."""
    more = f" and {len(indices) - 5} more" if len(indices) > 6 else ""
    return f"{list(indices[:5]) if more else list(indices)}{more}"
