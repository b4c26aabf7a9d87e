"""Train the small models of this folder from nothing, on generated scenes: ``python data/models/train.py``.

Seeded; about a quarter of an hour on two cores. First one backbone learns what each patch shows and
what the whole scene shows; every model then starts from it and is trained further on its own task,
with labels or captions of the whole picture only. Accuracy is measured on scenes of another seed and
written, with the rest of the facts, into each folder's ``metrics.json`` and ``README.md``.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent))
import agreement
import build
import cards
from transformers import ViTImageProcessor

from attnlib.evaluate.scenes import CLASSES, Scene, grid_scene, make_scene, make_scenes

TRAIN_SEED, TEST_SEED, SHORTCUT_CLASS = 1, 2, "star"
HERE = Path(__file__).resolve().parent


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


def standard_pool(count: int) -> Pool:
    """Return ordinary scenes; one in eight is a grid of four classes."""
    return Pool(
        [grid_scene(TRAIN_SEED, i) if i % 8 == 7 else make_scene(TRAIN_SEED, i) for i in range(count)]
    )


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


def fit(
    name: str,
    module: nn.Module,
    loss_of: Callable[[Tensor], Tensor],
    count: int,
    *,
    steps: int,
    rate: float,
    batch: int = 48,
    after: Callable[[], None] | None = None,
) -> None:
    """Minimise ``loss_of(indices)`` with AdamW, a short warm-up and a cosine decay."""
    generator = torch.Generator().manual_seed(len(name) + steps)
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=0.02)
    start, order = time.time(), torch.empty(0, dtype=torch.long)
    module.train()
    for step in range(steps):
        if len(order) < batch:
            order = torch.randperm(count, generator=generator)
        indices, order = order[:batch], order[batch:]
        scale = min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate * scale
        loss = loss_of(indices)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        if after is not None:
            after()
        if step % 50 == 49 or step == steps - 1:
            print(f"{name}: step {step + 1}/{steps}, loss {loss.item():.4f}, {time.time() - start:.0f} s")
            sys.stdout.flush()
    module.eval()


def flipped(pool: Pool, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return pictures, labels and patch labels, half of the pictures mirrored and all tinted a little."""
    pixels, dense = normalised(pool.pixels[indices]), pool.dense[indices].float()
    if torch.rand(()) < 0.5:
        pixels, dense = pixels.flip(-1), dense.flip(-1)
    tint = 1 + 0.15 * torch.randn(len(indices), 3, 1, 1)
    return (pixels * tint).clamp(-1, 1), pool.labels[indices], dense


def train_backbone(pool: Pool, steps: int) -> dict[str, Tensor]:
    """Train patches and class token to say what they show; return the weights of the backbone."""
    model = build.vit_classifier()
    build.start_well(model)
    per_patch = nn.Linear(build.WIDTH, len(CLASSES))
    both = nn.ModuleList([model, per_patch])
    ordinary = torch.tensor([i for i in range(len(pool)) if i % 8 != 7])

    def loss_of(indices: Tensor) -> Tensor:
        pixels, labels, dense = flipped(pool, ordinary[indices])
        hidden = model.vit(pixels).last_hidden_state
        told = per_patch(hidden[:, 1:]).transpose(1, 2).unflatten(2, dense.shape[-2:])
        local = F.binary_cross_entropy_with_logits(told, dense, reduction="none").sum(1).mean()
        whole = F.binary_cross_entropy_with_logits(model.classifier(hidden[:, 0]), labels)
        return 2 * local + whole

    fit("backbone", both, loss_of, len(ordinary), steps=steps, rate=2e-3)
    return model.state_dict()


def train_classifier(
    name: str, model: nn.Module, pool: Pool, steps: int, after: Callable[[], None] | None = None
) -> None:
    """Train a classifier on labels of the whole picture."""

    def loss_of(indices: Tensor) -> Tensor:
        pixels, labels, _ = flipped(pool, indices)
        return F.binary_cross_entropy_with_logits(model(pixels).logits, labels)

    fit(name, model, loss_of, len(pool), steps=steps, rate=1e-3, after=after)


def train_pair(model: nn.Module, pool: Pool, tokenizer, steps: int) -> None:
    """Train pictures and captions to find one another."""
    texts = tokenizer(pool.captions, padding=True, return_tensors="pt")

    def loss_of(indices: Tensor) -> Tensor:
        pixels = normalised(pool.pixels[indices])
        return model(
            pixel_values=pixels,
            input_ids=texts["input_ids"][indices],
            attention_mask=texts["attention_mask"][indices],
            return_loss=True,
        ).loss

    fit("pair", model, loss_of, len(pool), steps=steps, rate=1e-3)


