"""Making a map once more: the same method and question, for other inputs, weights or labels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from attnlib.errors import AttnlibError, InputError
from attnlib.record import AttentionRecord, Relevance

__all__ = ["MapAgain", "main_tensor"]


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
            wanted = self.given.scores[self.item]
            words = self.given.query
            for query in (None, *_questions(words)):
                try:
                    again = self._explained(original, self.target, query).scores[0]
                except AttnlibError as error:
                    if query is None and not _questions(words):
                        raise InputError(f"the map cannot be made again: {error}") from None
                    continue
                if again.shape == wanted.shape and _alike(again, wanted):
                    self._found_query = (query,)
                    break
            else:
                raise InputError(
                    f"running {self.given.method!r} again gives another map: give the target= "
                    "it was made for, or again="
                )
        return self._found_query[0]

    def _explained(self, inputs: Mapping[str, Tensor], target: int | None, query: Any) -> Relevance:
        from attnlib.hooks import capture
        from attnlib.methods import METHODS, explain

        relevance = self.given
        if relevance.method not in METHODS:
            raise InputError(f"the method {relevance.method!r} cannot be run again: give again=")
        card = METHODS[relevance.method]
        known = {option.name for option in card.options}
        options = {name: value for name, value in relevance.options.items() if name in known}
        told = [options.pop(name, None) for name in ("target", "label")]  # the capture is told instead
        wanted: Any = target
        if wanted is None and card.explains_target:
            wanted = next((one for one in told if one is not None), _top_logit)
        record = capture(
            self.loaded, inputs, target=wanted, internals=bool({"internals", "model"} & set(card.needs))
        )
        if relevance.options.get("variant") is not None:
            options["variant"] = relevance.options["variant"]
        layers = relevance.options.get("layers")
        own = _stream_of(record, relevance)
        return explain(own, relevance.method, query=query, layers=layers, **options)


def _questions(words: str) -> list[Any]:
    """Return queries that the words of a relevance may stand for."""
    numbers = [int(n) for n in re.findall(r"\d+", words)]
    found: list[Any] = []
    if words.startswith("mean"):
        found.append("mean")
    elif words.startswith("patch") and len(numbers) == 2:
        found.append((numbers[0], numbers[1]))
    elif words.startswith("token") and len(numbers) == 1:
        found.append(numbers[0])
    else:
        found.append(words)
    return found


def _alike(first: Tensor, second: Tensor) -> bool:
    scale = float(second.abs().max())
    return float((first.double() - second.double()).abs().max()) <= 1e-3 * scale + 1e-12


def _stream_of(record: AttentionRecord, relevance: Relevance) -> AttentionRecord:
    for stream in record.streams:
        part = record.select(stream=stream)
        if part.layout.grid == relevance.layout.grid and part.layout.grid is not None:
            return part
    return record


def _top_logit(output: Any) -> Tensor:
    logits = getattr(output, "logits", None)
    if isinstance(logits, Tensor) and logits.dim() == 2:
        return logits.amax(dim=1)
    return main_tensor(output).flatten(1).sum(dim=1)


def main_tensor(output: Any) -> Tensor:
    """Return the tensor of an output that carries its answer."""
    for name in (
        "logits",
        "saliency",
        "logits_per_image",
        "image_embeds",
        "pooler_output",
        "last_hidden_state",
    ):
        value = getattr(output, name, None)
        if isinstance(value, Tensor) and value.is_floating_point():
            return value
    if isinstance(output, Tensor):
        return output
    raise InputError(f"cannot tell the answer of {type(output).__name__}: give score=")
