"""Attention computed in windows, blocks or steps, put back at the positions of the tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attnlib.errors import InputError
from attnlib.record.sources import AttentionSource, Index, wide

__all__ = ["JoinedAttention", "Piece", "PlacedAttention"]


@dataclass(eq=False, repr=False)
class Piece:
    """Windows of one attention call, and where their rows and columns belong.

    Parameters
    ----------
    source : what computes the weights inside the windows; its batch axis counts windows.
    items : which batch item each window belongs to.
    query_places, key_places : token index of each row and column; -1 for padding.
    """

    source: AttentionSource
    items: Int[Tensor, " window"]
    query_places: Int[Tensor, "window query"]
    key_places: Int[Tensor, "window key"]


@dataclass(eq=False, repr=False)
class PlacedAttention:
    """Attention inside windows, seen as [batch, head, query, key] over all tokens of an item.

    Tokens that do not share a window have weight 0. What a token gives to padding is not shown, so
    rows next to padding may sum to less than 1.
    """

    pieces: tuple[Piece, ...]
    batch: int
    num_queries: int
    num_keys: int
    kind_of_source: str = "windows"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(batch, heads, queries, keys)."""
        return self.batch, self.pieces[0].source.shape[1], self.num_queries, self.num_keys

    @property
    def nbytes(self) -> int:
        """Bytes kept alive by this source."""
        return sum(one.nbytes for one in self._sources())

    def _sources(self) -> list[AttentionSource]:
        """Return the sources of the pieces, each once: one row of windows may hold several items."""
        return [*{id(piece.source): piece.source for piece in self.pieces}.values()]

    def window_weights(self, heads: Index) -> Float[Tensor, "window head query key"]:
        """Return the weights inside the windows, as the model computed them."""
        if len({tuple(piece.source.shape[1:]) for piece in self.pieces}) != 1:
            raise InputError("this layer mixes windows of different sizes: use weights() instead")
        return torch.cat([one.weights(heads, slice(None)) for one in self._sources()])

    def weights(self, heads: Index, queries: Index) -> Float[Tensor, "batch head query key"]:
        """Return the weights at the positions of the tokens."""
        return self._placed(lambda source: source.weights(heads, slice(None)), queries)

    def gradients(self, heads: Index, queries: Index) -> Float[Tensor, "batch head query key"]:
        """Return d score / d weights at the positions of the tokens; 0 where no weight exists."""
        return self._placed(lambda source: source.gradients(heads, slice(None)), queries)

    def values(self, heads: Index) -> Float[Tensor, "batch head key dim"]:
        """Return the value vector of each token."""
        first = self.pieces[0].source.values(heads)
        placed = first.new_zeros(self.batch, first.shape[1], self.num_keys + 1, first.shape[-1])
        for piece in self.pieces:
            value = piece.source.values(heads)
            places = torch.where(piece.key_places < 0, self.num_keys, piece.key_places).to(value.device)
            placed[piece.items.to(value.device)[:, None], :, places] = value.transpose(1, 2)
        return placed[:, :, : self.num_keys]

    def only_heads(self, heads: list[int]) -> PlacedAttention:
        """Return a copy that holds some heads."""
        made = {id(one): one.only_heads(heads) for one in self._sources()}  # type: ignore[attr-defined]
        kept = tuple(
            Piece(made[id(one.source)], one.items, one.query_places, one.key_places) for one in self.pieces
        )
        return PlacedAttention(kept, self.batch, self.num_queries, self.num_keys, self.kind_of_source)

    def _placed(
        self, read: Callable[[AttentionSource], Tensor], queries: Index
    ) -> Float[Tensor, "batch head query key"]:
        wanted = list(range(self.num_queries)[queries]) if isinstance(queries, slice) else list(queries)
        row_of = torch.full((self.num_queries + 1,), len(wanted))  # the last row collects what is not wanted
        row_of[torch.tensor(wanted)] = torch.arange(len(wanted))
        placed: Tensor | None = None
        for piece in self.pieces:
            part = read(piece.source)
            if placed is None:
                shape = (self.batch, part.shape[1], len(wanted) + 1, self.num_keys + 1)
                placed = part.new_zeros(shape)
            rows = row_of[torch.where(piece.query_places < 0, self.num_queries, piece.query_places)]
            columns = torch.where(piece.key_places < 0, self.num_keys, piece.key_places)
            device = part.device
            index = (
                piece.items.to(device)[:, None, None, None],
                torch.arange(part.shape[1], device=device)[None, :, None, None],
                rows.to(device)[:, None, :, None],
                columns.to(device)[:, None, None, :],
            )
            placed.index_put_(index, part, accumulate=True)
        assert placed is not None
        doubled = len(set(wanted)) != len(wanted)
        result = placed[:, :, : len(wanted), : self.num_keys]
        return result[:, :, row_of[torch.tensor(wanted)]] if doubled else result


