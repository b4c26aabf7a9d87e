"""Trials: pictures with a question to a model, and the truth about the answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnlib.errors import AttnlibError, InputError
from attnlib.evaluate.questions import Question, question_for, words_before
from attnlib.evaluate.scenes import CLASSES, Scene, grid_scene, make_scene

if TYPE_CHECKING:
    from attnlib.models import LoadedModel
    from attnlib.record import AttentionRecord, Relevance

__all__ = [
    "Maps",
    "Trials",
    "grid_trials",
    "maps_of_method",
    "maps_of_methods",
    "needs_of",
    "patch_scores",
    "scene_trials",
    "shortcut_trials",
]

_CHUNK = 50


@dataclass(frozen=True, eq=False)
class Trials:
    """A batch of pictures, each with a label that the model is asked about.

    Parameters
    ----------
    loaded : the model.
    scenes : the pictures.
    targets : the label (or the next word) of each picture.
    masks : where the evidence for that label is, [batch, rows, columns].
    pixel_values : the model input.
    begun : for a model that writes, the words of the caption before the one that is asked for.
    """

    loaded: LoadedModel
    scenes: tuple[Scene, ...]
    targets: tuple[str, ...]
    masks: Bool[Tensor, "batch rows columns"]
    pixel_values: Float[Tensor, "batch channel rows columns"]
    begun: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.scenes)

    def part(self, start: int, stop: int) -> Trials:
        """Return some of the trials."""
        chosen = slice(start, stop)
        return replace(
            self,
            scenes=self.scenes[chosen],
            targets=self.targets[chosen],
            masks=self.masks[chosen],
            pixel_values=self.pixel_values[chosen],
            begun=self.begun[chosen],
        )

    def with_targets(self, targets: Sequence[str]) -> Trials:
        """Return the same pictures with other labels; the masks no longer apply."""
        return replace(self, targets=tuple(targets))

    def with_pixels(self, pixel_values: Tensor) -> Trials:
        """Return the same questions about changed pictures."""
        return replace(self, pixel_values=pixel_values)

    @property
    def things(self) -> Bool[Tensor, "batch rows columns"]:
        """All pixels that show anything but background."""
        masks = [np.any([thing.mask for thing in scene.things], axis=0) for scene in self.scenes]
        return torch.from_numpy(np.stack(masks))

    @property
    def question(self) -> Question:
        """How this kind of model is asked and read."""
        return question_for(self.loaded)

    @property
    def says(self) -> bool:
        """Whether the model says yes or no to a class; a caption pair only compares."""
        return self.question.says

    def logits(self, pixel_values: Tensor) -> Float[Tensor, "batch"]:
        """Return the number that is watched for each item, see :mod:`attnlib.evaluate.questions`.

        For a classifier the label's logit, for a caption pair its scaled similarity to "a CLASS", for a
        model that writes the log odds of the word.
        """
        with torch.no_grad():
            return torch.cat(
                [
                    self._own(self.part(start, start + _CHUNK), pixels)
                    for start, pixels in zip(
                        range(0, len(self), _CHUNK), pixel_values.split(_CHUNK), strict=True
                    )
                ]
            )

    @staticmethod
    def _own(part: Trials, pixels: Tensor) -> Tensor:
        output = part.loaded.model(**part.inputs(pixels))
        return part.question.logit(output, part.targets, part.begun)

    def probability(self, pixel_values: Tensor) -> Float[Tensor, "batch"]:
        """Return each item's own score in 0..1: a probability, or cosine similarity for a pair."""
        return self.chances(self.logits(pixel_values))

    def hit(self, pixel_values: Tensor) -> Float[Tensor, "batch"]:
        """Return 1 where the model says the label; NaN for a pair, which says none."""
        return self.hits(self.logits(pixel_values))

    def hits(self, logits: Tensor) -> Tensor:
        """Return 1 where a logit says the label; NaN for a pair, which says none."""
        return (logits > 0).float() if self.says else torch.full_like(logits, float("nan"))

    def chances(self, logits: Tensor) -> Tensor:
        """Return logits as scores in 0..1: a probability, or cosine similarity for a pair."""
        return self.question.chance(logits)

    def inputs(self, pixels: Tensor | None = None) -> dict[str, Tensor]:
        """Return the model's inputs, with other pixels if they are given."""
        given = self.pixel_values if pixels is None else pixels
        return self.question.inputs(self.targets, self.begun, given)

    def record(self, *, internals: bool = True, gradients: bool = True) -> AttentionRecord:
        """Capture the model on all pictures at once, for their own labels, with all of its streams."""
        from attnlib.hooks import capture

        def score(output: Any) -> Tensor:
            return self.question.score(output, self.targets, self.begun)

        return capture(
            self.loaded.model, self.inputs(), target=score if gradients else None, internals=internals
        )

    def capture(self, *, internals: bool = True, gradients: bool = True) -> AttentionRecord:
        """Capture the model on all pictures at once; the stream of the pictures."""
        record = self.record(internals=internals, gradients=gradients)
        stream = self.question.stream
        return record if stream is None else record.select(stream=stream)

    def map_from(self, record: AttentionRecord, method: str, **options: Any) -> Tensor:
        """Return the maps of one method from a record of these trials, [batch, height, width]."""
        from attnlib.methods import explain

        part, query = self.question.asked(record, method, self.begun)
        return patch_scores(explain(part, method, **query, **options))


