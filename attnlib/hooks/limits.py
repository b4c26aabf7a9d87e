"""Which layers, kinds, heads and rows of a capture are kept; the rest is let go as soon as that is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attnlib.errors import InputError
from attnlib.hooks.calls import Call
from attnlib.record import GivenAttention, ProjectedAttention
from attnlib.record.indices import Indices, whole_numbers

__all__ = ["KINDS", "Limits"]

KINDS = ("self", "cross", "pool")


class Limits:
    """What was asked for.

    Parameters
    ----------
    layers : indices within a stream; negative ones count from the last call, so as many of the newest
        calls are held until the pass has ended.
    heads, queries : original indices; negative ones count from the end of each call.
    kinds : some of "self", "cross", "pool"; None = all.

    Raises
    ------
    InputError
        If a selection is empty or names an unknown kind.
    """

    def __init__(
        self,
        *,
        layers: Indices | None,
        heads: Indices | None,
        queries: Indices | None,
        kinds: Iterable[str] | None,
    ) -> None:
        given = KINDS if kinds is None else (kinds,) if isinstance(kinds, str) else tuple(kinds)
        if not given or any(kind not in KINDS for kind in given):
            raise InputError(f"kinds must be some of {', '.join(KINDS)}, got {list(given)}")
        self.kinds = given
        self.layers = _selection(layers, "layers")
        self._heads = _selection(heads, "heads")
        self._queries = _selection(queries, "queries")

    @property
    def any(self) -> bool:
        """Whether some calls may be let go."""
        return self.layers is not None or set(self.kinds) != set(KINDS)

    def narrow(self, call: Call) -> tuple[list[int] | slice, list[int] | slice]:
        """Keep some heads and rows of a call; return which, as indices of its axes."""
        _, heads, queries, _ = call.shape = call.source.shape
        chosen, rows = slice(None), slice(None)
        if self._heads is not None:
            chosen = _within(self._heads, heads, f"heads of {call.name}")
            call.heads, call.total_heads = tuple(chosen), heads
            call.source = call.source.only_heads(chosen)  # type: ignore[attr-defined]
        source = call.source
        simple = call.placement is None and call.complete
        if self._queries is not None and simple and isinstance(source, ProjectedAttention | GivenAttention):
            rows = _within(self._queries, queries, f"query rows of {call.name}")
            call.queries, call.total_queries = tuple(rows), queries
            call.source = source.only_queries(rows)
        return chosen, rows

    def unwanted(self, calls: Sequence[tuple[str, int, str]], *, final: bool) -> list[bool]:
        """Tell which calls nobody asked for.

        Parameters
        ----------
        calls : stream, index and kind of every call so far.
        final : False while the pass runs: then what looks like pooling may still turn out to be crossing.
        """
        kinds = set(self.kinds)
        if not final and kinds & {"cross", "pool"}:
            kinds |= {"cross", "pool"}
        highest: dict[str, int] = {}
        for stream, index, kind in calls:
            if kind in kinds:
                highest[stream] = max(index, highest.get(stream, -1))
        return [
            kind not in kinds or not self._asked(index, highest[stream], final=final)
            for stream, index, kind in calls
        ]

    def _asked(self, index: int, highest: int, *, final: bool) -> bool:
        if self.layers is None or index in self.layers:
            return True
        negative = [one for one in self.layers if one < 0]
        if final:
            return any(highest + 1 + one == index for one in negative)
        return bool(negative) and index >= highest + 1 + min(negative)


def _selection(wanted: Indices | None, what: str) -> list[int] | None:
    return None if wanted is None else whole_numbers(wanted, what)


def _within(wanted: Sequence[int], total: int, what: str) -> list[int]:
    outside = [i for i in wanted if not -total <= i < total]
    if outside:
        raise InputError(f"{outside} is outside the {total} {what}")
    return list(dict.fromkeys(i % total for i in wanted))
