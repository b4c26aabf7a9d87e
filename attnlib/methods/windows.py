"""Windowed models: the product through windows, shifts and merges without a matrix over all tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from attnlib.errors import CaptureError, InputError
from attnlib.layout import TokenLayout
from attnlib.record import LayerAttention

__all__ = ["MERGED", "WindowLayer", "merge_spread", "refuse_windows", "window_layers"]

MERGED = "where patches are merged, each of them is taken to give an equal share to the merged one"


@dataclass(eq=False)
class _WithoutPadding:
    """The weights inside windows, with columns of padding set to 0."""

    source: Any
    real: Tensor
    kind_of_source: str = "windows"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(windows, heads, queries, keys)."""
        return self.source.shape

    @property
    def nbytes(self) -> int:
        """Bytes kept alive by this source."""
        return self.source.nbytes

    def weights(self, heads: slice | list[int], queries: slice | list[int]) -> Tensor:
        """Return weights; what goes to padding counts as 0."""
        return torch.where(self.real[:, None, None, :], self.source.weights(heads, queries), 0.0)

    def gradients(self, heads: slice | list[int], queries: slice | list[int]) -> Tensor:
        """Return gradients; those of padding count as 0."""
        return torch.where(self.real[:, None, None, :], self.source.gradients(heads, queries), 0.0)

    def values(self, heads: slice | list[int]) -> Tensor:
        """Return the value vectors."""
        return self.source.values(heads)


@dataclass(eq=False)
class WindowLayer:
    """Some windows of one call, as a layer whose batch axis counts windows.

    Parameters
    ----------
    layer : the windows.
    items : the batch item of each window.
    queries, keys : token of each row and column; padding points at one place past the last token.
    """

    layer: LayerAttention
    items: Tensor
    queries: Tensor
    keys: Tensor

    def gather(self, vector: Tensor) -> Tensor:
        """Return the carried values of each window's rows, [window, start, query]."""
        padded = torch.nn.functional.pad(vector, (0, 1))
        return padded.transpose(1, 2)[self.items[:, None], self.queries].transpose(1, 2)

    def scatter(self, onto: Tensor, values: Tensor, *, keys: bool = False) -> None:
        """Add [window, start, token] values at the tokens' places in ``onto``, [batch, start, token]."""
        places = self.keys if keys else self.queries
        padded = onto.new_zeros(onto.shape[0], onto.shape[2] + 1, onto.shape[1])
        index = (self.items[:, None].expand_as(places), places)
        padded.index_put_(index, values.transpose(1, 2).to(onto.dtype), accumulate=True)
        onto += padded[:, :-1].transpose(1, 2)


def window_layers(layer: LayerAttention) -> list[WindowLayer]:
    """Return the windows of a layer, or none if its attention is not in windows.

    A layer in which one query stands in several windows is not cut: its rows must be seen whole.
    """
    pieces = getattr(layer.source, "pieces", None)
    if not pieces or layer.queries is not None:
        return []
    past = layer.num_queries
    found = []
    counts = torch.zeros(layer.batch_size, past + 1)
    for piece in pieces:
        queries = torch.where(piece.query_places < 0, past, piece.query_places)
        keys = torch.where(piece.key_places < 0, layer.num_keys, piece.key_places)
        counts.index_put_(
            (piece.items[:, None].expand_as(queries), queries),
            torch.ones(queries.shape),
            accumulate=True,
        )
        inner = replace(
            layer,
            source=_WithoutPadding(piece.source, piece.key_places >= 0),
            total_queries=None,
            query_layout=None,
            key_layout=None,
        )
        found.append(WindowLayer(inner, piece.items, queries, keys))
    return [] if bool((counts[:, :past] > 1).any()) else found


def refuse_windows(layers: Sequence[LayerAttention], method: str) -> None:
    """Refuse layers that attend inside windows, or whose tokens are merged on the way.

    Raises
    ------
    CaptureError
        Naming the layer and the methods that go through windows and merges.
    """
    for layer in layers:
        windows = bool(getattr(layer.source, "pieces", None))
        if windows or layer.num_queries != layers[0].num_queries:
            what = "attends inside windows" if windows else f"has {layer.num_queries} tokens, others not"
            raise CaptureError(
                f"{method}: {layer.name} {what}; {method} is worked out for attention between the same "
                "tokens in every layer. raw, rollout, gradient_rollout, generic_relevance and "
                "gradient_x_input go through windows and merged patches"
            )


def merge_spread(above: LayerAttention, below: LayerAttention) -> Callable[[Tensor], Tensor]:
    """Return how values at merged patches are shared out to the patches they were merged from.

    Raises
    ------
    InputError
        If it is not known how the tokens of one layer come from those of the other.
    """
    upper, lower = _grid(above.key_layout, above.num_keys), _grid(below.key_layout, below.num_queries)
    if upper is None or lower is None:
        raise InputError(
            f"{above.name} has {above.num_keys} tokens and {below.name} {below.num_queries}: how they belong "
            "together is not known, so their attention cannot be multiplied; name layers of one size"
        )
    factor = -(-lower[0] // upper[0])
    if factor < 2 or tuple(-(-side // factor) for side in lower) != upper:
        raise InputError(
            f"a grid of {lower[0]}x{lower[1]} patches ({below.name}) does not merge into "
            f"{upper[0]}x{upper[1]} ({above.name})"
        )
    rows, columns = (torch.arange(side) // factor for side in lower)
    parent = (rows[:, None] * upper[1] + columns[None, :]).flatten()
    count = torch.bincount(parent, minlength=upper[0] * upper[1])

    def spread(vector: Tensor) -> Tensor:
        return (vector / count.to(vector))[..., parent.to(vector.device)]

    return spread


def _grid(layout: TokenLayout | None, num_tokens: int) -> tuple[int, int] | None:
    if layout is None or layout.grid is None or layout.num_tokens != num_tokens:
        return None
    return layout.grid if layout.num_patches == num_tokens else None
