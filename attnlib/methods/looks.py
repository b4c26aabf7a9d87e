"""What a reader must know of a map: empty, nearly even, held by a few patches, or asking after padding."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from attnlib.bands import percent
from attnlib.errors import InputError
from attnlib.record import AttentionRecord, Relevance

__all__ = ["coarse", "padding_at_the_end", "refuse_mixed_items", "warnings_about"]

EVEN_FROM = 0.95
FEW = 0.01
FEW_HOLD = 0.25
FEWEST_PATCHES = 100


def warnings_about(relevance: Relevance, family: str) -> tuple[str, ...]:
    """Return sentences about a map that could mislead.

    Parameters
    ----------
    relevance : one map per item; maps of all queries get no warning.
    family : of the method; baselines get no warning.

    Returns
    -------
    That a map is empty; that it is nearly even (effective share 95 % or more); that 1 % of the patches hold
    a quarter of the mass, as artifact patches do.
    """
    if family == "baseline" or relevance.scores.dim() == 3:
        return ()
    if not bool(torch.isfinite(relevance.scores).all()):
        return ("some scores are not finite: the model's attention or its gradients were not",)
    empty = (relevance.scores.abs().sum(dim=-1) == 0).nonzero().flatten().tolist()
    one = "this text" if relevance.layout.grid is None else "this picture"
    found = [f"every score is 0 for {_items(empty, relevance.batch_size, one)}"] if empty else []
    if relevance.layout.grid is None or relevance.layout.num_patches < FEWEST_PATCHES:
        return tuple(found)
    share = relevance.share(without_identity=True).flatten(1)
    even = (relevance.effective_share() >= EVEN_FROM).nonzero().flatten().tolist()
    if even:
        found.append(
            f"nearly even for {_items(even, relevance.batch_size)}: no part stands out (many layers in a "
            "row lose the query; fewer layers may keep it)"
        )
    count = math.ceil(FEW * share.shape[1])
    held = share.topk(count, dim=1).values.sum(dim=1)
    few = (held >= FEW_HOLD).nonzero().flatten().tolist()
    if few:
        most = float(held.max())
        found.append(
            f"{count} of {share.shape[1]} patches hold up to {percent(most)} of the mass for "
            f"{_items(few, relevance.batch_size)}: see what they show; pretrained models put such peaks on "
            "empty background too (artifact patches)"
        )
    return tuple(found)


def coarse(kind: torch.dtype) -> tuple[str, ...]:
    """Return a warning where scores were computed in 16 bits."""
    if torch.finfo(kind).bits >= 32:
        return ()
    return (
        f"computed in {str(kind)[6:]}: rounding may decide much of this map; load the model with "
        "dtype='float32' for one to rely on",
    )


def refuse_mixed_items(record: AttentionRecord, target: Any) -> None:
    """Refuse a map over texts whose target is one text for all pictures: items would not be their own.

    Parameters
    ----------
    record : whose model was asked.
    target : given to the method; None = that of the capture.

    Raises
    ------
    InputError
        If the scores of several pictures were asked of the same text.
    """
    target = getattr(record.on_rerun, "target", None) if target is None else target
    logits = getattr(record.output, "logits_per_image", None)
    if target is None or callable(target) or not isinstance(logits, Tensor) or len(logits) < 2:
        return
    if record.streams == ("text",):
        raise InputError(
            f"target={target!r} compares each of the {len(logits)} pictures with a text by its number, so a "
            "map over the texts would mix items: pair them with target=lambda output: "
            "output.logits_per_image.diagonal()"
        )


def padding_at_the_end(record: AttentionRecord, target: Any) -> tuple[str, ...]:
    """Return a warning where a label index asks a language model for what follows padding.

    Parameters
    ----------
    record : whose model was asked.
    target : given to the method; None = that of the capture.
    """
    target = getattr(record.on_rerun, "target", None) if target is None else target
    logits = getattr(record.output, "logits", None)
    if target is None or callable(target) or not isinstance(logits, Tensor) or logits.dim() != 3:
        return ()
    for seen in record.seen.values():
        ends = (~seen[:, -1].bool()).nonzero().flatten().tolist()
        if ends and seen.shape[1] == logits.shape[1]:
            return (
                f"the target is what the model says after the last token, which is padding for "
                f"{_items(ends, len(seen), 'this text')}: pad on the left, or give a function of the output",
            )
    return ()


def _items(items: list[int], batch_size: int, one: str = "this picture") -> str:
    if batch_size == 1:
        return one
    return "every item" if len(items) == batch_size else f"item {', '.join(map(str, items))}"
