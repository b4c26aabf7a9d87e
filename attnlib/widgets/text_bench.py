"""The explorer's work on texts: model, capture, method, patterns of heads and words about a map."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attnlib.bands import percent
from attnlib.errors import AttnlibError, InputError
from attnlib.hooks import capture
from attnlib.hooks.blocks import stoppable
from attnlib.layout import TokenLayout
from attnlib.models import LoadedModel
from attnlib.record import AttentionRecord, Relevance
from attnlib.widgets.bench import Bench
from attnlib.widgets.findings import Findings
from attnlib.widgets.image_source import merge_heads
from attnlib.widgets.patterns import head_patterns
from attnlib.widgets.state import ExplorerState
from attnlib.widgets.telling import message, sentences, token_table
from attnlib.widgets.text_source import text_parts, token_labels, token_share
from attnlib.widgets.viewing import Viewer, viewer

__all__ = ["PICTURE_SUFFIXES", "SAMPLE_TEXTS", "TextBench", "TextProfile", "reads_text"]

SAMPLE_TEXTS = (
    "The bank raised its rates, so she walked along the river bank.",
    "She enjoyed the walk by the water.",
)
"""Texts that the explorer opens with when none is given."""
_SHOWN = 12
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class TextProfile:
    """Whose layers and heads the measures of a text belong to."""

    layers: tuple[int, ...]
    heads: tuple[int, ...]


def reads_text(loaded: LoadedModel) -> bool:
    """Whether a model takes texts and nothing else."""
    return bool(getattr(loaded.preparer, "reads_text_only", False))


class TextBench(Bench):
    """A bench whose input is a text; of several texts one is shown, and the model reads all of them.

    The text that is shown is captured alone, without padding.
    """

    def __init__(self, state: ExplorerState) -> None:
        super().__init__(state)
        self.texts: tuple[Any, ...] = ()
        state.kind = "text"

    def take(self, source: Any) -> None:
        """Use a text, a pair of texts, or a list of texts; the first is shown."""
        texts = list(source) if isinstance(source, list) else [source]
        if not texts or not all(_is_text(one) for one in texts):
            raise InputError(
                f"the explorer of a model of text takes texts or pairs of texts, got {source!r:.80}"
            )
        for one in texts:
            if isinstance(one, str) and (one.startswith("sample:") or Path(one).suffix in PICTURE_SUFFIXES):
                raise InputError(f"this model reads texts, but {one!r} looks like a picture: give it a text")
        self.texts = tuple(texts)
        self.state.item = 0
        self.state.picture = _words(texts[0])

    def choose_item(self, item: int) -> None:
        """Show another of the texts."""
        if not 0 <= item < len(self.texts):
            raise InputError(f"text {item} does not exist: there are {len(self.texts)}")
        self.state.item, self.state.picture = item, _words(self.texts[item])
        self.state.choose_query(None)

    def parameters(self, folder: str | os.PathLike[str] | None = None) -> dict[str, Any]:
        """Return the papermill parameters that make the present view again; texts need no ``folder``."""
        parameters = super().parameters(folder)
        shown, others = self.texts[self.state.item : self.state.item + 1], list(self.texts)
        if shown:
            del others[self.state.item]
        if shown and isinstance(shown[0], tuple):
            parameters["sentence"], parameters["other"] = shown[0][0], " ".join(shown[0][1:])
        elif others and isinstance(others[0], str):
            parameters["other"] = others[0]
        return parameters

    def beyond_parameters(self) -> list[str]:
        """Say what of the present view its parameters cannot make again."""
        said = super().beyond_parameters()
        if any(isinstance(one, tuple) for one in self.texts):
            said.append("Two texts stand in one sequence: explore(model, (sentence, other)) shows them so.")
        if len(self.texts) > 2:
            said.append("Of several texts the parameters name the one that is shown and one other.")
        return said

    def load(self) -> None:
        """Load the model that the state names.

        Raises
        ------
        InputError
            If it does not read texts.
        """
        super().load()
        if self.loaded is not None and not reads_text(self.loaded):
            raise InputError(
                f"{self.loaded.name} takes pictures, this explorer shows a text: open "
                f"explore({self.loaded.name!r}, picture)"
            )

    def capture(self) -> None:
        """Run the model once on the text that is shown, and on all texts for what it says."""
        with self.lock:
            key = self._key()
            if self._captured == key and self.findings is not None:
                return
            loaded, texts, item = self.loaded, self.texts, self.state.item
            if loaded is None or not texts:
                raise InputError("choose a model and a text first")
            target, internals = self.wanted_of_capture()
        prepared = loaded.prepare([texts[item]])
        with stoppable(loaded.model, self.check):
            record = capture(loaded, prepared, target=target, internals=internals)
        found = Findings(record)
        found.notes += [note for note in prepared.notes if note not in record.provenance.notes]
        _say(found, loaded, texts, prepared)
        with self.lock:
            self.findings, self._captured = found, key
            self.drop_lost_query()

    def query_problem(self, query: tuple[int, int] | int | None) -> str | None:
        """Say why what is shown has no such query, or None."""
        count = len(self.tokens())
        if query is None or (isinstance(query, int) and 0 <= query < count):
            return None
        return f"token {query} does not exist: there are {count}"

    def measure(self) -> None:
        """Measure entropy, distance and known patterns of every layer and head."""
        with self.lock:
            found, layers = self._found(), self.layers()
            if found.profile is not None or layers[0].kind != "self":
                return
            tokens = self.tokens()
        heads = layers[0].heads or tuple(range(layers[0].num_heads))
        patterns = head_patterns(replace(found.record, layers=tuple(layers)), tokens)
        measures = {}
        for name in ("token before", "separators", "same word"):
            values = patterns[name].to_numpy().reshape(len(layers), -1)
            if not np.isnan(values).all():
                measures[name.replace(" ", "_")] = values
        spread = [_spread(one.weights()[0].double()) for one in layers]
        measures["entropy"] = torch.stack([one for one, _ in spread]).numpy()
        measures["token_distance"] = torch.stack([one for _, one in spread]).numpy()
        with self.lock:
            found.measures.update(measures)
            found.profile = TextProfile(tuple(one.index for one in layers), tuple(heads))

    def look(self) -> None:
        """Look for nothing: a text has no parts of a picture."""

    def find(self) -> None:
        """Find nothing: a text has no parts of a picture."""

    def told(self, relevance: Relevance) -> tuple[str, str]:
        """Return what a map says in words, and a table of its strongest tokens, as HTML."""
        share = token_share(relevance)
        tokens = (
            self.tokens()
            if len(self.tokens()) == len(share)
            else list(map(relevance.layout.label, range(len(share))))
        )
        if float(share.sum()) == 0:
            return message("this map lies on no token"), ""
        order = share.argsort(descending=True).tolist()
        rows = [(i, tokens[i], float(share[i]), float(share[i]) * len(tokens)) for i in order]
        half = int((share[order].cumsum(0) < 0.5).sum()) + 1
        even = percent(1 / len(tokens))
        strongest = ", ".join(f'"{token}" {percent(part)} ({lift:.2f}x)' for _, token, part, lift in rows[:3])
        lines = [
            f"Map: {relevance.method}, query: {relevance.query}.",
            f"Strongest: {strongest}; an even map gives each of {len(tokens)} tokens {even}.",
            f"Half of the map lies on {half} of {len(tokens)} tokens.",
            *relevance.notes,
        ]
        return sentences("What the map says", lines), token_table(rows[:_SHOWN], len(tokens))

    def chosen(self) -> Relevance:
        """Return the row of the selected layer, head and token (the mean of all tokens if none)."""
        state = self.state
        if state.layers != "one" or state.direction != "from":
            raise InputError("words are written for one layer and for where a token looks: choose those")
        layers = self.layers()
        layer = layers[min(state.layer, len(layers) - 1)]
        heads = layer.heads or tuple(range(layer.num_heads))
        with torch.inference_mode():
            weights = layer.weights()[0].float()
            rows = (
                weights[min(state.head, len(heads) - 1)]
                if state.heads == "one"
                else merge_heads(weights, state.heads)
            )
        query, tokens = state.query, self.tokens()
        row = rows.mean(dim=0) if query is None else rows[int(query)]
        return Relevance(
            row[None].clone(),
            TokenLayout(None, tokens=tokens),
            method="raw",
            options={
                "layers": [layer.index],
                "head": heads[min(state.head, len(heads) - 1)] if state.heads == "one" else state.heads,
            },
            query="mean of all tokens" if query is None else f'"{tokens[int(query)]}" ({query})',
            provenance=self._found().record.provenance,
        )

    def vision(self) -> AttentionRecord:
        """Return the part of the record that is shown: all of it."""
        return self._found().record

    def layers(self) -> list[Any]:
        """Return the calls of the part that is shown first."""
        return next(iter(text_parts(self._found().record).values()))

    def depth(self) -> int:
        """Return how many layers can be shown."""
        return len(self.layers())

    def tokens(self) -> list[str]:
        """Return the tokens of the text that is shown."""
        found = self._found()
        return token_labels(found.record, self.layers()[0], 0, "key")

    def view(self, *, regions: Any, relevances: Mapping[str, Relevance], budget_mb: float | int) -> Viewer:
        """Pack what was found for the viewer; within no budget a kernel answers, within more the page."""
        del regions
        return viewer(
            self._found().record,
            relevances=relevances,
            budget_mb=max(16.0, budget_mb),
            palette=self.state.palette,
            title=f"{self.state.model}: {self.state.picture[:80]}",
        )

    def _key(self) -> tuple[Any, ...]:
        return (*super()._key(), self.texts, self.state.item)


def _is_text(one: Any) -> bool:
    parts = one if isinstance(one, tuple) else (one,)
    return all(isinstance(part, str) for part in parts)


def _words(text: str | Sequence[str]) -> str:
    return text if isinstance(text, str) else " | ".join(text)


def _spread(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return entropy / log N and mean distance in tokens of every head, averaged over the queries."""
    count = weights.shape[-1]
    entropy = -(weights * weights.clamp(min=1e-12).log()).sum(dim=-1).mean(dim=-1)
    places = torch.arange(count, dtype=weights.dtype)
    apart = (places[:, None] - places[None]).abs()
    return entropy / np.log(max(count, 2)), (weights * apart).sum(dim=-1).mean(dim=-1)


def _say(found: Findings, loaded: LoadedModel, texts: Sequence[Any], prepared: Any) -> None:
    try:
        output = found.record.output
        if len(texts) > 1:  # some models compare texts: what they say needs all of them
            prepared = loaded.prepare(list(texts))
            with torch.inference_mode():
                output = loaded.model(**prepared.inputs)
        said = loaded.said(output, texts=prepared.texts)
        found.said = tuple(said.sentences)
    except AttnlibError as problem:
        found.notes.append(f"what the model said could not be read: {problem}")
