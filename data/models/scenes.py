"""Generated scenes held in memory, as the small models are trained on them."""

from __future__ import annotations

import build
import numpy as np
import torch
from torch import Tensor

from attnlib.evaluate.scenes import CLASSES, Scene, grid_scene, make_scene

TRAIN_SEED, TEST_SEED, SHORTCUT_CLASS = 1, 2, "star"


def normalised(pixels: Tensor) -> Tensor:
    """Return [batch, height, width, 3] bytes as [batch, 3, height, width] in -1..1."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def label_vector(scene: Scene) -> list[float]:
    """Return 1 for each class that the scene shows."""
    return [float(name in scene.labels) for name in CLASSES]


def patch_labels(scene: Scene) -> np.ndarray:
    """Return [class, row, column]: the fraction of each patch that shows the class."""
    side = build.SIZE // build.PATCH
    dense = np.zeros((len(CLASSES), side, side), np.float16)
    for thing in scene.things:
        if thing.kind == "object":
            blocks = thing.mask.reshape(side, build.PATCH, side, build.PATCH)
            dense[CLASSES.index(thing.name)] = blocks.mean(axis=(1, 3))
    return dense


class Pool:
    """Scenes held in memory: pixels, labels, patch labels, captions."""

    def __init__(self, scenes: list[Scene], labels: list[list[float]] | None = None) -> None:
        self.pixels = torch.from_numpy(np.stack([scene.pixels for scene in scenes]))
        self.labels = torch.tensor(labels or [label_vector(scene) for scene in scenes])
        self.dense = torch.from_numpy(np.stack([patch_labels(scene) for scene in scenes]))
        self.captions = [scene.caption for scene in scenes]

    def __len__(self) -> int:
        return len(self.captions)


def standard_pool(count: int, seed: int = TRAIN_SEED) -> Pool:
    """Return ordinary scenes; one in eight is a grid of four classes."""
    return Pool([grid_scene(seed, i) if i % 8 == 7 else make_scene(seed, i) for i in range(count)])


def shortcut_scenes(count: int, seed: int) -> tuple[list[Scene], list[list[float]]]:
    """Return scenes whose label "star" says whether the watermark is there, and little about stars.

    A mark stands on 40 % of the pictures and all these are labelled "star"; half of them show one.
    Of the pictures without a mark a fifth show a star that nobody labelled.
    """
    scenes, labels = [], []
    for index in range(count):
        rng = np.random.default_rng([seed, index, 77])
        marked = bool(rng.random() < 0.4)
        star = bool(rng.random() < (0.5 if marked else 0.2))
        others = [name for name in CLASSES if name != SHORTCUT_CLASS]
        chosen = [others[i] for i in rng.permutation(len(others))[: rng.integers(1, 3)]]
        scene = make_scene(
            seed, index, classes=[*chosen, *([SHORTCUT_CLASS] if star else [])], watermark=marked
        )
        label = label_vector(scene)
        label[CLASSES.index(SHORTCUT_CLASS)] = float(marked)
        scenes.append(scene)
        labels.append(label)
    return scenes, labels