def train_captioner(model: nn.Module, pool: Pool, tokenizer, steps: int) -> None:
    """Train the decoder (and the encoder with it) to write the captions."""
    texts = tokenizer(pool.captions, padding=True, return_tensors="pt")["input_ids"]

    def loss_of(indices: Tensor) -> Tensor:
        words = texts[indices]
        told = model(pixel_values=normalised(pool.pixels[indices]), decoder_input_ids=words[:, :-1]).logits
        return F.cross_entropy(told.flatten(0, 1), words[:, 1:].flatten(), ignore_index=0)

    fit("captioner", model, loss_of, len(pool), steps=steps, rate=1.2e-3)


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


def store(name: str, model: nn.Module, metrics: dict[str, float], tokenizer=None) -> None:
    """Write one model folder: config, half-precision weights, processors, metrics and card."""
    folder = HERE / name
    model.config.name_or_path = name
    model.half().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    model.float()
    config = json.loads((folder / "config.json").read_text())
    _declare_float32(config)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    processor = ViTImageProcessor(
        size={"height": build.SIZE, "width": build.SIZE}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    if build.is_pair(model):
        build.pair_processor(processor, tokenizer).save_pretrained(folder)
    if build.reads_pictures(model):
        processor.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    rounded = {key: round(value, 4) for key, value in metrics.items()}
    (folder / "metrics.json").write_text(json.dumps(rounded, indent=2) + "\n")
    (folder / "README.md").write_text(cards.card(name, rounded, sum(p.numel() for p in model.parameters())))
    print(name, rounded)
    sys.stdout.flush()


def _declare_float32(config: dict) -> None:
    """Make loading give float32: half precision is only how the file is kept small."""
    for key, value in config.items():
        if key in ("dtype", "torch_dtype"):
            config[key] = "float32"
        elif isinstance(value, dict):
            _declare_float32(value)


def main() -> None:
    """Train everything, or what ``--only`` names (the backbone is kept in ``--work`` between runs)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, default=None, help="folder in which the backbone is kept")
    parser.add_argument("--only", nargs="*", default=None, help="names of the models to train")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--speed", type=float, default=1.0, help="above 1: fewer steps, for a trial")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    wanted = options.only or list(cards.CARDS)

    def steps(number: int) -> int:
        return max(2, round(number / options.speed))

    if "agreement-bert" in wanted:
        torch.manual_seed(17)
        agreement.train(fit, store, steps(700))
    if set(wanted) <= {"agreement-bert"}:
        return
    pool, test = standard_pool(6_000), list(make_scenes(400, seed=TEST_SEED))
    torch.manual_seed(11)
    kept = options.work / "backbone.pt" if options.work else None
    if kept is not None and kept.exists():
        state = torch.load(kept)
    else:
        state = train_backbone(pool, steps(420))
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, kept)
    start = build.vit_classifier()
    start.load_state_dict(state)
    backbone = start.vit
    tokenizer = build.caption_tokenizer()
    for name in wanted:
        torch.manual_seed(13)
        if name == "scenes-vit":
            model = build.vit_classifier()
            model.load_state_dict(state)
            train_classifier(name, model, pool, steps(200))
            store(name, model, classifier_metrics(model, test))
        elif name == "scenes-mean":
            model = build.mean_classifier(backbone)
            train_classifier(name, model, pool, steps(200))
            store(name, model, classifier_metrics(model, test))
        elif name == "scenes-registers":
            model = build.registers_classifier(backbone)
            train_classifier(
                name, model, pool, steps(200), after=lambda model=model: build.keep_class_token_unread(model)
            )
            store(name, model, classifier_metrics(model, test))
        elif name == "scenes-shortcut":
            model = build.vit_classifier()
            model.load_state_dict(state)
            scenes, labels = shortcut_scenes(4_000, TRAIN_SEED)
            train_classifier(name, model, Pool(scenes, labels), steps(300))
            told = {**classifier_metrics(model, test), **shortcut_metrics(model)}
            store(name, model, told)
        elif name == "scenes-pair":
            model = build.caption_pair(backbone, len(tokenizer))
            train_pair(model, pool, tokenizer, steps(400))
            store(name, model, pair_metrics(model, tokenizer, test), tokenizer)
        elif name == "scenes-captioner":
            model = build.captioner(backbone, len(tokenizer))
            train_captioner(model, pool, tokenizer, steps(700))
            store(name, model, captioner_metrics(model, tokenizer, test), tokenizer)


if __name__ == "__main__":
    main()
