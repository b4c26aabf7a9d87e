"""Parts of one attention over several sets of tokens, such as global tokens beside those of a text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attnlib.hooks.calls import Call
from attnlib.hooks.origins import PADDING, TokenSequence

__all__ = ["JointTokens", "hidden_by_mask", "joint_tokens"]


class JointTokens:
    """All sets of tokens that ask in the parts of one attention, one set behind the other.

    Parameters
    ----------
    sets : the sequences, in the order in which the part that reads all of them has them.
    """

    def __init__(self, sets: Sequence[TokenSequence]) -> None:
        self._sets = tuple(sets)
        starts = [sum(one.size for one in sets[:place]) for place in range(len(sets))]
        self._starts = {id(one): start for one, start in zip(sets, starts, strict=True)}
        main = max(sets, key=lambda one: (one.grid is not None, bool(one.root), one.size))
        parents = torch.full((main.batch, sum(one.size for one in sets)), -1)
        start = self._starts[id(main)]
        parents[:, start : start + main.size] = main.ids(main.batch, main.size)
        self.sequence = TokenSequence(
            main.root, main.batch, parents.shape[1], up=main, parents=parents.to(torch.int32)
        )

    def places(self, sequence: TokenSequence, within: Tensor, items: Tensor) -> Tensor | None:
        """Return where tokens of a sequence stand among all.

        Parameters
        ----------
        sequence : one of the sets, or a sequence that several of them were joined to.
        within : token of each row in its item, [window, row]; -1 for padding.
        items : item of each window.

        Returns
        -------
        Places in the shape of ``within``; None if they are not known.
        """
        table = self._table(sequence)
        if table is None:
            return None
        found = table[items[:, None], within.clamp(min=0)]
        return torch.where(within < 0, -1, found)

    def _table(self, sequence: TokenSequence) -> Tensor | None:
        """Return the place of each token of each item, [item, token]."""
        start = self._starts.get(id(sequence))
        if start is not None:
            return (torch.arange(sequence.size) + start).expand(sequence.batch, -1)
        up, parents = sequence.up, sequence.parents
        if up is None or parents is None or sequence.coarse or id(up) not in self._starts:
            return None
        others = [one for one in self._sets if one is not up]
        table = torch.where(parents < 0, -1, parents % up.size + self._starts[id(up)]).to(torch.int64)
        left = (parents < 0) & (parents != PADDING)
        if not bool(left.any()):
            return table
        if len(others) != 1 or bool((left.sum(1) != others[0].size).any()):
            return None
        own = torch.arange(others[0].size) + self._starts[id(others[0])]
        table[left] = own.expand(sequence.batch, -1).reshape(-1)
        return table


def joint_tokens(group: Sequence[Call]) -> JointTokens | None:
    """Return all tokens that ask in the parts of one attention; None if these are of one set.

    Parameters
    ----------
    group : the calls of one module that belong together.
    """
    sets = {id(one.query_sequence): one.query_sequence for one in group if one.query_sequence is not None}
    if len(sets) < 2 or len({one.batch for one in sets.values()}) > 1:
        return None
    ordered = sorted(sets.values(), key=lambda one: (one.grid is not None, bool(one.root), one.size))
    return JointTokens(ordered)


def hidden_by_mask(call: Call, sequence: TokenSequence) -> Tensor:
    """Return which tokens are padding by the model's attention mask, [item, token].

    Parameters
    ----------
    call : of the pass whose inputs are asked.
    sequence : the tokens.
    """
    mask = call.root.named.get("attention_mask")
    if mask is None or tuple(mask.shape) != (sequence.batch, sequence.size):
        return torch.zeros(sequence.batch, sequence.size, dtype=torch.bool)
    return mask.detach().cpu() == 0
