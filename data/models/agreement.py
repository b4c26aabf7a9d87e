"""Sentences with a missing verb, and the small BERT that says whether it is singular or plural."""

from __future__ import annotations

from collections.abc import Callable

import build
import torch
from torch.nn import functional as F

from attnlib.evaluate.sentences import NOUNS, agreement_sentences, vocabulary

TRAIN_SEED, TEST_SEED, CHECK_SEED = 1, 2, 3
ENOUGH = 0.99
"""Share of fresh sentences that must be right, so that other starting weights do as well as these."""
ROUNDS = 4


def train(fit: Callable, store: Callable, steps: int) -> None:
    """Train on 20,000 sentences in rounds until enough others are right, measure on 1,000 more, and store."""
    sentences = agreement_sentences(20_000, seed=TRAIN_SEED)
    tokenizer = build.word_tokenizer(
        ["<pad>", "[CLS]", "[SEP]", "[MASK]", "<unk>", *vocabulary()], "[CLS]", "[SEP]", "[MASK]"
    )
    ids = tokenizer([s.text for s in sentences], padding=True, return_tensors="pt")
    labels = torch.tensor([int(s.plural) for s in sentences])
    model = build.agreement_classifier(len(tokenizer))

    def loss_of(indices: torch.Tensor) -> torch.Tensor:
        told = model(input_ids=ids["input_ids"][indices], attention_mask=ids["attention_mask"][indices])
        return F.cross_entropy(told.logits, labels[indices])

    for _ in range(ROUNDS):
        fit("agreement-bert", model, loss_of, len(sentences), steps=steps, rate=1e-3)
        if _right(model, tokenizer, CHECK_SEED)[0].mean() >= ENOUGH:
            break
    right, misled = _right(model, tokenizer, TEST_SEED)
    metrics = {
        "accuracy": right.mean().item(),
        "accuracy_with_misleading_noun": right[misled].mean().item(),
        "chance": 0.5,
        "nouns": float(len(NOUNS)),
    }
    store("agreement-bert", model, metrics, tokenizer)


def _right(model: torch.nn.Module, tokenizer: Callable, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which of 1,000 sentences are judged right, and which hold a misleading noun."""
    test = agreement_sentences(1_000, seed=seed)
    words = tokenizer([s.text for s in test], padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(input_ids=words["input_ids"], attention_mask=words["attention_mask"]).logits
    truth = torch.tensor([int(s.plural) for s in test])
    misled = torch.tensor([s.attractor_plural is not None and s.attractor_plural != s.plural for s in test])
    return (logits.argmax(1) == truth).float(), misled
