"""Which tokens the model's output was read from, found by following them into the output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from attnlib.hooks.origins import Origin, Origins, TokenSequence

__all__ = ["HeadRead", "outputs_of", "read_tokens"]


class HeadRead(NamedTuple):
    """What the head reads: tokens, the same for every item or one list per item.

    ``chosen`` is False where all tokens come out as they are: a body without a head.
    """

    tokens: list[int] | tuple[list[int], ...]
    chosen: bool


_HEADS = ("logits", "logits_per_image", "image_embeds", "text_embeds", "pooler_output")
_BODIES = ("last_hidden_state", "hidden_states", "attentions", "past_key_values")


def outputs_of(output: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a model's output with their names, heads first."""
    if isinstance(output, Tensor):
        yield "output", output
    elif isinstance(output, Mapping):
        order = {name: place for place, name in enumerate(_HEADS)}
        for name, value in sorted(output.items(), key=lambda pair: order.get(pair[0], len(_HEADS))):
            if isinstance(value, Tensor) and value.is_floating_point():
                yield str(name), value
    elif isinstance(output, tuple | list):
        for place, value in enumerate(output):
            if isinstance(value, Tensor) and value.is_floating_point():
                yield f"output {place}", value


def read_tokens(output: Any, origins: Origins, sequence: TokenSequence) -> HeadRead | None:
    """Return the tokens of ``sequence`` that the head reads; None if they could not be followed.

    A pooled output (one token, or a mean of some) counts before an output of all tokens.
    """
    everything: HeadRead | None = None
    pooled_unknown = False
    for name, tensor in outputs_of(output):
        if name in _BODIES and name != "last_hidden_state":
            continue
        origin = origins.get(tensor)
        found = None if origin is None else _tokens(origin, tensor, sequence)
        if found is None:
            if name == "logits" and tensor.dim() == 2:
                return None  # the answer mixes tokens, as the mean of two heads does: one of them is not it
            pooled_unknown |= tensor.dim() == 2
        elif len(found[0]) < sequence.size or tensor.dim() == 2:
            return HeadRead(found[0] if all(one == found[0] for one in found) else tuple(found), True)
        else:
            everything = everything or HeadRead(found[0], False)
    return None if pooled_unknown else everything


def _tokens(origin: Origin, tensor: Tensor, sequence: TokenSequence) -> list[list[int]] | None:
    """Return the tokens that a tensor comes from, item by item."""
    rows = origin.rows(tensor.shape)
    own = origin.sequence
    if own.members is not None and sequence in own.ancestors:
        if own.up is not None and own.up is not sequence:
            return None
        return [sorted({int(n) for n in own.members if 0 <= n < sequence.size})]
    if own is not sequence or rows is None or bool((rows < 0).any()):
        return None
    items = rows // sequence.size
    numbers = [rows[items == item].unique() % sequence.size for item in range(sequence.batch)]
    found = [sorted(int(n) for n in one) for one in numbers if len(one)]
    return found if len(found) == sequence.batch else found[:1] or None
