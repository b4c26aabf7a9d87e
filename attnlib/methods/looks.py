"""What a reader must know of a finished map: it is empty, nearly even, or held by a few patches."""

from __future__ import annotations

import math

import torch

from attnlib.record import Relevance

__all__ = ["warnings_about"]

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
    found = [f"every score is 0 for {_items(empty, relevance.batch_size)}"] if empty else []
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
            f"{count} of {share.shape[1]} patches hold up to {most:.0%} of the mass for "
            f"{_items(few, relevance.batch_size)}: see what they show; pretrained models put such peaks on "
            "empty background too (artifact patches)"
        )
    return tuple(found)


def _items(items: list[int], batch_size: int) -> str:
    if batch_size == 1:
        return "this picture"
    return "every item" if len(items) == batch_size else f"item {', '.join(map(str, items))}"
