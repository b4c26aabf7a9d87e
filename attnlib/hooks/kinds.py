"""Self, cross or pool: told by where the queries and keys of a call come from."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from attnlib.hooks.calls import Call
from attnlib.hooks.origins import TokenSequence
from attnlib.hooks.trail import CROSS_INPUTS

__all__ = ["kind_of", "pool_sequences", "readers_streams", "roots_of"]


def roots_of(sequence: TokenSequence | None) -> list[str]:
    """Return the arguments of the model that a sequence was made from."""
    return [] if sequence is None else [one.root for one in sequence.ancestors if one.root]


def readers_streams(calls: Sequence[Call], streams: Sequence[str]) -> list[str]:
    """Return the streams, where a call that reads another input belongs to the stream of its queries.

    A module may be named for what it reads: the text of LXMERT looks at the picture in "visual_attention".
    """
    ends = [
        [next(iter(roots_of(one)[-1:]), "") for one in (call.query_sequence, call.key_sequence)]
        for call in calls
    ]
    own: dict[str, set[str]] = {}
    for (asks, answers), stream in zip(ends, streams, strict=True):
        if asks and asks == answers:
            own.setdefault(asks, set()).add(stream)
    found = []
    for (asks, answers), stream in zip(ends, streams, strict=True):
        known = own.get(asks, set()) if answers and asks != answers else set()
        found.append(next(iter(known)) if len(known) == 1 else stream)
    return found


def pool_sequences(calls: Sequence[Call]) -> set[int]:
    """Sequences of learned queries that never attend to themselves."""
    own = {
        id(c.query_sequence)
        for c in calls
        if c.query_sequence is not None and c.query_sequence is c.key_sequence
    }
    return {
        id(c.query_sequence)
        for c in calls
        if c.query_sequence is not None and not c.query_sequence.root and id(c.query_sequence) not in own
    }


def kind_of(call: Call, pooled: set[int]) -> str:
    """Tell self, cross and pooling attention apart by where queries and keys come from."""
    query, key = call.query_sequence, call.key_sequence
    _, _, num_queries, num_keys = call.shape
    if call.unplaced is not None and num_queries > 1 and _reads_one_thing(call):
        return "self"  # blocks of one sequence, each of which may see its neighbours too
    if query is not None and key is not None:
        if query is key and _one_reads_all(call):
            return "pool"
        if query is key or key in query.ancestors or query in key.ancestors:
            return "self"
        if _named_cross(call):
            return "cross"
        if roots_of(query) and roots_of(query)[-1:] == roots_of(key)[-1:]:
            crossed = roots_of(query) and _has_cross_input(call)
            return "cross" if crossed else "self"
        if not query.root:
            return "pool" if num_queries == 1 or id(query) in pooled else "cross"
        if key.root:
            return "cross"
    if _has_cross_input(call) or (key is None and call.frame.other_keys):
        return "cross"
    if num_queries == num_keys or (query is not None and key is None):
        return "self"
    return "pool" if num_queries == 1 else "cross"


def _one_reads_all(call: Call) -> bool:
    """Tell whether one token of a sequence reads all of it, as in class attention."""
    _, _, num_queries, num_keys = call.shape
    sequence = call.key_sequence
    if (
        num_queries != 1
        or sequence is None
        or num_keys < 2
        or num_keys != sequence.size
        or call.key_rows is None
    ):
        return False
    return not bool((call.key_rows < 0).any())


def _reads_one_thing(call: Call) -> bool:
    """Tell whether the module that made a call was given the states of one sequence only, or says so."""
    if "self" in call.name.lower().rpartition(".")[2]:
        return True
    named = [("", one) for one in call.frame.args] + [*call.frame.kwargs.items()]
    beside = ("mask", "bias", "position", "embed")
    states = [
        one
        for name, one in named
        if isinstance(one, Tensor)
        and one.dim() == 3
        and one.is_floating_point()
        and not any(word in name for word in beside)
    ]
    return len(states) == 1


def _named_cross(call: Call) -> bool:
    return any("cross" in part for part in call.name.lower().split(".")[-2:])


def _has_cross_input(call: Call) -> bool:
    return any(isinstance(call.frame.kwargs.get(word), Tensor) for word in CROSS_INPUTS)