def scene_trials(loaded: LoadedModel, count: int, *, seed: int = 2, size: int = 96) -> Trials:
    """Return ordinary scenes about which the model is right, each with one shown class as its question.

    Scenes in which the model does not say that class are passed over: a map of a wrong answer has no
    truth to be compared with.
    """
    scenes, targets = [], []
    index = 0
    while len(scenes) < count:
        batch = [make_scene(seed, i, size=size) for i in range(index, index + _CHUNK)]
        asked = [s.labels[(seed + s.index) % len(s.labels)] for s in batch]
        right = _said(loaded, batch, asked)
        scenes += [s for s, yes in zip(batch, right, strict=True) if yes]
        targets += [t for t, yes in zip(asked, right, strict=True) if yes]
        index += _CHUNK
        if index >= 20 * count + _CHUNK and len(scenes) < count / 4:
            raise InputError(
                f"{loaded.name} is right about {len(scenes)} of {index} scenes: too few to measure maps on"
            )
    return _trials(loaded, scenes[:count], targets[:count], lambda scene, name: scene.mask(name))


def grid_trials(loaded: LoadedModel, count: int, *, seed: int = 2, size: int = 96) -> Trials:
    """Return 2x2 scenes, each with one of its four classes as its question; the mask is its quarter."""
    scenes = [grid_scene(seed, i, size=size) for i in range(count)]
    targets = [scene.things[i % 4].name for i, scene in enumerate(scenes)]
    return _trials(loaded, scenes, targets, lambda scene, name: scene.mask(name))


def shortcut_trials(
    loaded: LoadedModel, count: int, *, seed: int = 2, size: int = 96, target: str = "star"
) -> Trials:
    """Return scenes with a watermark and a star; the question is "star", the mask is the watermark.

    For a model that learned the shortcut the watermark is where the evidence is.
    """
    others = [name for name in CLASSES if name != target]
    scenes = [
        make_scene(seed, i, size=size, classes=[target, others[i % len(others)]], watermark=True)
        for i in range(count)
    ]
    return _trials(loaded, scenes, [target] * count, lambda scene, _: scene.mask("watermark"))


def maps_of_method(
    trials: Trials, method: str, *, chunk: int = 25, **options: Any
) -> Float[Tensor, "batch height width"]:
    """Return the maps of one method on all trials: the patch part without what the identity put there.

    Raises
    ------
    NeedsError
        If the method cannot be used on this model.
    """
    found = maps_of_methods(trials, {method: {"method": method, **options}}, chunk=chunk)
    if method in found.errors:
        raise found.errors[method]
    return found.maps[method]


