"""Refuse a record in which something is missing; name what passes between tokens without weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from attnlib.errors import CaptureError
from attnlib.hooks.beside import BESIDE
from attnlib.hooks.mixing import FIXED, PRODUCT, SAMPLING, SCAN, SLIDING, STATES, WAVES
from attnlib.hooks.session import Session
from attnlib.record import LayerAttention
from attnlib.record.gaps import Gap

__all__ = ["check_nothing_missed", "gap_notes"]

_ATTENTION = ("attn", "attention")
_NOT_ATTENTION = ("norm", "mlp", "ffn", "feed", "drop", "gate", "mask", "pos", "connection")


@dataclass(frozen=True)
class Missed:
    """What has no weights in a record: modules between or beside the layers that have them."""

    notes: tuple[str, ...]
    gaps: tuple[Gap, ...]


def check_nothing_missed(session: Session, layers: Sequence[LayerAttention]) -> Missed:
    """Refuse if attention was expected and not seen; name what mixes tokens without attention weights.

    A module that looks like attention and was never seen computing it is an error if other modules of its
    class were seen, if it ran a softmax over a product of token states, or if nothing tells how it mixes
    tokens (a kernel of its own). Other modules that pass information between tokens (state space layers,
    linear attention, sampled attention, convolutions along a text) are named: each is a gap for methods
    that go through all layers.

    Raises
    ------
    CaptureError
        Naming the modules.
    """
    visited = session.trail.visited
    if session.approximate:
        name = session.approximate[0]
        raise CaptureError(
            f"{name} ({type(visited[name]).__name__}) approximates attention by a product of "
            "several softmax matrices: weights of each query over all keys do not exist in it"
        )
    between = any(one.kind == "self" and one.num_queries == one.num_keys for one in layers)
    known = {*session.channelwise} if between else set()
    missed = [name for name in _unseen(visited, session.seen) if name not in known]
    if not session.seen:
        why = _why(session, missed)
        raise CaptureError(
            f"the forward pass ran no attention that attnlib can see: {why}{_hint(session.model)}"
        )
    expected = [name for name in missed if _expected(name, session)]
    if expected:
        raise CaptureError(
            f"{len(expected)} modules look like attention but have no weights over tokens that attnlib can "
            f"see (first: {expected[0]}, a {type(visited[expected[0]]).__name__}); a map of the "
            f"other {len(session.seen)} would be wrong{_hint(session.model)}"
        )
    if session.channelwise and not any(one.kind == "self" for one in layers):
        raise CaptureError(
            f"{_why(session, missed)}; the {len(layers)} calls over tokens that are "
            "left only read the result, and a map of them would be wrong"
        )
    gaps = [*_gaps(session, layers, missed)]
    notes = [
        f"{name} attends over channels or over states of one token: it has no token-by-token weights"
        for name in dict.fromkeys(session.channelwise)
    ]
    return Missed((*notes, *gap_notes(gaps)), tuple(gaps))


def gap_notes(gaps: Sequence[Gap]) -> Iterator[str]:
    """Say once for each reason what methods that go through all layers cannot cross."""
    for reason in dict.fromkeys(one.reason for one in gaps):
        own = [one for one in gaps if one.reason == reason]
        more = f" and {len(own) - 1} more like it" if len(own) > 1 else ""
        yield f"{own[0]}{more}: methods that go through all layers cannot be used across it"


def _expected(name: str, session: Session) -> bool:
    """Tell whether weights over tokens must have been there: their like was seen, or their making was."""
    visited = session.trail.visited
    around = {parent for one in session.seen for parent in _above(one)}
    kinds = {type(visited[one]) for one in around if one in visited}
    if type(visited[name]) in kinds:
        return True
    inside = [one for one in session.mixing.seen if _within(one, name)]
    if not any(word not in (STATES, FIXED) for one in inside for word in session.mixing.seen[one]):
        return True
    multiplied = any(PRODUCT in session.mixing.seen[one] for one in inside)
    softmaxed = any(_within(where, name) for where in session.probabilities.open.values())
    return multiplied and softmaxed


def _above(name: str) -> Iterator[str]:
    """Yield a path and those above it, as far as they are called attention."""
    while name:
        yield name
        name = name.rpartition(".")[0]
        if not any(word in name.rpartition(".")[2].lower() for word in _ATTENTION):
            return


def _gaps(session: Session, layers: Sequence[LayerAttention], missed: Sequence[str]) -> Iterator[Gap]:
    visited, seen = session.trail.visited, session.seen
    found: dict[str, str] = {name: _reason(name, session) for name in missed}
    done: set[str] = set()
    for layer in layers:
        if BESIDE in layer.notes and layer.name not in done:
            done.add(layer.name)
            what = (
                "makes several attention calls side by side, which cannot be multiplied one after the other"
            )
            yield Gap(layer.name, type(visited[layer.name]).__name__, what, layer.stream, float(layer.index))
    for where, what in session.mixing.seen.items():
        if not any(_within(where, one) for one in (*seen, *missed)) and not _helps(where, seen):
            words = [one for one in what if one in (FIXED, PRODUCT, SCAN, SLIDING, WAVES)]
            if words:
                found[where] = _reason_of(words)
    for name, reason in found.items():
        scanned = SLIDING in reason and STATES in session.mixing.seen.get(name, ())
        strong = name in missed or reason != _reason_of([SLIDING]) or scanned
        place = _place(name, session, layers, strong=strong)
        if place is None or place[0] in done or (place[1] == "" and name not in missed):
            continue
        done.add(place[0])
        yield Gap(place[0], type(visited[place[0]]).__name__, reason, *place[1:])


def _within(path: str, other: str) -> bool:
    return path == other or path.startswith(other + ".")


def _helps(path: str, seen: set[str]) -> bool:
    """Tell whether a module is part of an attention module in which a call was seen."""
    parts = path.split(".")
    for end in range(1, len(parts)):
        above = ".".join(parts[:end])
        if any(word in parts[end - 1].lower() for word in _ATTENTION) and any(
            _within(one, above) for one in seen
        ):
            return True
    return False


def _reason(name: str, session: Session) -> str:
    """Say by what a module that looks like attention mixes tokens."""
    inside = [one for one in session.mixing.seen if _within(one, name)]
    words = dict.fromkeys(word for one in inside for word in session.mixing.seen[one] if word != STATES)
    if SAMPLING in words:
        return f"{SAMPLING}: its weights are over these points, not over tokens"
    return _reason_of([*words])


def _reason_of(words: Sequence[str]) -> str:
    return f"{', '.join(words)}, and has no weights over tokens"


def _place(
    name: str, session: Session, layers: Sequence[LayerAttention], *, strong: bool
) -> tuple[str, str, float] | None:
    """Return which module of a stack a gap is, and where it stands among the calls of its stream."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        path, parent = ".".join(parts[:end]), ".".join(parts[: end - 1])
        holder = session.model.get_submodule(parent)
        if not isinstance(holder, nn.ModuleList | nn.Sequential):
            continue
        beside = [one for one in layers if one.name.startswith(f"{parent}." if parent else "")]
        if any(one.name == path or one.name.startswith(path + ".") for one in beside):
            own = [one for one in beside if one.name == path or one.name.startswith(path + ".")]
            return (name, own[0].stream, float(own[0].index)) if strong else None
        if beside:
            order = [key for key, _ in holder.named_children()]
            rank = order.index(parts[end - 1])
            later = [x for x in beside if order.index(x.name[len(parent) :].strip(".").split(".")[0]) > rank]
            stream = beside[0].stream
            after = [one.index for one in later if one.stream == stream]
            last = max(one.index for one in beside if one.stream == stream)
            return (path, stream, min(after) - 0.5 if after else last + 0.5)
    return (name, "", 0.0) if strong else None


