"""Attention calls that one module makes side by side, on the same tokens: neither follows the other."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from attnlib.hooks.calls import Call

__all__ = ["BESIDE", "beside_each_other"]

BESIDE = "one of several attention calls that this module makes side by side, on the same tokens"


def beside_each_other(group: Sequence[Call]) -> bool:
    """Tell whether the calls of one module are no parts of one attention, and do not follow each other.

    Either each of them gives every query a whole row of its own, and some of them work in windows; or they
    share one query.
    """
    windows = any(call.placement is not None for call in group)
    if windows and all(_covers_everything(call) for call in group):
        return True
    queries = [getattr(call.source, "query", None) for call in group]
    tensors = [one for one in queries if isinstance(one, Tensor)]
    same = {(one.data_ptr(), tuple(one.shape)) for one in tensors}
    return len(tensors) == len(group) and len(same) == 1 and tensors[0].numel() > 0


def _covers_everything(call: Call) -> bool:
    if not call.complete or call.query_sequence is None:
        return False
    size = call.query_sequence.size
    if call.placement is None:
        return (call.shape[2] or call.source.shape[2]) == size
    places = call.placement.query_places[call.placement.items == 0]
    return len(places[places >= 0].unique()) == size
