"""Trials: pictures with a question to a model, and the truth about the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attnlib.errors import InputError
from attnlib.evaluate.scenes import CLASSES, Scene, grid_scene, make_scene

if TYPE_CHECKING:
    from attnlib.models import LoadedModel
    from attnlib.record import AttentionRecord, Relevance

__all__ = ["Trials", "grid_trials", "maps_of_method", "scene_trials", "shortcut_trials"]

_CHUNK = 50


@dataclass(frozen=True, eq=False)
class Trials:
    """A batch of pictures, each with a label that the model is asked about.

    Parameters
    ----------
    loaded : the model.
    scenes : the pictures.
    targets : the label of each picture.
    masks : where the evidence for that label is, [batch, rows, columns].
    pixel_values : the model input.
    """

    loaded: LoadedModel
    scenes: tuple[Scene, ...]
    targets: tuple[str, ...]
    masks: Bool[Tensor, "batch rows columns"]
    pixel_values: Float[Tensor, "batch channel rows columns"]

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
        )

    def with_targets(self, targets: Sequence[str]) -> Trials:
        """Return the same pictures with other labels; the masks no longer apply."""
        return replace(self, targets=tuple(targets))

    @property
    def things(self) -> Bool[Tensor, "batch rows columns"]:
        """All pixels that show anything but background."""
        masks = [np.any([thing.mask for thing in scene.things], axis=0) for scene in self.scenes]
        return torch.from_numpy(np.stack(masks))

    def logits(self, pixel_values: Tensor) -> Float[Tensor, "batch"]:
        """Return each item's own logit (for a caption pair: its scaled similarity to "a CLASS")."""
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
        output = part.loaded.model(**part._inputs(pixels))
        return part._scores(output)

    def probability(self, pixel_values: Tensor) -> Float[Tensor, "batch"]:
        """Return each item's own score in 0..1: sigmoid of the logit, or cosine similarity for a pair."""
        return self.chances(self.logits(pixel_values))

    @property
    def is_pair(self) -> bool:
        """Whether the model compares pictures with captions."""
        return hasattr(self.loaded.model, "logit_scale")

    def hit(self, pixel_values: Tensor) -> Float[Tensor, "batch"]:
        """Return 1 where the model says the label; NaN for a pair, which says none."""
        return self.hits(self.logits(pixel_values))

    def hits(self, logits: Tensor) -> Tensor:
        """Return 1 where a logit says the label; NaN for a pair, which says none."""
        return torch.full_like(logits, float("nan")) if self.is_pair else (logits > 0).float()

    def chances(self, logits: Tensor) -> Tensor:
        """Return logits as scores in 0..1: sigmoid, or cosine similarity for a pair."""
        if self.is_pair:
            return logits / self.loaded.model.logit_scale.detach().exp()  # type: ignore[operator]
        return logits.sigmoid()

    def _inputs(self, pixels: Tensor) -> dict[str, Tensor]:
        if not self.is_pair:
            return {"pixel_values": pixels}
        from attnlib.models.said import tokenizer_of

        tokenizer: Any = tokenizer_of(self.loaded.processor)
        words = tokenizer([f"a {target}" for target in self.targets], padding=True, return_tensors="pt")
        return {
            "pixel_values": pixels,
            "input_ids": words["input_ids"],
            "attention_mask": words["attention_mask"],
        }

    def _scores(self, output: Any) -> Tensor:
        if self.is_pair:
            own = torch.arange(len(self))[:, None]
            return output.logits_per_image.gather(1, own)[:, 0]
        index = [self.loaded.labels.index(target) for target in self.targets]
        return output.logits.gather(1, torch.tensor(index)[:, None])[:, 0]

    def capture(self, *, internals: bool = True, gradients: bool = True) -> AttentionRecord:
        """Capture the model on all pictures at once, for their own labels; the vision stream of it."""
        from attnlib.hooks import capture

        record = capture(
            self.loaded.model,
            self._inputs(self.pixel_values),
            target=self._scores if gradients else None,
            internals=internals,
        )
        return record.select(stream="vision") if self.is_pair else record


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
    from attnlib.methods import METHODS, explain

    needs = set(METHODS[method].needs)
    internals = bool(needs & {"internals", "model"})
    gradients = bool(needs & {"gradients", "model"})
    parts = []
    for start in range(0, len(trials), chunk):
        record = trials.part(start, start + chunk).capture(internals=internals, gradients=gradients)
        parts.append(patch_scores(explain(record, method, **options)))
    return torch.cat(parts)


def patch_scores(relevance: Relevance) -> Float[Tensor, "batch height width"]:
    """Return the patch part of a relevance without the identity's own part, in float32."""
    heat = relevance.heatmap()
    if relevance.identity is not None:
        own = relevance.identity[..., relevance.layout.patch_slice].unflatten(-1, heat.shape[-2:])
        heat = heat - own
    return heat.detach().float()


def _said(loaded: LoadedModel, scenes: Sequence[Scene], asked: Sequence[str]) -> list[bool]:
    trials = _trials(loaded, scenes, asked, lambda scene, name: scene.mask(name))
    if not trials.is_pair:
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
    masks = np.stack([mask_of(scene, target) for scene, target in zip(scenes, targets, strict=True)])
    texts = ["a scene"] if hasattr(loaded.model, "logit_scale") else None
    prepared = loaded.prepare([scene.picture for scene in scenes], texts=texts)
    return Trials(
        loaded, tuple(scenes), tuple(targets), torch.from_numpy(masks), prepared.inputs["pixel_values"]
    )
