"""Queries in words, patches or indices -> the start vectors of the propagation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnlib.errors import InputError
from attnlib.layout import TokenLayout
from attnlib.methods.card import near

__all__ = ["Starts", "find_starts"]

_RESERVED = ("readout", "mean", "patches", "all")


@dataclass(frozen=True, eq=False)
class Starts:
    """What the propagation starts from.

    Parameters
    ----------
    weights : one start vector per item, or one per query when all were asked for; rows sum to 1.
    words : what was asked for, for a reader.
    every : True when all queries were asked for.
    """

    weights: Float[Tensor, "batch start query"]
    words: str
    every: bool = False

    @property
    def rows(self) -> list[int]:
        """Query rows that any start vector touches."""
        return torch.nonzero((self.weights != 0).flatten(0, 1).any(dim=0)).flatten().tolist()


def find_starts(
    query: Any,
    layout: TokenLayout,
    *,
    batch_size: int,
    num_queries: int,
    dtype: torch.dtype,
    device: torch.device,
    seen: Bool[Tensor, "batch query"] | None = None,
) -> Starts:
    """Turn a query into start vectors.

    Parameters
    ----------
    query : None or "readout" (the tokens the model's head reads), "mean" (of the patches, or of a
        text's real tokens), "all", the name of a prefix token ("class"), a token of the text that
        stands once in each item, a token index, a patch
        (row, column), a list of these (their mean), or one per item: a 1-D tensor or array of
        token indices, or a list of lists.
    layout : of the query axis.
    batch_size, num_queries : sizes.
    dtype, device : of the result.
    seen : True for real tokens; padding never enters a mean.

    Raises
    ------
    InputError
        If the query is outside the layout, empty, or of another kind.
    """
    if isinstance(query, str) and query == "all":
        eye = torch.eye(num_queries, dtype=dtype, device=device)
        return Starts(eye.expand(batch_size, -1, -1), "all", every=True)
    own = layout.item_readouts
    if own is not None and len(own) == batch_size and (query is None or query == "readout"):
        query = [list(one) for one in own]
    texts = layout.item_tokens or ()
    if isinstance(query, str) and query not in _RESERVED and any(query in labels for labels in texts):
        query = [[query]] * batch_size  # a word, which may stand elsewhere in each text
    per_item = _per_item(query, batch_size)
    if per_item is not None:
        layouts = [layout.of_item(item) for item in range(batch_size)]
        picks = [_tokens(one, its, num_queries) for one, its in zip(per_item, layouts, strict=True)]
        words = "; ".join(_words(one, its, None) for one, its in zip(picks, layouts, strict=True))
        words = f"one per item: {words}" if batch_size > 1 else words
    else:
        tokens = _tokens(query, layout, num_queries)
        picks = [tokens] * batch_size
        words = _words(tokens, layout, query)
    weights = torch.zeros(batch_size, 1, num_queries, dtype=dtype, device=device)
    for item, tokens in enumerate(picks):
        real = tokens if seen is None else [token for token in tokens if bool(seen[item, token])]
        if not real:
            raise InputError(
                f"the query {words} is padding in item {item}: choose real tokens, one index per item as a "
                "1-D tensor if they stand at different places"
            )
        weights[item, 0, real] = 1.0 / len(real)
    return Starts(weights, words)


def _per_item(query: Any, batch_size: int) -> list[Any] | None:
    if isinstance(query, Tensor | np.ndarray):
        if query.ndim == 0:
            return [int(query)] * batch_size
        listed = query.tolist()
        if query.ndim == 2:
            listed = [tuple(one) for one in listed]
    elif isinstance(query, list) and query and all(isinstance(one, list) for one in query):
        listed = query
    else:
        return None
    if len(listed) != batch_size:
        raise InputError(f"one query per item: got {len(listed)} for a batch of {batch_size}")
    return listed


def _tokens(query: Any, layout: TokenLayout, num_queries: int) -> list[int]:
    if query is None or query == "readout":
        return list(layout.readout_indices)
    if isinstance(query, Tensor | np.ndarray) and query.ndim == 0:
        query = query.item()
    if isinstance(query, str):
        if query.lower() in ("cls", "[cls]") and "class" in layout.prefix_tokens:
            query = "class"
        if query in ("mean", "patches"):
            if layout.grid is None:
                return list(range(num_queries))
            return list(range(num_queries))[layout.patch_slice]
        if query in layout.prefix_tokens:
            return [layout.prefix_tokens.index(query)]
        places = [] if layout.tokens is None else [i for i, t in enumerate(layout.tokens) if t == query]
        if len(places) == 1:
            return places
        if places:
            raise InputError(f"the token {query!r} stands at {places}: give one of these indices")
        raise InputError(
            f"no query {query!r}: {near(query, ['readout', 'mean', 'all', *layout.prefix_tokens])}; "
            "or give a token index, a patch (row, column), a list"
        )
    if isinstance(query, bool):
        raise InputError(f"a query is a token index, not {query!r}")
    if isinstance(query, int | np.integer):
        if not -num_queries <= query < num_queries:
            raise InputError(f"query token {query} is outside the {num_queries} tokens")
        return [int(query) % num_queries]
    if isinstance(query, tuple):
        if len(query) != 2 or not all(isinstance(one, int | np.integer) for one in query):
            raise InputError(f"a patch is (row, column), got {query!r}; for several tokens give a list")
        return [layout.token_index(int(query[0]), int(query[1]))]
    if isinstance(query, Sequence | range):
        tokens = [token for one in query for token in _tokens(one, layout, num_queries)]
        if not tokens:
            raise InputError("the query is an empty list; None means the tokens the model's head reads")
        if len(set(tokens)) != len(tokens):
            raise InputError(f"the query {list(query)!r} names a token twice")
        return tokens
    raise InputError(
        f"cannot use {query!r} as a query: give None, 'mean', 'all', a token index, a patch (row, column), "
        "a list of these, or one per item"
    )


def _words(tokens: list[int], layout: TokenLayout, query: Any) -> str:
    if len(tokens) == 1:
        return layout.label(tokens[0])
    if layout.grid is not None and tokens == list(range(layout.num_tokens))[layout.patch_slice]:
        return "mean of the patches"
    if len(tokens) > 6:
        return "mean of the tokens" if query == "mean" else f"mean of {len(tokens)} tokens"
    return "mean of " + ", ".join(layout.label(token) for token in tokens)
