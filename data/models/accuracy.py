"""How good the small models are on scenes of a seed that none was trained on."""

from __future__ import annotations

import build
import numpy as np
import torch
from scenes import SHORTCUT_CLASS, TEST_SEED, Pool, normalised
from torch import nn
from torch.nn import functional as F

from attnlib.evaluate.scenes import CLASSES, Scene, make_scene


@torch.no_grad()
def classifier_metrics(model: nn.Module, scenes: list[Scene]) -> dict[str, float]:
    """Return how often the top label is shown, and how often the whole set of labels is right."""
    pool = Pool(scenes)
    logits = torch.cat([model(normalised(part)).logits for part in pool.pixels.split(100)])
    top = pool.labels.gather(1, logits.argmax(1, keepdim=True))
    right = (logits > 0) == (pool.labels > 0)
    return {
        "top_label_shown": top.mean().item(),
        "all_labels_right": right.all(1).float().mean().item(),
        "labels_right": right.float().mean().item(),
        "chance_top_label_shown": pool.labels.mean().item(),
    }


@torch.no_grad()
def shortcut_metrics(model: nn.Module) -> dict[str, float]:
    """Return how often the model says "star" with and without the star and the watermark."""
    others = [name for name in CLASSES if name != SHORTCUT_CLASS]
    told = {}
    for star in (False, True):
        for mark in (False, True):
            names = [[o, SHORTCUT_CLASS] if star else [o] for o in others]
            scenes = [
                make_scene(TEST_SEED, i, classes=names[i % len(names)], watermark=mark) for i in range(200)
            ]
            logits = model(normalised(Pool(scenes).pixels)).logits
            key = f"says_star_{'with' if star else 'no'}_star_{'with' if mark else 'no'}_watermark"
            told[key] = (logits[:, CLASSES.index(SHORTCUT_CLASS)] > 0).float().mean().item()
    return told


@torch.no_grad()
def pair_metrics(model: nn.Module, tokenizer, scenes: list[Scene], group: int = 16) -> dict[str, float]:
    """Return how often a picture finds its caption among ``group`` different ones, and the reverse."""
    pool, right = Pool(scenes), []
    for start in range(0, len(scenes) - group + 1, group):
        captions = pool.captions[start : start + group]
        texts = tokenizer(captions, padding=True, return_tensors="pt")
        output = model(
            pixel_values=normalised(pool.pixels[start : start + group]),
            input_ids=texts["input_ids"],
            attention_mask=texts["attention_mask"],
        )
        found = output.logits_per_image.argmax(1)
        back = output.logits_per_text.argmax(1)
        same = [[captions[i] == captions[int(j)] for i, j in enumerate(way)] for way in (found, back)]
        right.append(np.array(same).mean(axis=1))
    image, text = np.mean(right, axis=0)
    return {"caption_found": float(image), "picture_found": float(text), "chance": 1 / group}


@torch.no_grad()
def captioner_metrics(model: nn.Module, tokenizer, scenes: list[Scene]) -> dict[str, float]:
    """Return how many captions are right to the word, and the share of words that are."""
    pool = Pool(scenes)
    written = torch.cat(
        [
            F.pad(ids, (0, build.MAX_WORDS - ids.shape[1]))
            for part in pool.pixels.split(100)
            for ids in [model.generate(pixel_values=normalised(part), do_sample=False, num_beams=1)]
        ]
    )
    told = tokenizer.batch_decode(written, skip_special_tokens=True)
    exact = np.mean([a == b for a, b in zip(told, pool.captions, strict=True)])
    shared = []
    for ours, truth in zip(told, pool.captions, strict=True):
        words, real = set(ours.split()), set(truth.split())
        shared.append(len(words & real) / max(1, len(words | real)))
    return {"captions_exact": float(exact), "words_shared": float(np.mean(shared))}
