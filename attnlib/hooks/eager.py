"""Attention computed by hand: a softmax output that is multiplied with the values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attnlib.hooks.calls import Call
from attnlib.hooks.einsums import spelled_out
from attnlib.hooks.fused import _heads_of, place_one
from attnlib.hooks.origins import Origin, Origins
from attnlib.hooks.placement import Placement, find_placement
from attnlib.hooks.probabilities import Probabilities, Softmaxed
from attnlib.hooks.trail import Frame
from attnlib.record import GivenAttention

__all__ = ["PRODUCTS", "Product", "read_product"]

PRODUCTS = frozenset({"matmul", "__matmul__", "__rmatmul__", "linalg_matmul", "mm", "bmm", "einsum"})
Arrange = Callable[[Tensor], Tensor]


@dataclass(eq=False)
class Product:
    """Weights times values, with the axes of each operand brought to [*lead, row, column]."""

    weights: Tensor
    values: Tensor
    held: Softmaxed
    arrange_weights: Arrange
    arrange_values: Arrange
    arrange_output: Arrange


def find_product(name: str, args: Sequence[Any], probabilities: Probabilities) -> Product | None:
    """Recognise a product of softmax weights and values."""
    if name == "einsum":
        return _einsum(args, probabilities)
    if len(args) < 2:
        return None
    left, right = args[:2]
    if name == "__rmatmul__":
        left, right = right, left
    held = probabilities.get(left)
    if held is not None and _varies_along(held, left, -1) and isinstance(right, Tensor) and right.dim() >= 2:
        return Product(left, right, held, _same, _same, _same)
    held = probabilities.get(right)
    if held is not None and _varies_along(held, right, -2) and isinstance(left, Tensor) and left.dim() >= 2:
        return Product(right, left, held, _turned, _turned, _turned)
    return None


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _turned(tensor: Tensor) -> Tensor:
    return tensor.transpose(-1, -2)


def _varies_along(held: Softmaxed, tensor: Tensor, axis: int) -> bool:
    """Tell whether the softmax columns run along ``axis``; in banded matrices they run along the rows too."""
    axis = axis % tensor.dim()
    return held.columns.dim() == tensor.dim() and (held.columns.shape[axis] > 1 or tensor.shape[axis] == 1)


def _einsum(args: Sequence[Any], probabilities: Probabilities) -> Product | None:
    equation = args[0]
    operands = list(args[1] if len(args) == 2 and isinstance(args[1], list | tuple) else args[1:])
    if not isinstance(equation, str) or len(operands) != 2 or "->" not in equation:
        return None
    inputs, _, result = spelled_out(equation, operands).partition("->")
    letters = inputs.split(",")
    for first, second in ((0, 1), (1, 0)):
        held = probabilities.get(operands[first])
        if held is not None:
            return _by_letters(
                held, operands[first], operands[second], letters[first], letters[second], result
            )
    return None


def _by_letters(
    held: Softmaxed, weights: Tensor, values: Tensor, of_w: str, of_v: str, of_out: str
) -> Product | None:
    summed = [c for c in of_w if c in of_v and c not in of_out]
    rows = [c for c in of_w if c in of_out and c not in of_v]
    channels = [c for c in of_v if c in of_out and c not in of_w]
    lead = [c for c in of_w if c in of_v and c in of_out]
    if len(summed) != 1 or len(rows) < 1 or len(channels) != 1 or len(set(of_w)) != len(of_w):
        return None
    if len(rows) > 1:  # an axis that the values do not have, such as heads that share them
        lead, rows = [c for c in of_w if c in lead or c in rows[:-1]], rows[-1:]
    if not _varies_along(held, weights, of_w.index(summed[0])):
        return None

    def reading(have: str, wanted: Sequence[str]) -> Arrange:
        present = [c for c in wanted if c in have]

        def arrange(tensor: Tensor) -> Tensor:
            turned = tensor.permute([have.index(c) for c in present])
            for place, letter in enumerate(wanted):
                if letter not in have:
                    turned = turned.unsqueeze(place)
            return turned

        return arrange

    return Product(
        weights,
        values,
        held,
        reading(of_w, [*lead, rows[0], summed[0]]),
        reading(of_v, [*lead, summed[0], channels[0]]),
        reading(of_out, [*lead, rows[0], channels[0]]),
    )


def read_product(
    product: Product, frame: Frame, root: Frame, origins: Origins, forward: int
) -> tuple[Call, Arrange] | None:
    """Turn weights times values into a :class:`Call`; None if the weights do not run over tokens."""
    weights = product.arrange_weights(product.weights.detach())
    values = product.arrange_values(product.values.detach())
    held, blank = product.held, 0
    if held.exact is not None and held.exact.shape == product.weights.shape:
        weights = product.arrange_weights(held.exact)
        blank = held.blank
    row_origin = _arranged(origins.get(product.weights), product.weights, product.arrange_weights)
    key_origin = _arranged(origins.get(product.values), product.values, product.arrange_values)
    if key_origin is not None and key_origin.ids.shape[-1] > 1 and key_origin.ids.shape[-2] == 1:
        return None  # the softmax ran over channels: every weight mixes all tokens
    if key_origin is not None and values.shape[-2] > 1 and _one_token_a_row(key_origin):
        return None  # the softmax ran over several states of one token, as of earlier layers
    if isinstance(product.values, torch.nn.Parameter):
        return None
    query_rows = None if row_origin is None else row_origin.rows(weights.shape)
    if row_origin is not None and query_rows is None and int(held.columns.min()) < 0:
        # banded matrices are skewed in memory: places outside the band hold weight 0 and other rows' numbers
        inside = torch.where(weights == 0, -1, row_origin.ids.expand(weights.shape).to(weights.device))
        row_origin = Origin(inside.cpu(), row_origin.sequence)
        query_rows = row_origin.rows(weights.shape)
    if row_origin is not None and query_rows is None and row_origin.columns is not None:
        row_origin = row_origin.columns  # transposed scores: the columns have become the rows
        query_rows = row_origin.rows(weights.shape)
    if row_origin is not None and query_rows is None:
        if weights.shape[-2] > 1:
            return None  # the softmax ran over tokens, but its rows are channels: factorised attention
        row_origin = None
    key_rows = None if key_origin is None else key_origin.rows(values.shape)
    columns = len(held.columns[held.columns >= 0].unique())
    call = Call(
        frame,
        root,
        None,  # type: ignore[arg-type]
        forward,
        None if row_origin is None else row_origin.sequence,
        None if key_origin is None else key_origin.sequence,
        query_rows,
        key_rows,
        serial=held.serial,
        complete=columns == held.total,
    )
    call.missing, call.blank = held.total - columns, blank
    if held.mixed:
        call.notes = ("heads are mixed after the softmax: rows need not sum to 1",)
    lead = tuple(weights.shape[:-2])
    value_lead = (*lead, *values.shape[-2:])
    values = values.expand(value_lead) if values.dim() <= len(value_lead) else values
    if not lead:
        call.source = GivenAttention(weights[None, None], value=values[None, None], kind_of_source="softmax")
        call.query_rows, call.key_rows = (
            None if one is None else one[None, None] for one in (query_rows, key_rows)
        )
        place_one(call)
        return call, lambda tensor: product.arrange_output(tensor)[None, None]
    placed = find_placement(
        lead, query_rows, key_rows, call.query_sequence, call.key_sequence, complete=call.complete
    )
    if isinstance(placed, Placement):
        call.source = GivenAttention(
            placed.arrange(weights), value=placed.arrange(values), kind_of_source="softmax"
        )
        call.placement = placed
        if placed.handed_out:
            call.query_sequence, call.query_rows = call.key_sequence, call.key_rows
        return call, lambda tensor: placed.arrange(product.arrange_output(tensor))
    if len(lead) == 2:
        call.unplaced = placed
        call.source = GivenAttention(weights, value=values, kind_of_source="softmax")
        return call, product.arrange_output
    heads = _heads_of(frame, lead)
    batch = call.key_sequence.batch if call.key_sequence is not None else None
    known = len(lead) == 1 and (batch is None or lead[0] == batch * heads)
    call.unplaced = None if known else placed

    def flatten(tensor: Tensor) -> Tensor:
        return tensor.reshape(-1, heads, *tensor.shape[-2:])

    call.source = GivenAttention(flatten(weights), value=flatten(values), kind_of_source="softmax")
    return call, lambda tensor: flatten(product.arrange_output(tensor))


def _one_token_a_row(keys: Origin) -> bool:
    """Tell whether all keys of a row are the same token, and other rows have other tokens."""
    ids = keys.ids
    several = ids.numel() > max(keys.sequence.batch, ids.shape[0])  # rows, not only items
    return ids.shape[-2] == 1 and several and not bool((ids < 0).any())


def _arranged(origin: Origin | None, tensor: Tensor, arrange: Arrange) -> Origin | None:
    if origin is None or origin.ids.dim() != tensor.dim():
        return None
    columns = None if origin.columns is None else _arranged(origin.columns, tensor, arrange)
    return Origin(arrange(origin.ids), origin.sequence, columns)
