"""How each torch function passes the origins of its inputs on to its output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from attnlib.hooks.einsums import spelled_out
from attnlib.hooks.origin_joins import JOINING, merge
from attnlib.hooks.origins import PADDING, Origin, Origins, TokenSequence, compact
from attnlib.hooks.torch_names import LINEARS, MIXES, MOVES

__all__ = ["follow", "move"]

_TURNS = frozenset(
    {"permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "adjoint", "t", "T", "mT", "mH"}
)
_RESHAPES = frozenset(
    {"view", "reshape", "flatten", "unflatten", "view_as", "reshape_as", "squeeze", "unsqueeze"}
)


def follow(
    origins: Origins,
    name: str,
    func: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    out: Any,
) -> None:
    """Give ``out`` the origin that follows from the inputs of ``func``; none if it cannot be followed."""
    first = args[0] if args else kwargs.get("input")
    if name in MOVES or (name == "__get__" and _property(func) in MOVES):
        origin = origins.get(first)
        if origin is not None and isinstance(first, Tensor):
            short = _reshaped(origin.ids, first, out) if name in _RESHAPES else None
            if short is not None:  # an axis that was split from the others may be that of channels
                origins.put(out, compact(short) if short.shape[-1] > 1 else short, origin.sequence)
            elif name in _TURNS:  # axes change places: none becomes constant that was not
                origins.put(out, move(func, args, kwargs, first, origin.ids), origin.sequence)
            else:
                _put(origins, out, move(func, args, kwargs, first, origin.ids), origin.sequence)
            moved = origins.get(out)
            if origin.columns is not None and moved is not None:
                columns = move(func, args, kwargs, first, origin.columns.ids)
                moved.columns = Origin(compact(columns), origin.columns.sequence)
        return
    rule = _RULES.get(name)
    if rule is not None:
        rule(origins, args, kwargs, out)
    elif isinstance(out, Tensor):
        _elementwise(origins, name, args, kwargs, out)


def _reshaped(ids: Tensor, before: Tensor, out: Any) -> Tensor | None:
    """Reshape numbers without spelling out the channels, where these stay behind the tokens."""
    if not isinstance(out, Tensor) or 0 in before.shape:
        return None
    last = max((axis for axis, size in enumerate(ids.shape) if size > 1), default=-1)
    tokens = before.shape[: last + 1].numel()
    size = 1
    for axis in range(out.dim() + 1):
        if size == tokens:
            lead = ids.expand(*before.shape[: last + 1], *[1] * (before.dim() - last - 1))
            return lead.reshape(*out.shape[:axis], *[1] * (out.dim() - axis))
        size *= out.shape[axis] if axis < out.dim() else 1
    return None


def _property(func: Any) -> str:
    return getattr(getattr(func, "__self__", None), "__name__", "")


def move(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], tensor: Tensor, ids: Tensor
) -> Any:
    """Apply a moving function to the numbers of ``tensor`` instead of ``tensor``."""
    full = ids.expand(tensor.shape)
    swapped = [full if one is tensor else _on_cpu(one) for one in args]
    options = {k: (full if v is tensor else _on_cpu(v)) for k, v in kwargs.items()}
    name = getattr(func, "__name__", "")
    if name == "view" and not any(isinstance(one, torch.dtype) for one in swapped):
        return full.reshape(*swapped[1:], **options)  # pyright: ignore  # numbers need not lie in memory as the tensor does
    if name == "as_strided":  # reads memory, so the numbers must lie as the tensor does
        full = torch.empty_strided(tensor.shape, tensor.stride(), dtype=ids.dtype).copy_(full)
        return func(full, *swapped[1:], **options)
    if name == "unfold" and func is functional.unfold:
        moved = func(full.to(torch.float64) + 1, *swapped[1:], **options).to(ids.dtype) - 1
        return torch.where(moved < 0, PADDING, moved)
    return func(*swapped, **options)


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, tuple):
        return tuple(_on_cpu(one) for one in value)
    return [_on_cpu(one) for one in value] if isinstance(value, list) else value


def _put(origins: Origins, out: Any, ids: Any, sequence: TokenSequence) -> None:
    if isinstance(out, Tensor) and isinstance(ids, Tensor) and ids.shape == out.shape:
        origins.put(out, compact(ids), sequence)
    elif isinstance(out, tuple | list) and isinstance(ids, tuple | list):
        for one, number in zip(out, ids, strict=False):
            _put(origins, one, number, sequence)


def _tensors(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    return [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)]


def _elementwise(
    origins: Origins, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    """Keep the origin through anything that returns the shape it got, unless its inputs disagree."""
    if name in MIXES:
        return
    found: Origin | None = None
    reaching = [
        (tensor, origin)
        for tensor in _tensors(args, kwargs)
        if tensor is not out
        and (origin := origins.get(tensor)) is not None
        and _reaches(tensor.shape, out.shape, origin.ids)
    ]
    whole = [one for one in reaching if one[0].shape == out.shape]
    if not whole and origins.get(out) is not None:
        return  # changed in place by something smaller, such as scores by a mask of their keys
    for _, origin in whole or reaching:
        if found is None or found is origin:
            found = origin
        elif found.sequence is not origin.sequence or not _agree(found.ids, origin.ids):
            found = _nearer(found, origin)
            if found is None:
                return
    if found is not None:
        while found.ids.dim() < out.dim():
            found = Origin(found.ids.unsqueeze(0), found.sequence)
        if name in ("layer_norm", "rms_norm") and found.ids.shape[-1] > 1:
            merge(origins, found, out)
        else:
            origins.same(out, found)


def _reaches(shape: torch.Size, out: torch.Size, ids: Tensor) -> bool:
    """Tell whether an input with these numbers covers the output, apart from constant axes."""
    if shape == out:
        return True
    if len(shape) > len(out):
        return False
    offset = len(out) - len(shape)
    if any(size > 1 for size in out[:offset]) and ids.numel() > 1 and len(shape) < 2:
        return False
    return all(
        size in (shape[i], 1) or out[offset + i] == shape[i] for i, size in enumerate(ids.shape)
    ) and all(shape[i] == out[offset + i] or shape[i] == 1 for i in range(len(shape)))


def _agree(a: Tensor, b: Tensor) -> bool:
    if a is b or torch.equal(a, b):
        return True
    try:
        a, b = torch.broadcast_tensors(a, b)
    except RuntimeError:
        return False
    return bool(((a == b) | (a < 0) | (b < 0)).all())


def _nearer(a: Origin, b: Origin) -> Origin | None:
    """Of two sequences that are added, keep the one that was made from the other, or the one with a root."""
    if a.sequence.root and not b.sequence.root:
        return a
    if b.sequence.root and not a.sequence.root:
        return b
    if (a.sequence.batch, a.sequence.size) == (b.sequence.batch, b.sequence.size) and _agree(a.ids, b.ids):
        return a
    if a.sequence is b.sequence and a.ids.dim() == b.ids.dim() and a.ids.shape[-1] != b.ids.shape[-1]:
        return a if a.ids.shape[-1] == 1 else b  # scores: rows are queries, a bias may run over the keys
    if a.sequence is b.sequence:
        return None  # different tokens of one sequence are mixed, as in the mean of two heads
    if b.sequence in a.sequence.ancestors and a.ids.shape == b.ids.shape:
        return b if _handed_out(a, b) else a
    if a.sequence in b.sequence.ancestors and a.ids.shape == b.ids.shape:
        return a if _handed_out(b, a) else b
    return (
        a
        if a.sequence.root == b.sequence.root
        and a.ids.shape == b.ids.shape
        and a.sequence.size == b.sequence.size
        else None
    )


def _handed_out(made: Origin, old: Origin) -> bool:
    """Tell whether few pooled tokens are handed out to many places, which keep their own tokens."""
    return made.sequence.size < old.sequence.size and len(made.ids.unique()) < len(old.ids.unique())


def _linear(origins: Origins, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
    source = args[0] if args else kwargs.get("input")
    if not isinstance(source, Tensor) or not isinstance(out, Tensor):
        return
    origin = origins.get(source)
    if origin is None:
        if source.dim() < 3 or not source.is_floating_point():
            return
        origin = origins.start(source)
    if out.dim() != source.dim() or out.shape[:-1] != source.shape[:-1]:
        return
    if origin.ids.shape[-1] > 1:
        merge(origins, origin, out)
        return
    thinned = origins.thinned(origin)
    origins.same(out, origin if thinned is None else thinned)


def _matmul(origins: Origins, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
    """Rows of the left operand stay rows of the result."""
    left = args[0] if args else kwargs.get("input")
    origin = origins.get(left)
    if origin is None or not isinstance(left, Tensor) or not isinstance(out, Tensor) or out.dim() < 2:
        return
    rows = origin.rows(left.shape)
    if rows is None:
        columns = _columns(origins, origin, args, kwargs)
        if columns is None:
            merge(origins, origin, out)
        elif columns[0].dim() == out.dim():
            origins.put(out, columns[0].expand(*out.shape[:-2], 1, out.shape[-1]), columns[1])
        return
    ids = rows.unsqueeze(-1)
    while ids.dim() < out.dim():
        ids = ids.unsqueeze(0)
    if ids.shape[-2] == out.shape[-2]:
        origins.put(out, ids.expand(*out.shape[:-1], 1), origin.sequence)
        right = origins.get(args[1] if len(args) > 1 else kwargs.get("other", kwargs.get("mat2")))
        if right is not None and right.ids.dim() == out.dim() and right.ids.shape[-2:] == (1, out.shape[-1]):
            origins.put_columns(out, right)


def _columns(
    origins: Origins, origin: Origin, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Tensor, TokenSequence] | None:
    """Return the tokens of the columns of a product whose rows are channels, as in V^T times A^T."""
    right = origins.get(args[1] if len(args) > 1 else kwargs.get("other", kwargs.get("mat2")))
    if right is None or origin.ids.shape[-2] > 1 or right.ids.dim() < 2 or right.ids.shape[-1] < 2:
        return None
    return (right.ids, right.sequence) if right.ids.shape[-2] == 1 else None


def _addmm(origins: Origins, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
    _matmul(origins, args[1:], kwargs, out)


def _pad(origins: Origins, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
    source = args[0] if args else kwargs.get("input")
    widths = args[1] if len(args) > 1 else kwargs.get("pad")
    origin = origins.get(source)
    if origin is None or not isinstance(out, Tensor) or not isinstance(source, Tensor):
        return
    widths = [int(one) for one in widths]  # type: ignore[union-attr]
    ids = origin.ids.expand(source.shape)
    for place in range(0, len(widths), 2):
        axis = source.dim() - 1 - place // 2
        if widths[place] == 0 and widths[place + 1] == 0:
            continue
        if place == 0 and ids.stride(-1) == 0:  # more channels of the same tokens
            ids = ids[..., :1].expand(*ids.shape[:-1], out.shape[-1])
            continue
        edges = []
        for width in widths[place : place + 2]:
            shape = list(ids.shape)
            shape[axis] = max(width, 0)
            edges.append(torch.full((1,) * ids.dim(), PADDING, dtype=ids.dtype).expand(shape))
        start, stop = max(-widths[place], 0), ids.shape[axis] - max(-widths[place + 1], 0)
        ids = torch.cat([edges[0], ids.narrow(axis, start, stop - start), edges[1]], axis)
    if ids.shape == out.shape:
        origins.put(out, compact(ids), origin.sequence)


def _embedding(origins: Origins, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
    index = args[0] if args else kwargs.get("input")
    origin = origins.get(index)
    if origin is not None and isinstance(out, Tensor):
        origins.same(out, Origin(origin.ids.unsqueeze(-1), origin.sequence))


def _setitem(origins: Origins, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:  # noqa: ARG001
    target, index, value = args[:3]
    given = origins.get(value)
    held = origins.get(target)
    if not isinstance(target, Tensor) or not isinstance(value, Tensor) or given is None:
        return
    if held is not None and held.sequence is not given.sequence:
        return
    blank = torch.full((1,) * target.dim(), -1, dtype=torch.int32)
    ids = (blank if held is None else held.ids).expand(target.shape).clone()
    ids[_on_cpu(index)] = given.ids.expand(value.shape).to(ids.dtype)
    origins.put(target, compact(ids), given.sequence)


def _einsum(origins: Origins, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:  # noqa: ARG001
    equation = args[0]
    operands = list(args[1] if len(args) == 2 and isinstance(args[1], list | tuple) else args[1:])
    if not isinstance(equation, str) or not isinstance(out, Tensor) or not operands:
        return
    left, _, right = spelled_out(equation, operands).partition("->")
    letters = left.split(",")[0]
    origin = origins.get(operands[0])
    if origin is None or not right or len(letters) != origin.ids.dim():
        return
    ids = origin.ids
    for axis, letter in enumerate(letters):
        if letter not in right and ids.shape[axis] > 1:
            top = ids.amax(dim=axis, keepdim=True)
            if not bool(((ids == top) | (ids < 0)).all()):
                return
            ids = top
    kept = [axis for axis, letter in enumerate(letters) if letter in right]
    ids = ids.permute(*[a for a in range(len(letters)) if a not in kept], *kept)
    ids = ids.reshape(ids.shape[len(letters) - len(kept) :])
    have = [letters[a] for a in kept]
    order = [have.index(letter) for letter in right if letter in have]
    ids = ids.permute(order)
    for place, letter in enumerate(right):
        if letter not in have:
            ids = ids.unsqueeze(place)
    origins.put(out, ids, origin.sequence)


def _sdpa(origins: Origins, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
    query = args[0] if args else kwargs.get("query")
    origin = origins.get(query)
    if origin is not None and isinstance(query, Tensor) and isinstance(out, Tensor):
        rows = origin.rows(query.shape)
        if rows is not None and rows.dim() == out.dim() - 1:
            origins.put(out, rows.expand(out.shape[:-1]).unsqueeze(-1), origin.sequence)


_RULES: dict[str, Callable[[Origins, Sequence[Any], Mapping[str, Any], Any], None]] = {
    **JOINING,
    **dict.fromkeys(("matmul", "__matmul__", "linalg_matmul", "bmm", "mm"), _matmul),
    **dict.fromkeys(("addmm", "baddbmm"), _addmm),
    **dict.fromkeys(LINEARS, _linear),
    "pad": _pad,
    "embedding": _embedding,
    "__setitem__": _setitem,
    "einsum": _einsum,
    functional.scaled_dot_product_attention.__name__: _sdpa,
}
