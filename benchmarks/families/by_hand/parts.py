"""Sizes, words and noise that the models written out share."""

from __future__ import annotations

from typing import Any

import torch
import transformers as library
from torch import nn

Given = dict[str, Any]


Made = tuple[nn.Module, Given]


SMALL: Given = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
}


PLAIN: Given = {name: value for name, value in SMALL.items() if name != "num_key_value_heads"}


WORDS: Given = {**SMALL, "vocab_size": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


PLAIN_WORDS: Given = {name: value for name, value in WORDS.items() if name != "num_key_value_heads"}


def token_ids(length: int = 11, seed: int = 1) -> torch.Tensor:
    return torch.randint(5, 200, (2, length), generator=torch.Generator().manual_seed(seed))


def noise(*shape: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def word_inputs(length: int = 11) -> Given:
    ids = token_ids(length)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def built(name: str, config: Any) -> Any:
    torch.manual_seed(0)
    return getattr(library, name)(config).eval()


def placed(count: int, token: int, length: int = 7) -> Given:
    """Return words after as many places of an image as it has tokens."""
    ids = torch.cat([torch.full((2, count), token), token_ids(length) % 190 + 5], 1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