@dataclass(eq=False, repr=False)
class JoinedAttention:
    """The steps of a generation, one below the other: a lower-triangular matrix.

    Parameters
    ----------
    steps : sources of the steps, first step first.
    starts : the first key that each step sees; a cache with a window forgets those before it.
    num_keys : keys that stand for tokens, in a cache of fixed size; None = all.
    """

    steps: tuple[AttentionSource, ...]
    starts: tuple[int, ...] = ()
    num_keys: int | None = None
    kind_of_source: str = "steps"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(batch, heads, queries, keys)."""
        batch, heads, _, keys = self.steps[-1].shape
        keys = keys + self._first(-1) if self.num_keys is None else self.num_keys
        return batch, heads, sum(step.shape[2] for step in self.steps), keys

    @property
    def nbytes(self) -> int:
        """Bytes kept alive by this source."""
        return sum(step.nbytes for step in self.steps)

    def weights(self, heads: Index, queries: Index) -> Float[Tensor, "batch head query key"]:
        """Return rows of all steps; keys that did not exist yet have weight 0."""
        return self._rows(queries, lambda step, rows: step.weights(heads, rows))

    def gradients(self, heads: Index, queries: Index) -> Float[Tensor, "batch head query key"]:
        """Return d score / d weights of the rows of all steps."""
        return self._rows(queries, lambda step, rows: step.gradients(heads, rows))

    def values(self, heads: Index) -> Float[Tensor, "batch head key dim"]:
        """Return the values of all keys, those that the last step saw no more from the steps before."""
        values, known = self.steps[-1].values(heads), self._first(-1)
        for place in reversed(range(len(self.steps) - 1)):
            first = self._first(place)
            if first < known:
                earlier = self.steps[place].values(heads)
                values, known = torch.cat([earlier[:, :, : known - first], values], dim=2), first
        return values[:, :, : self.num_keys]

    def only_heads(self, heads: list[int]) -> JoinedAttention:
        """Return a copy that holds some heads."""
        kept = tuple(step.only_heads(heads) for step in self.steps)  # type: ignore[attr-defined]
        return JoinedAttention(kept, self.starts, self.num_keys)

    def _first(self, place: int) -> int:
        return self.starts[place] if self.starts else 0

    def _rows(self, queries: Index, read: Callable[[AttentionSource, list[int]], Tensor]) -> Tensor:
        batch, _, total, keys = self.shape
        wanted = list(range(total)[queries]) if isinstance(queries, slice) else list(queries)
        parts, start = {}, 0
        for place, step in enumerate(self.steps):
            stop = start + step.shape[2]
            mine = [i for i in wanted if start <= i < stop]
            if mine:
                part, first = read(step, [i - start for i in mine]), self._first(place)
                whole = torch.nn.functional.pad(part, (first, keys - first - part.shape[-1]))
                parts.update(zip(mine, whole.unbind(2), strict=True))
            start = stop
        if not wanted:
            return torch.zeros(batch, 0, 0, keys, dtype=wide(torch.float32))
        return torch.stack([parts[i] for i in wanted], 2)
