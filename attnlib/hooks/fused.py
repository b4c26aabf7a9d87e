"""scaled_dot_product_attention as it is called: its projections become a source of weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from attnlib.hooks.calls import Call
from attnlib.hooks.origins import Origins
from attnlib.hooks.placement import Placement, find_placement
from attnlib.hooks.refusals import refuse_dropout
from attnlib.hooks.trail import Frame
from attnlib.record import ProjectedAttention

__all__ = ["FusedArguments", "place_one", "read_fused"]


@dataclass(eq=False)
class FusedArguments:
    """Arguments of scaled_dot_product_attention, in its own order and with its own names."""

    query: Tensor
    key: Tensor
    value: Tensor
    attn_mask: Tensor | None = None
    dropout_p: float = 0.0
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False


def read_fused(
    given: FusedArguments, output: Tensor, frame: Frame, root: Frame, origins: Origins, forward: int
) -> tuple[Call, Callable[[Tensor], Tensor]]:
    """Turn a fused call into a :class:`Call` and a function that arranges its output as [batch, head, ...].

    Raises
    ------
    CaptureError
        If the call drops weights at random, by :func:`refuse_dropout`.
    """
    query, key, value, mask = given.query, given.key, given.value, given.attn_mask
    if given.dropout_p > 0:
        refuse_dropout(frame.name, f" (dropout {given.dropout_p})")
    if query.dim() == 2:  # no batch, no heads
        query, key, value = query[None, None], key[None, None], value[None, None]
        source = _projected(query, key, value, mask, given.is_causal, query.shape[-1] ** -0.5)
        source.scale = source.scale if given.scale is None else float(given.scale)
        return _call_of_one(given, source, frame, root, origins, forward), _of_one
    scale = query.shape[-1] ** -0.5 if given.scale is None else float(given.scale)
    known_query, known_key = origins.get(query), origins.get(key)
    query_rows = None if known_query is None else known_query.rows(query.shape)
    key_rows = None if known_key is None else _per_query_head(known_key.rows(key.shape), output.shape[:-2])
    call = Call(
        frame,
        root,
        None,  # type: ignore[arg-type]
        forward,
        None if known_query is None else known_query.sequence,
        None if known_key is None else known_key.sequence,
        query_rows,
        key_rows,
    )
    lead = tuple(output.shape[:-2])
    packed = _packed_groups(given, frame)
    if packed:
        batch, groups, repeats, _ = query.shape
        mask = _unpack_mask(mask, batch, groups, repeats)

        def unpack(tensor: Tensor) -> Tensor:
            return tensor.reshape(batch, groups * repeats, 1, tensor.shape[-1])

        call.source = _projected(unpack(query), key, value, mask, given.is_causal, scale)
        call.query_rows = None if query_rows is None else query_rows[:, :, :1]
        return call, unpack
    placed = find_placement(lead, query_rows, key_rows, call.query_sequence, call.key_sequence)
    if isinstance(placed, Placement):
        key, value = (_expand(one, lead) for one in (key, value))
        full = None if mask is None else mask.expand(*lead, query.shape[-2], key.shape[-2])
        call.source = _projected(
            placed.arrange(_expand(query, lead)),
            placed.arrange(key),
            placed.arrange(value),
            None if full is None else placed.arrange(full),
            given.is_causal,
            scale,
        )
        call.placement = placed
        if placed.handed_out:
            call.query_sequence, call.query_rows = call.key_sequence, call.key_rows
        return call, placed.arrange
    call.unplaced = placed
    if len(lead) == 2:
        query = query.expand(*lead, *query.shape[2:])
        key, value = (one.expand(lead[0], *one.shape[1:]) for one in (key, value))
        call.source = _projected(query, key, value, mask, given.is_causal, scale)
        return call, _as_it_is
    heads = _heads_of(frame, lead)

    def flatten(tensor: Tensor) -> Tensor:
        return tensor.reshape(-1, heads, *tensor.shape[-2:])

    full = None if mask is None else flatten(mask.expand(*lead, query.shape[-2], key.shape[-2]))
    parts = [flatten(_expand(one, lead)) for one in (query, key, value)]
    call.source = _projected(parts[0], parts[1], parts[2], full, given.is_causal, scale)
    return call, flatten


def _projected(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, is_causal: bool, scale: float
) -> ProjectedAttention:
    return ProjectedAttention(
        query.detach(),
        key.detach(),
        value.detach(),
        None if mask is None else mask.detach(),
        is_causal,
        scale,
    )


def _call_of_one(
    given: FusedArguments,
    source: ProjectedAttention,
    frame: Frame,
    root: Frame,
    origins: Origins,
    forward: int,
) -> Call:
    """Return a call between rows [query, dim] and [key, dim]."""
    known = [origins.get(one) for one in (given.query, given.key)]
    numbers = [
        None if one is None else one.rows(tensor.shape)
        for one, tensor in zip(known, (given.query, given.key), strict=True)
    ]
    query_rows, key_rows = (None if one is None else one[None, None] for one in numbers)
    of_query, of_key = (None if one is None else one.sequence for one in known)
    call = Call(frame, root, source, forward, of_query, of_key, query_rows, key_rows)
    place_one(call)
    return call


def place_one(call: Call) -> None:
    """Say which item a call without batch and heads belongs to."""
    placed = find_placement(
        (1, 1), call.query_rows, call.key_rows, call.query_sequence, call.key_sequence, complete=call.complete
    )
    call.placement = placed if isinstance(placed, Placement) else None
    call.unplaced = placed if isinstance(placed, str) else None


def _of_one(tensor: Tensor) -> Tensor:
    return tensor[None, None]


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def _expand(tensor: Tensor, lead: tuple[int, ...]) -> Tensor:
    """Repeat grouped key heads and broadcast axes to the leading axes of the call."""
    if tensor.dim() - 2 == len(lead) and tensor.dim() > 2 and 1 < tensor.shape[-3] < lead[-1]:
        tensor = tensor.repeat_interleave(lead[-1] // tensor.shape[-3], -3)
    return tensor.expand(*lead, *tensor.shape[-2:])


def _per_query_head(rows: Tensor | None, lead: tuple[int, ...]) -> Tensor | None:
    """Repeat the token numbers of grouped key heads for the query heads they serve."""
    if rows is None or rows.dim() - 1 != len(lead) or not 1 < rows.shape[-2] < lead[-1]:
        return rows
    return rows.repeat_interleave(lead[-1] // rows.shape[-2], -2)


def _heads_of(frame: Frame, lead: tuple[int, ...]) -> int:
    """Return the number of heads that are folded into the last leading axis, by the module's own word."""
    if len(lead) != 1:
        return lead[-1]
    for word in ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads"):
        number: Any = getattr(frame.module, word, None)
        if isinstance(number, int) and number > 0 and lead[0] % number == 0:
            return number
    return 1


def _packed_groups(given: FusedArguments, frame: Frame) -> bool:
    """Tell whether the query heads of one token were packed into the query axis (grouped queries)."""
    repeats = getattr(frame.module, "num_key_value_groups", None)
    query, key = given.query, given.key
    if not isinstance(repeats, int) or repeats < 2 or query.dim() != 4:
        return False
    if query.shape[1] != key.shape[1] or query.shape[2] != repeats or given.enable_gqa or given.is_causal:
        return False
    tokens = [t for t in (*frame.args, *frame.kwargs.values()) if isinstance(t, Tensor) and t.dim() == 3]
    return bool(tokens) and tokens[0].shape[1] == 1


def _unpack_mask(mask: Tensor | None, batch: int, groups: int, repeats: int) -> Tensor | None:
    if mask is None or mask.dim() != 4 or mask.shape[1] == 1:
        return mask
    return mask.expand(batch, groups, repeats, mask.shape[-1]).reshape(batch, groups * repeats, 1, -1)
