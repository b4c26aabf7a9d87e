"""trust: how far one map of one picture can be trusted, in numbers with baselines."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlib.errors import AttnlibError, InputError
from attnlib.evaluate.again import MapAgain
from attnlib.evaluate.answer import label_logits, main_tensor
from attnlib.evaluate.artifacts import artifact_patches, artifact_share, spike_share, token_norms
from attnlib.evaluate.baselines import random_maps
from attnlib.evaluate.known_truth import known_truth, sentence_of
from attnlib.evaluate.measures import MEASURES
from attnlib.evaluate.panel import Trust, TrustNumber
from attnlib.evaluate.perturbation import deletion, insertion
from attnlib.evaluate.randomisation import randomised, similarity, stages
from attnlib.evaluate.steadiness import head_agreement, stability
from attnlib.evaluate.trials import patch_scores
from attnlib.record import Relevance

__all__ = ["CHECKS", "trust"]

CHECKS: Mapping[str, str] = {
    "known_truth": "how this method did on generated scenes whose truth is known; costs nothing",
    "perturbation": "hide the highest or the lowest patches first, against random orders; 32 forward passes",
    "artifacts": "mass on lone patches far above their surroundings, and on patches of outlying norm; one "
    "forward pass",
    "stability": "the map again for noisy copies of the picture; three maps",
    "randomisation": "the map again with weights replaced by noise; one map",
    "label": "the map again for the model's second label; one map",
    "heads": "whether the heads that the map averages say the same; one forward pass",
}
"""Checks by name, and what they do and cost. The first three are done unless others are asked for."""
CHEAP = ("known_truth", "perturbation", "artifacts")
_STEPS = (0.05, 0.2, 0.4, 0.7)
_RANDOM = 3


def trust(
    relevance: Relevance,
    model: Any = None,
    inputs: Any = None,
    *,
    item: int = 0,
    target: int | str | None = None,
    checks: Sequence[str] | str | None = None,
    again: Callable[[Mapping[str, Tensor]], Relevance] | None = None,
    score: Callable[[Any], Tensor] | None = None,
    seconds: float = 30.0,
    seed: int = 0,
) -> Trust:
    """Measure how far a map can be trusted.

    Parameters
    ----------
    relevance : the map.
    model : the LoadedModel or module that it explains; without it only known truth and lone spikes are told.
    inputs : the same pictures or inputs that the map was made from.
    item : which picture of the batch.
    target : label that the map was made for, its index or its name; None = the model's own top label.
    checks : names of :data:`CHECKS`, "all", or None for the cheap ones.
    again : computes the relevance for changed inputs; by default the same method with the same options is
        run again, which is possible for maps of the tokens that the head reads.
    score : model output in, one number per item out; by default the probability of the label, or, where
        there are no labels, how alike the output stays (cosine).
    seconds : a check that would take longer is left out unless it was asked for by name, and its cost is
        told.
    seed : of random orders, noise and weights.

    Returns
    -------
    Numbers with baselines and sentences. What could not be done stands in ``left_out``, never as a number.

    Raises
    ------
    InputError
        If a check or the label is unknown, or the item is outside the batch.
    """
    chosen = _chosen(checks)
    if not 0 <= item < relevance.batch_size:
        raise InputError(f"item {item} is outside the batch of {relevance.batch_size}")
    left_out = {name: CHECKS[name] for name in CHECKS if name not in chosen}
    numbers: list[TrustNumber] = []
    notes: list[str] = []
    if "known_truth" in chosen:
        try:
            found, note = known_truth(relevance)
            numbers += found
            notes.append(note)
        except InputError as error:
            left_out["known_truth"] = str(error)
    case = _Case(relevance, model, inputs, item, _label_index(target, model), again, score, seed)
    for name in [name for name in chosen if name != "known_truth"]:
        start = time.perf_counter()
        try:
            reason = case.too_long(name, seconds if checks is None else float("inf"))
            if reason:
                left_out[name] = reason
                continue
            found = getattr(case, name)()
        except AttnlibError as error:
            left_out[name] = str(error)
            continue
        spent = (time.perf_counter() - start) / max(1, len(found))
        numbers += [_number(measure, value, base, spent) for measure, value, base in found]
    return Trust(relevance.method, tuple(numbers), left_out, (*notes, *case.notes))


class _Case:
    """One picture under test."""

    def __init__(
        self,
        relevance: Relevance,
        model: Any,
        inputs: Any,
        item: int,
        target: int | None,
        again: Callable[[Mapping[str, Tensor]], Relevance] | None,
        score: Callable[[Any], Tensor] | None,
        seed: int,
    ) -> None:
        self.relevance, self.loaded, self.given, self.item = relevance, model, inputs, item
        self.target, self.given_again, self.given_score, self.seed = target, again, score, seed
        self._inputs: dict[str, Tensor] | None = None
        self.notes: list[str] = []
        self.again = MapAgain(model, relevance, item, target)

    @property
    def module(self) -> nn.Module:
        if self.loaded is None:
            raise InputError("needs the model: trust(relevance, model, inputs)")
        return self.loaded if isinstance(self.loaded, nn.Module) else self.loaded.model

    @property
    def inputs(self) -> dict[str, Tensor]:
        """The inputs of this one item."""
        if self._inputs is None:
            _ = self.module  # without a model there is no use for the picture either
            if self.given is None:
                raise InputError("needs the picture: trust(relevance, model, inputs)")
            given: Any = self.given
            prepare: Any = getattr(self.loaded, "prepare", None)
            if isinstance(given, Tensor):
                given = {"pixel_values": given}
            elif not isinstance(given, Mapping) and hasattr(given, "inputs"):
                given = given.inputs
            elif not isinstance(given, Mapping) and callable(prepare):
                prepared: Any = prepare(given)
                given = prepared.inputs
            self._inputs = {
                name: value[self.item : self.item + 1] if self._batched(value) else value
                for name, value in given.items()
            }
        return self._inputs

    def _batched(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.dim() > 0 and len(value) == self.relevance.batch_size

    @property
    def pixels(self) -> Tensor:
        pixels = self.inputs.get("pixel_values")
        if pixels is None or pixels.dim() != 4 or self.relevance.layout.grid is None:
            raise InputError("works on pictures whose pixels the model takes as one array")
        return pixels

    @property
    def map(self) -> Tensor:
        """The map of this item, [1, height, width]."""
        scores = patch_scores(self.relevance)
        if scores.dim() != 3:
            raise InputError("needs one map per item: choose one query instead of 'all'")
        return scores[self.item : self.item + 1]

    def forward(self, pixels: Tensor) -> Any:
        others = {
            name: value.expand(len(pixels), *value.shape[1:]) if isinstance(value, Tensor) else value
            for name, value in self.inputs.items()
            if name != "pixel_values"
        }
        with torch.no_grad():
            return self.module(**{**others, "pixel_values": pixels})

    @cached_property
    def original(self) -> tuple[Any, float]:
        """The output for the picture as it is, and the seconds that it took."""
        start = time.perf_counter()
        return self.forward(self.pixels), time.perf_counter() - start

    def logits(self, output: Any) -> Any:
        """Return the logits of the labels, [batch, label]; None where the model has none."""
        return label_logits(output, getattr(self.loaded, "labels", None) or ())

    def scorer(self) -> Callable[[Tensor], Tensor]:
        """Return pixels -> score of each item."""
        original, _ = self.original
        given = self.given_score
        if given is not None:
            return lambda pixels: given(self.forward(pixels)).detach()
        logits = self.logits(original)
        if logits is not None:
            several = getattr(getattr(self.module, "config", None), "problem_type", None)
            link = torch.sigmoid if several == "multi_label_classification" else _softmax
            label = int(logits[0].argmax()) if self.target is None else self.target
            return lambda pixels: link(self.logits(self.forward(pixels)))[:, label]
        reference = main_tensor(original).flatten(1)
        return lambda pixels: F.cosine_similarity(main_tensor(self.forward(pixels)).flatten(1), reference)

    def too_long(self, name: str, limit: float) -> str:
        """Return why a check is left out for its cost, or ""."""
        if name != "perturbation" or limit == float("inf"):
            return ""
        cost = self.original[1] * 2 * len(_STEPS) * (1 + _RANDOM)
        return f"would take about {cost:.0f} s; ask for it by name" if cost > limit else ""

    def perturbation(self) -> list[tuple[str, float, float]]:
        layout, score = self.relevance.layout, self.scorer()
        noise = random_maps(_RANDOM, self.map.shape[1:], seed=self.seed)  # type: ignore[arg-type]
        maps = torch.cat([self.map, noise])
        pixels = self.pixels.expand(len(maps), -1, -1, -1)
        options: dict[str, Any] = {
            "fractions": _STEPS,
            "patch_size": layout.patch_size,
            "seed": self.seed,
        }
        down = deletion(score, pixels, maps, **options).area
        up = insertion(score, pixels, maps, **options).area
        pairs = {"deletion": down, "insertion": up, "faithfulness": up - down}
        return [(name, float(v[0]), float(v[1:].mean())) for name, v in pairs.items()]

    def artifacts(self) -> list[tuple[str, float, float]]:
        found = [("spike_share", float(spike_share(self.map)[0]), 0.0)]
        if self.loaded is None or self.given is None:
            return found
        try:
            norms = token_norms(self.module, self.inputs, self.relevance.layout)
        except (InputError, TypeError):
            return found  # the model shows no hidden states, or not when it is asked for them
        outlying = artifact_patches(norms)
        area = float(outlying.float().mean())
        if area:
            found.append(("artifact_share", float(artifact_share(self.map, outlying)[0]), area))
        else:
            self.notes.append(
                "No patch has an outlying norm, so no mass lies on artifact tokens of that kind."
            )
        return found

    def stability(self) -> list[tuple[str, float, float]]:
        alike = stability(self._maps_again, self.pixels, samples=2, seed=self.seed)
        return [("stability", float(alike[0]), 1.0)]

    def randomisation(self) -> list[tuple[str, float, float]]:
        original = self._maps_again(self.pixels)
        with randomised(self.module, stages(self.module), seed=self.seed):
            other = torch.nan_to_num(self._maps_again(self.pixels))
        return [("weights_matter", float(similarity(original, other).abs()[0]), 1.0)]

    def label(self) -> list[tuple[str, float, float]]:
        logits = self.logits(self.original[0])
        if logits is None or logits.shape[1] < 2:
            raise InputError("the model has no labels to compare")
        best = logits[0].argsort(descending=True).tolist()
        own = best[0] if self.target is None else self.target
        other = next(label for label in best if label != own)
        first, second = (self._maps_again(self.pixels, target=label) for label in (own, other))
        return [("label_matters", float(similarity(first, second)[0]), 1.0)]

    def heads(self) -> list[tuple[str, float, float]]:
        from attnlib.hooks import capture
        from attnlib.methods import explain

        record = self.again.stream_of(capture(self.loaded, self.inputs))
        count = record.layers[-1].num_heads
        query = self.again.query_of(self.inputs) if self.given_again is None else None
        maps = [patch_scores(explain(record, "raw", query=query, heads=head)) for head in range(count)]
        return [("head_agreement", float(head_agreement(torch.stack(maps, dim=1))[0]), 0.0)]

    def _maps_again(self, pixels: Tensor, *, target: int | None = None) -> Tensor:
        inputs = {**self.inputs, "pixel_values": pixels}
        if self.given_again is not None:
            if target is not None:
                raise InputError("the label cannot be changed: the map is made by the function given")
            return patch_scores(self.given_again(inputs))
        return patch_scores(self.again.relevance(inputs, self.inputs, target))


def _chosen(checks: Sequence[str] | str | None) -> tuple[str, ...]:
    if checks is None:
        return CHEAP
    names = tuple(CHECKS) if checks == "all" else (checks,) if isinstance(checks, str) else tuple(checks)
    unknown = [name for name in names if name not in CHECKS]
    if unknown or not names:
        raise InputError(f"unknown checks {unknown or 'in an empty selection'}; there are {list(CHECKS)}")
    return names


def _label_index(target: int | str | None, model: Any) -> int | None:
    if not isinstance(target, str):
        return target
    labels = tuple(getattr(model, "labels", None) or ())
    if target not in labels:
        raise InputError(f"unknown label {target!r}; the model knows {', '.join(labels[:8]) or 'no names'}")
    return labels.index(target)


def _number(measure: str, value: float, baseline: float, seconds: float) -> TrustNumber:
    card = MEASURES[measure]
    return TrustNumber(
        measure,
        value,
        baseline,
        card.better,
        sentence_of(measure, value, baseline),
        "this picture",
        constant_wins=card.constant_wins,
        seconds=seconds,
    )


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(dim=1)