def _why(session: Session, missed: Sequence[str]) -> str:
    visited, channelwise = session.trail.visited, session.channelwise
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
        if any(_within(where, missed[0]) for where in session.probabilities.open.values()):
            return (
                f"{len(missed)} modules named like attention (first: {missed[0]}, a {type(module).__name__}) "
                "ran a softmax whose result meets no values in a matrix product: a weighted sum by "
                "broadcasting, as in (weights[..., None] * values).sum(-2), is not followed, nor is a mean "
                "over heads or a softmax over the queries; weights @ values, or torch.einsum, is"
            )
        return (
            f"{len(missed)} modules named like attention (first: {missed[0]}, a {type(module).__name__}) ran "
            "neither scaled_dot_product_attention nor a softmax whose result is multiplied with values; it "
            "may be linear or approximate attention, or a kernel of its own, for which no weights exist"
        )
    return (
        "no module called scaled_dot_product_attention, or a softmax whose result is multiplied with values "
        "(a network of convolutions, state spaces or Fourier transforms has no attention map)"
    )


def _hint(model: nn.Module) -> str:
    """Say how a model that was loaded with a kernel of its own shows its weights."""
    for module in model.modules():
        kernel = getattr(getattr(module, "config", None), "_attn_implementation", None)
        if isinstance(kernel, str) and kernel not in ("sdpa", "eager"):
            return (
                f". It was loaded with the attention kernel {kernel!r}, which keeps its weights to itself: "
                "model.set_attn_implementation('sdpa') shows them"
            )
    return ""


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
