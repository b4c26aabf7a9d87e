"""Making a map once more: the same method and question, for other inputs, weights or labels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from torch import Tensor

from attnlib.errors import AttnlibError, InputError, NeedsError
from attnlib.evaluate.answer import first_answer
from attnlib.evaluate.trials import needs_of
from attnlib.layout import TokenLayout
from attnlib.record import AttentionRecord, Relevance

__all__ = ["MapAgain", "alike", "asked_query", "given_options"]

_WHOLE = ("readout", "given", "the pooler's own row", "the output", "all rows, averaged")
_PATCH = re.compile(r"patch \((\d+), (\d+)\)")
_PARTS = re.compile(r" *(patch \(\d+, \d+\)|[^,]+)")


class MapAgain:
    """Runs the method of a relevance again.

    Parameters
    ----------
    loaded : the LoadedModel or module.
    given : the relevance.
    item : which item of its batch.
    target : label index that it was made for, or None.
    """

    def __init__(self, loaded: Any, given: Relevance, item: int, target: int | None) -> None:
        self.loaded, self.given, self.item, self.target = loaded, given, item, target
        self._found_query: tuple[Any] | None = None

    def relevance(
        self, inputs: Mapping[str, Tensor], original: Mapping[str, Tensor], target: int | None = None
    ) -> Relevance:
        """Return the relevance for ``inputs``; ``original`` are those that the given map was made from.

        Raises
        ------
        InputError
            If running the method on the original inputs does not give the given map.
        """
        query = self.query_of(original)
        return self._explained(inputs, self.target if target is None else target, query)

    def stream_of(self, record: AttentionRecord) -> AttentionRecord:
        """Return the stream of a record that the given relevance is about."""
        return _stream_of(record, self.given)

    def query_of(self, original: Mapping[str, Tensor]) -> Any:
        """Return the query with which the method gives the same map again.

        A relevance tells its rows in words; which question they answer is found by asking, and only a
        map that comes out the same is taken for the same.
        """
        if self._found_query is None:
            wanted, named, reason = self.given.scores[self.item], None, ""
            with suppress(NeedsError):
                named = asked_query(self.given)
            for query in (None,) if named is None else (None, named):
                try:
                    again = self._explained(original, self.target, query).scores[0]
                except AttnlibError as error:
                    reason = f" or none ({error})"
                    continue
                if alike(again, wanted):
                    self._found_query = (query,)
                    break
            else:
                raise InputError(
                    f"running {self.given.method!r} again gives another map{reason}: give the target= "
                    "it was made for, or again="
                )
        return self._found_query[0]

    def _explained(self, inputs: Mapping[str, Tensor], target: int | None, query: Any) -> Relevance:
        from attnlib.hooks import capture
        from attnlib.methods import METHODS, explain

        if self.given.method not in METHODS:
            raise InputError(f"the method {self.given.method!r} cannot be run again: give again=")
        options, told = given_options(self.given)
        internals, explains = needs_of(self.given.method)
        wanted: Any = target
        if wanted is None and explains:
            wanted = first_answer if told is None else told
        record = capture(self.loaded, inputs, target=wanted, internals=internals)
        return explain(_stream_of(record, self.given), self.given.method, query=query, **options)


def given_options(relevance: Relevance) -> tuple[dict[str, Any], Any]:
    """Return the options of ``explain`` that a relevance was made with, and the target it was told.

    The target is not among the options: the capture is told instead. None where there was none.
    """
    from attnlib.methods import METHODS

    known = {option.name for option in METHODS[relevance.method].all_options} | {"layers"}
    options = {name: value for name, value in relevance.options.items() if name in known}
    told = [options.pop(name, None) for name in ("target", "label")]
    return options, next((one for one in told if one is not None), None)


def asked_query(relevance: Relevance) -> Any:
    """Return the query that the words of a relevance stand for; None for what the head reads.

    Raises
    ------
    NeedsError
        If the words do not name the tokens.
    """
    words, layout = relevance.query, relevance.layout
    read = layout.readout if isinstance(layout.readout, tuple) else ()
    # as many tokens as the head reads may be others; whoever asks again compares the maps
    if words in _WHOLE or words == f"mean of {len(read)} tokens":
        return None
    if words in ("mean of the patches", "mean of the tokens"):
        return "mean"
    if not words.startswith("mean of "):
        return _asked_token(words, layout)
    return [_asked_token(part, layout) for part in _PARTS.findall(words.removeprefix("mean of "))]


def _asked_token(words: str, layout: TokenLayout) -> Any:
    patch = _PATCH.fullmatch(words)
    if patch:
        return int(patch[1]), int(patch[2])
    if words in layout.prefix_tokens or (layout.tokens or ()).count(words) == 1:
        return words
    if words.startswith("token ") and words.removeprefix("token ").isdecimal():
        return int(words.removeprefix("token "))
    raise NeedsError(f"the query {words!r} cannot be asked again")


def alike(again: Tensor, scores: Tensor) -> bool:
    """Tell whether scores are the same but for rounding: within a thousandth of the largest."""
    if again.shape != scores.shape:
        return False
    difference = (again.double() - scores.to(again.device).double()).abs().max()
    return float(difference) <= 1e-3 * float(scores.abs().max()) + 1e-12


def _stream_of(record: AttentionRecord, relevance: Relevance) -> AttentionRecord:
    for stream in record.streams:
        part = record.select(stream=stream)
        if part.layout.grid == relevance.layout.grid and part.layout.grid is not None:
            return part
    return record
