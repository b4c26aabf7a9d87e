"""Refuse a record in which something is missing, or is no attention over tokens."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from attnlib.errors import CaptureError
from attnlib.hooks.session import Session
from attnlib.record import LayerAttention

__all__ = ["check_nothing_missed"]

_ATTENTION = ("attn", "attention")
_NOT_ATTENTION = ("norm", "mlp", "ffn", "feed", "drop", "gate", "mask", "pos")


def check_nothing_missed(session: Session, layers: Sequence[LayerAttention]) -> list[str]:
    """Refuse if a module looks like attention but was never seen computing it.

    Returns
    -------
    Sentences about modules that attend over channels between the layers that attend over tokens.

    Raises
    ------
    CaptureError
        Naming the modules.
    """
    if session.approximate:
        name = session.approximate[0]
        raise CaptureError(
            f"{name} ({type(session.trail.visited[name]).__name__}) approximates attention by a product of "
            "several softmax matrices: weights of each query over all keys do not exist in it"
        )
    between = any(one.kind == "self" and one.num_queries == one.num_keys for one in layers)
    known = {*session.channelwise} if between else set()
    missed = [name for name in _unseen(session.trail.visited, session.seen) if name not in known]
    if not session.seen:
        why = _why(session.trail.visited, missed, session.channelwise)
        raise CaptureError(f"the forward pass ran no attention that attnlib can see: {why}")
    if missed:
        raise CaptureError(
            f"{len(missed)} modules look like attention but have no weights over tokens that attnlib can "
            f"see (first: {missed[0]}, a {type(session.trail.visited[missed[0]]).__name__}); a map of the "
            f"other {len(session.seen)} would be wrong"
        )
    return [
        f"{name} attends over channels, not over tokens: it has no token-by-token weights and is left out"
        for name in dict.fromkeys(session.channelwise)
    ]


def _why(visited: dict[str, nn.Module], missed: Sequence[str], channelwise: Sequence[str]) -> str:
    if not visited:
        return "no forward pass of the model was made inside the block, in this thread"
    if channelwise:
        module = visited[channelwise[0]]
        return (
            f"{channelwise[0]} ({type(module).__name__}) takes its softmax over channels, not over tokens, "
            "so no token-by-token weights exist"
        )
    if missed:
        module = visited[missed[0]]
        return (
            f"{len(missed)} modules named like attention (first: {missed[0]}, a {type(module).__name__}) ran "
            "neither scaled_dot_product_attention nor a softmax whose result is multiplied with values; it "
            "may be linear or approximate attention, or a kernel of its own, for which no weights exist"
        )
    return (
        "no module called scaled_dot_product_attention, or a softmax whose result is multiplied with values"
    )


def _unseen(visited: dict[str, nn.Module], seen: set[str]) -> list[str]:
    """Modules with attention in their own name and projections inside, without a call in or above them."""
    missed = []
    for name in visited:
        last = name.rsplit(".", 1)[-1].lower()
        if not any(word in last for word in _ATTENTION) or any(word in last for word in _NOT_ATTENTION):
            continue
        inside = [child for path, child in visited.items() if path.startswith(name + ".")]
        weights = [getattr(one, "weight", None) for one in inside]
        projections = [one for one in weights if isinstance(one, Tensor) and one.dim() > 1]
        if len(projections) < 2:
            continue
        related = any(
            one == name or one.startswith(name + ".") or name.startswith(one + ".") or one == ""
            for one in seen
        )
        nested = any(name.startswith(other + ".") for other in missed)
        if not related and not nested:
            missed.append(name)
    return missed
