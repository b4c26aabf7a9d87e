"""Train the small models of this folder from nothing, on generated scenes: ``python data/models/train.py``.

Seeded; about a quarter of an hour on two cores. First one backbone learns what each patch shows and
what the whole scene shows; every model then starts from it and is trained further on its own task,
with labels or captions of the whole picture only. Accuracy is measured on scenes of another seed and
written, with the rest of the facts, into each folder's ``metrics.json`` and ``README.md``.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent))
import agreement
import build
import cards
from accuracy import captioner_metrics, classifier_metrics, pair_metrics, shortcut_metrics
from scenes import TEST_SEED, TRAIN_SEED, Pool, normalised, shortcut_scenes, standard_pool
from transformers import ViTImageProcessor

from attnlib.evaluate.scenes import CLASSES, make_scenes

PERMUTED = 160
"""Pictures that the twin on permuted labels learns by heart."""
HERE = Path(__file__).resolve().parent


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


def train_permuted(seed: int, steps: int) -> tuple[nn.Module, dict[str, float]]:
    """Train from nothing on labels of other pictures until they are known by heart; return how well."""
    model, pool = build.vit_classifier(), standard_pool(PERMUTED, seed)
    build.start_well(model)
    pixels = normalised(pool.pixels)
    labels = pool.labels[torch.randperm(PERMUTED, generator=torch.Generator().manual_seed(29))]

    def loss_of(indices: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(pixels[indices]).logits, labels[indices])

    fit("scenes-permuted", model, loss_of, PERMUTED, steps=steps, rate=1e-3, batch=32)
    with torch.no_grad():
        right = (model(pixels).logits > 0) == (labels > 0)
    own = {
        "own_labels_right": right.float().mean().item(),
        "all_own_labels_right": right.all(1).float().mean().item(),
    }
    return model, own


def _store(
    name: str, model: nn.Module, metrics: dict[str, float], tokenizer=None, *, output: Path = HERE
) -> None:
    """Write one model folder: config, half-precision weights, processors, metrics and card."""
    folder = output / name
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


class Clock:
    """Tells how long each part took, by the wall and in processor time."""

    def __init__(self) -> None:
        self.start = self.last = (time.time(), time.process_time())

    def tell(self, what: str) -> None:
        """Print the time since the last part."""
        now = (time.time(), time.process_time())
        print(f"{what}: {_spent(self.last, now)}", flush=True)
        self.last = now

    def total(self) -> str:
        """Return the time since the start."""
        return _spent(self.start, (time.time(), time.process_time()))


def _spent(start: tuple[float, float], end: tuple[float, float]) -> str:
    return f"{end[0] - start[0]:.0f} s, {end[1] - start[1]:.0f} s of processor time"


def main() -> None:
    """Train everything, or what ``--only`` names (the backbone is kept in ``--work`` between runs)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, default=None, help="folder in which the backbone is kept")
    parser.add_argument("--only", nargs="*", default=None, help="names of the models to train")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--speed", type=float, default=1.0, help="above 1: fewer steps, for a trial")
    parser.add_argument("--output", type=Path, default=HERE, help="folder that the models are written to")
    parser.add_argument("--seed", type=int, default=0, help="another number: other starting weights")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    wanted = options.only or list(cards.CARDS)
    shift = 1000 * options.seed
    store = functools.partial(_store, output=options.output)

    def steps(number: int) -> int:
        return max(2, round(number / options.speed))

    clock = Clock()
    if "agreement-bert" in wanted:
        torch.manual_seed(17 + shift)
        agreement.train(fit, store, steps(700))
        clock.tell("agreement-bert")
    test = list(make_scenes(400, seed=TEST_SEED))
    if "scenes-permuted" in wanted:
        torch.manual_seed(19 + shift)
        model, told = train_permuted(TRAIN_SEED + shift, steps(500))
        store("scenes-permuted", model, {**told, **classifier_metrics(model, test)})
        clock.tell("scenes-permuted")
    if set(wanted) <= {"agreement-bert", "scenes-permuted"}:
        return
    pool = standard_pool(6_000, TRAIN_SEED + shift)
    clock.tell("drawing the scenes")
    torch.manual_seed(11 + shift)
    kept = options.work / "backbone.pt" if options.work else None
    if kept is not None and kept.exists():
        state = torch.load(kept)
    else:
        state = train_backbone(pool, steps(420))
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, kept)
        clock.tell("backbone")
    start = build.vit_classifier()
    start.load_state_dict(state)
    backbone = start.vit
    tokenizer = build.caption_tokenizer()
    for name in [name for name in wanted if name not in ("agreement-bert", "scenes-permuted")]:
        torch.manual_seed(13 + shift)
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
            scenes, labels = shortcut_scenes(4_000, TRAIN_SEED + shift)
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
        clock.tell(name)
    print(f"all: {clock.total()}")


if __name__ == "__main__":
    main()
