"""Where the rows and columns of an attention call belong among the tokens of each item."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attnlib.hooks.origins import PADDING, TokenSequence, shrink

__all__ = ["REPEATED", "SEVERAL", "Placement", "find_placement"]

REPEATED = (
    "several rows of a window belong to one token: each is a place around it, and places that overlap are "
    "added up"
)
SEVERAL = "some of its windows hold tokens of several items"


@dataclass(eq=False)
class Placement:
    """How to read the leading axes of a call.

    Parameters
    ----------
    order : permutation of the flattened leading axes that puts windows first and heads second.
    windows, heads : how many there are.
    items : which batch item each window belongs to.
    query_places, key_places : token of each row and column in its item, -1 for padding.
    handed_out : whether the same queries ask in every window; the rows then stand for its own tokens.
    """

    order: Tensor
    windows: int
    heads: int
    items: Tensor
    query_places: Tensor
    key_places: Tensor
    handed_out: bool = False

    def is_whole(self, batch: int, queries: int, keys: int) -> bool:
        """Tell whether each item is one window that holds all its tokens in order."""
        return (
            self.windows == batch
            and bool((self.items == torch.arange(batch)).all())
            and _everything(self.query_places, queries)
            and _everything(self.key_places, keys)
        )

    def arrange(self, tensor: Tensor, keep: int = 2) -> Tensor:
        """Bring a tensor of the call to [window, head, ...]; ``keep`` trailing axes stay."""
        flat = tensor.reshape(-1, *tensor.shape[-keep:])
        if not torch.equal(self.order, torch.arange(len(self.order))):  # mostly they stand in order
            flat = flat[self.order.to(tensor.device)]
        return flat.view(self.windows, self.heads, *tensor.shape[-keep:])


def find_placement(
    lead: tuple[int, ...],
    queries: Tensor | None,
    keys: Tensor | None,
    query_sequence: TokenSequence | None,
    key_sequence: TokenSequence | None,
    *,
    complete: bool = True,
) -> Placement | str | None:
    """Find out whether a call works inside windows, and where these stand.

    Parameters
    ----------
    lead : leading axes of the call, before queries and keys.
    queries, keys : token numbers of rows and columns, broadcastable to [*lead, query] and [*lead, key];
        None if they are not known.
    query_sequence, key_sequence : the sequences these numbers belong to.
    complete : whether each row holds all its keys, so that no query needs several windows.

    Returns
    -------
    None for an ordinary call [batch, head], a placement for windows, or a sentence that says why the
    windows cannot be placed.
    """
    if len(lead) == 2 and (key_sequence is None or keys is None):
        return None
    if key_sequence is None or keys is None:
        return "it is not known where its windows stand among the tokens"
    if len(lead) == 2 and lead[0] == key_sequence.batch and _in_order(keys) and _in_order(queries):
        return None
    if queries is None or query_sequence is None:
        return "its queries could not be followed back to tokens"
    q = queries.expand(*lead, queries.shape[-1]).reshape(-1, queries.shape[-1]).to(torch.int64)
    k = keys.expand(*lead, keys.shape[-1]).reshape(-1, keys.shape[-1]).to(torch.int64)
    _, group = torch.unique(torch.cat([q, k], 1), dim=0, return_inverse=True)
    group = _padding_apart(group, (q < 0).all(dim=1) & (k < 0).all(dim=1))
    counts = torch.bincount(group)
    if bool((counts != counts[0]).any()):
        return "its leading axes do not split into windows and heads"
    heads = int(counts[0])
    order = torch.sort(group, stable=True).indices
    windows = len(counts)
    # windows in the order in which the model computes them
    first = order.view(windows, heads)[:, 0]
    order = order.view(windows, heads)[torch.sort(first).indices].reshape(-1)
    q, k = q[order.view(windows, heads)[:, 0]], k[order.view(windows, heads)[:, 0]]
    if q.shape[1] > 1 and bool(_repeats(q).any()):
        return REPEATED
    items = (k.amax(dim=1) // key_sequence.size).clamp(min=0)
    if bool(((k // key_sequence.size != items[:, None]) & (k >= 0)).any()):
        return SEVERAL
    if complete and _ask_everywhere(q, k):
        places = _within(k, items, key_sequence.size)
        return Placement(order, windows, heads, items, places, places, handed_out=True)
    if query_sequence.batch != key_sequence.batch:
        return f"its queries come in {query_sequence.batch} items and its keys in {key_sequence.batch}"
    return Placement(
        order,
        windows,
        heads,
        items,
        _within(q, items, query_sequence.size),
        _within(k, items, key_sequence.size),
    )


def _padding_apart(group: Tensor, blank: Tensor) -> Tensor:
    """Give windows that hold nothing but padding, and look all alike, numbers of their own.

    Parameters
    ----------
    group : for each window and head the number of its window.
    blank : whether there is no token in it.
    """
    if not bool(blank.any()) or bool(blank.all()):
        return group
    heads = int(torch.bincount(group[~blank]).amax())
    own = torch.arange(int(blank.sum())) // heads + int(group.amax()) + 1
    return torch.unique(group.masked_scatter(blank, own), return_inverse=True)[1]


def _everything(places: Tensor, size: int) -> bool:
    return places.shape[1] == size and bool((places == torch.arange(size)).all())


def _ask_everywhere(q: Tensor, k: Tensor) -> bool:
    """Tell whether few queries are handed out to several windows, each of which has tokens of its own.

    As many rows as tokens: row i is then the new state of token i of the window.
    """
    if q.shape != k.shape or bool((q < 0).any()):
        return False
    own = k[k >= 0]
    return len(q.unique()) < q.numel() and len(own.unique()) == len(own)


def _repeats(numbers: Tensor) -> Tensor:
    ordered = numbers.sort(dim=1).values
    return (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)


def _in_order(rows: Tensor | None) -> bool:
    """Tell whether the numbers grow along the last axis, without padding, the same for every head."""
    if rows is None:
        return True
    rows = shrink(rows)
    if rows.dim() == 3 and rows.shape[1] > 1 and bool((rows != rows[:, :1]).any()):
        return False
    after, before = rows[..., 1:], rows[..., :-1]
    if bool((rows >= 0).all()):
        return bool((after >= before).all())
    if bool((rows == PADDING).any()):
        return False
    return not bool(((after < before) & (after >= 0) & (before >= 0)).any())


def _within(numbers: Tensor, items: Tensor, size: int) -> Tensor:
    return torch.where(numbers < 0, -1, numbers - items[:, None] * size)