@dataclass(eq=False)
class Maps:
    """Maps of several methods on the same trials.

    Parameters
    ----------
    maps : row name -> [batch, height, width].
    seconds : row name -> seconds per picture, the capture that the method needs included.
    errors : row name -> why there are none.
    """

    maps: dict[str, Tensor]
    seconds: dict[str, float]
    errors: dict[str, AttnlibError]


def maps_of_methods(trials: Trials, rows: Mapping[str, Mapping[str, Any]], *, chunk: int = 25) -> Maps:
    """Return the maps of several methods; methods that need the same capture share it.

    Parameters
    ----------
    trials : pictures and questions.
    rows : row name -> {"method": name, **options}.
    chunk : pictures at a time.

    Returns
    -------
    Maps without what the identity put there; methods that refuse stand in ``errors``.
    """
    parts: dict[str, list[Tensor]] = {name: [] for name in rows}
    seconds = dict.fromkeys(rows, 0.0)
    errors: dict[str, AttnlibError] = {}
    for start in range(0, len(trials), chunk):
        part = trials.part(start, start + chunk)
        records: dict[tuple[bool, bool], tuple[AttentionRecord, float]] = {}
        for name, given in rows.items():
            if name in errors:
                continue
            options = dict(given)
            method = str(options.pop("method", name))
            try:
                began = time.perf_counter()
                need = needs_of(method)
                if need not in records:
                    record = part.record(internals=need[0], gradients=need[1])
                    records[need] = (record, time.perf_counter() - began)
                    began = time.perf_counter()
                record, captured = records[need]
                parts[name].append(part.map_from(record, method, **options))
                seconds[name] += captured + time.perf_counter() - began
            except AttnlibError as error:
                errors[name] = error
    maps = {name: torch.cat(found) for name, found in parts.items() if name not in errors and found}
    return Maps(maps, {name: seconds[name] / len(trials) for name in maps}, errors)


def needs_of(method: str) -> tuple[bool, bool]:
    """Return whether a method needs internals, and whether it must be told the target."""
    from attnlib.methods import METHODS

    card = METHODS[method]
    return card.needs_internals, card.explains_target


def patch_scores(relevance: Relevance) -> Float[Tensor, "batch height width"]:
    """Return the patch part of a relevance without the identity's own part, in float32."""
    return relevance.without_identity().heatmap().detach().float()


def _said(loaded: LoadedModel, scenes: Sequence[Scene], asked: Sequence[str]) -> list[bool]:
    trials = _trials(loaded, scenes, asked, lambda scene, name: scene.mask(name))
    if trials.says:
        return (trials.logits(trials.pixel_values) > 0).tolist()
    # a pair is right if the shown class fits better than three classes that are not shown
    own = trials.logits(trials.pixel_values)
    absent = [[name for name in CLASSES if name not in scene.labels] for scene in scenes]
    others = [
        trials.with_targets([names[shift % len(names)] for names in absent]).logits(trials.pixel_values)
        for shift in range(3)
    ]
    return (own > torch.stack(others).amax(dim=0)).tolist()


def _trials(
    loaded: LoadedModel,
    scenes: Sequence[Scene],
    targets: Sequence[str],
    mask_of: Callable[[Scene, str], np.ndarray],
) -> Trials:
    if not scenes:
        raise InputError("trials need at least one scene: count must be 1 or more")
    masks = np.stack([mask_of(scene, target) for scene, target in zip(scenes, targets, strict=True)])
    question = question_for(loaded)
    texts = ["a scene"] if question.stream == "vision" else None
    prepared = loaded.prepare([scene.picture for scene in scenes], texts=texts)
    return Trials(
        loaded,
        tuple(scenes),
        tuple(targets),
        torch.from_numpy(masks),
        prepared.inputs["pixel_values"],
        tuple(words_before(scene, target) for scene, target in zip(scenes, targets, strict=True)),
    )
