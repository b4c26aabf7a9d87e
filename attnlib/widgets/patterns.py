"""Patterns that heads over text are known for, measured on every head of a record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attnlib.errors import InputError
from attnlib.record import AttentionRecord

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SEPARATORS", "head_patterns", "token_names"]

SEPARATORS = ("[SEP]", "</s>", "<|endoftext|>", "<eos>")
"""Tokens that only separate or end a text."""


def token_names(loaded: Any, prepared: Any, *, item: int = 0) -> list[str]:
    """Return the pieces of one text as the model's own tokenizer writes them, padding left out.

    Parameters
    ----------
    loaded : a model of text, from ``load_model``.
    prepared : what ``loaded.prepare`` returned.
    item : which text of the batch.

    Raises
    ------
    InputError
        If the model has no tokenizer.
    """
    inputs, processor = prepared.inputs, loaded.processor
    if "input_ids" not in inputs or not hasattr(processor, "convert_ids_to_tokens"):
        raise InputError(f"{loaded.name} has no tokenizer that could name the tokens")
    ids = inputs["input_ids"][item]
    if "attention_mask" in inputs:
        ids = ids[inputs["attention_mask"][item].bool()]
    return list(processor.convert_ids_to_tokens(ids.tolist()))


def head_patterns(record: AttentionRecord, tokens: Sequence[str], *, item: int = 0) -> pd.DataFrame:
    """Measure how much of each head's attention follows a known pattern.

    Averaged over the query tokens that have such a key: "token before" (queries from the second on),
    "separators" (keys named in :data:`SEPARATORS`; queries that are none themselves) and "same word"
    (other places with the same token, separators left out). The columns that end in "even" say what
    even attention would give; NaN where no token has such a key.

    Parameters
    ----------
    record : self-attention over one text.
    tokens : its tokens, as many as the record has keys.
    item : which item of the batch.

    Returns
    -------
    One row per layer and head.

    Raises
    ------
    InputError
        If the tokens are not as many as the keys.

    References
    ----------
    .. [1] Clark et al., "What Does BERT Look At?", BlackboxNLP 2019, arXiv:1906.04341.
    """
    import pandas as pd

    count = len(tokens)
    masks = _pattern_masks(tokens)
    rows = []
    for layer in record.layers:
        if layer.kind != "self" or layer.num_keys != count:
            raise InputError(f"{layer.name} has {layer.num_keys} keys, but {count} tokens were given")
        weights = layer.weights()[item].double()
        shares = {name: _mean_share(weights, mask) for name, mask in masks.items()}
        for place, head in enumerate(layer.heads or range(layer.num_heads)):
            values = {name: float(share[place]) for name, share in shares.items()}
            rows.append({"layer": layer.index, "head": head, **values})
    frame = pd.DataFrame(rows)
    even = torch.full((1, count, count), 1 / count, dtype=torch.float64)
    for name, mask in masks.items():
        frame[f"{name}, even"] = float(_mean_share(even, mask)[0])
    return frame


def _pattern_masks(tokens: Sequence[str]) -> dict[str, Tensor]:
    """Return for each pattern which keys belong to it, [query, key]."""
    count = len(tokens)
    separator = torch.tensor([token in SEPARATORS for token in tokens])
    same = torch.tensor([[one == other for other in tokens] for one in tokens])
    same &= ~torch.eye(count, dtype=torch.bool) & ~separator
    before = torch.eye(count, dtype=torch.bool).roll(-1, dims=1)
    before[0] = False
    return {
        "token before": before,
        "separators": separator[None].expand(count, count) & ~separator[:, None],
        "same word": same,
    }


def _mean_share(weights: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the queries that have a key in the mask, [head]; NaN if none has."""
    asked = mask.any(dim=1)
    return (weights * mask).sum(dim=-1)[:, asked].mean(dim=-1)
