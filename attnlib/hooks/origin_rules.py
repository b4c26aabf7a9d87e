"""How each torch function passes the origins of its inputs on to its output."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from attnlib.hooks.origins import PADDING, Origin, Origins, TokenSequence, shrink

__all__ = ["MOVES", "follow", "move"]

# functions that only move values about: the same call on token numbers gives the token numbers of the result
MOVES = frozenset(
    """view reshape permute transpose swapaxes swapdims flatten unflatten squeeze unsqueeze expand expand_as
    contiguous clone roll chunk split unbind narrow select __getitem__ index_select gather flip repeat tile
    repeat_interleave movedim moveaxis adjoint tensor_split hsplit vsplit view_as reshape_as broadcast_to
    as_strided take_along_dim unfold t T mT mH diagonal split_with_sizes masked_select ravel""".split()
)
# same shape in and out, but tokens change places or mix
_MIXES = frozenset(
    """sort argsort topk cumsum cumprod softmax log_softmax fft ifft rfft irfft flip scatter scatter_
    index_put index_put_ index_copy index_copy_ index_add index_add_ masked_scatter masked_scatter_ logcumsumexp
    conv_transpose2d conv_transpose1d""".split()
)
_POINTWISE_ROWS = frozenset({"linear", "matmul", "__matmul__", "bmm", "mm", "_matmul"})
_CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})
_POOLS = frozenset(
    "avg_pool2d max_pool2d adaptive_avg_pool2d interpolate avg_pool1d max_pool1d max_pool3d avg_pool3d "
    "max_pool2d_with_indices _max_pool2d _max_pool1d _max_pool3d upsample".split()
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
        if origin is not None:
            moved = move(func, args, kwargs, first, origin.ids)
            _put(origins, out, moved, origin.sequence)
        return
    rule = _RULES.get(name)
    if rule is not None:
        rule(origins, args, kwargs, out)
    elif isinstance(out, Tensor):
        _elementwise(origins, name, args, kwargs, out)


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
        return full.reshape(*swapped[1:], **options)  # numbers need not lie in memory as the tensor does
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


def compact(ids: Tensor) -> Tensor:
    """Drop every axis along which copied numbers are constant, last axis first."""
    ids = shrink(ids)
    for axis in reversed(range(ids.dim())):
        if ids.shape[axis] > 1:
            head = ids.narrow(axis, 0, 1)
            if bool((ids.narrow(axis, 1, 1) == head).all()) and bool((ids == head).all()):
                ids = head.contiguous()
    return ids


def _tensors(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    return [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)]


def _elementwise(
    origins: Origins, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor
) -> None:
    """Keep the origin through anything that returns the shape it got, unless its inputs disagree."""
    if name in _MIXES:
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
            _merge(origins, found, out)
        else:
            origins.same(out, found)


def _reaches(shape: torch.Size, out: torch.Size, ids: Tensor) -> bool:
    """Tell whether an input with these numbers covers the output, apart from constant axes."""
    if len(shape) > len(out):
        return False
    offset = len(out) - len(shape)
    if any(size > 1 for size in out[:offset]) and ids.numel() > 1 and len(shape) < 2:
        return False
    return all(
        size in (shape[i], 1) or out[offset + i] == shape[i] for i, size in enumerate(ids.shape)
    ) and all(shape[i] == out[offset + i] or shape[i] == 1 for i in range(len(shape)))


def _agree(a: Tensor, b: Tensor) -> bool:
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
    if b.sequence in a.sequence.ancestors and a.ids.shape == b.ids.shape:
        return a
    if a.sequence in b.sequence.ancestors and a.ids.shape == b.ids.shape:
        return b
    return (
        a
        if a.sequence.root == b.sequence.root
        and a.ids.shape == b.ids.shape
        and a.sequence.size == b.sequence.size
        else None
    )


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
        _merge(origins, origin, out)
    else:
        origins.same(out, origin)


def _matmul(origins: Origins, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
    """Rows of the left operand stay rows of the result."""
    left = args[0] if args else kwargs.get("input")
    origin = origins.get(left)
    if origin is None or not isinstance(left, Tensor) or not isinstance(out, Tensor) or out.dim() < 2:
        return
    rows = origin.rows(left.shape)
    if rows is None:
        _merge(origins, origin, out)
        return
    ids = rows.unsqueeze(-1)
    while ids.dim() < out.dim():
        ids = ids.unsqueeze(0)
    if ids.shape[-2] == out.shape[-2]:
        origins.put(out, ids.expand(*out.shape[:-1], 1), origin.sequence)


def _addmm(origins: Origins, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
    _matmul(origins, args[1:], kwargs, out)


def _merge(origins: Origins, origin: Origin, out: Tensor) -> None:
    """Start a coarser sequence where channels of several tokens are mixed (patch embedding, merging)."""
    fresh = origins.coarser(origin.sequence, origin.ids[..., :1], in_order=False)
    if fresh is not None and out.shape[:-1].numel() == fresh[1].batch * fresh[1].size:
        origins.put(out, fresh[0].expand(*out.shape[:-1], 1), fresh[1])


def _reduced(origins: Origins, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
    """Pooling over groups of tokens makes a coarser sequence; over channels or heads it keeps the tokens."""
    source = args[0] if args else kwargs.get("input")
    result = out if isinstance(out, Tensor) else (out[0] if isinstance(out, tuple) and out else None)
    axes = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis"))
    origin = origins.get(source)
    if origin is None or not isinstance(result, Tensor) or not isinstance(source, Tensor) or axes is None:
        return
    if isinstance(axes, Tensor):  # elementwise maximum of two tensors
        return
    keep = (
        bool(args[2]) if len(args) > 2 and isinstance(args[2], bool) else bool(kwargs.get("keepdim", False))
    )
    axes = [int(one) % source.dim() for one in (axes if isinstance(axes, tuple | list) else [axes])]
    mixes = any(origin.ids.shape[axis] > 1 for axis in axes)
    ids = origin.ids.amin(dim=axes, keepdim=True)
    if not keep:
        ids = ids.reshape([size for axis, size in enumerate(ids.shape) if axis not in axes])
    if not mixes:
        origins.put(result, ids.expand(result.shape), origin.sequence)
        return
    fresh = origins.coarser(origin.sequence, ids, members=origin.ids)
    if fresh is not None:
        origins.put(result, fresh[0].expand(result.shape), fresh[1])


def _convolution(origins: Origins, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
    source = args[0] if args else kwargs.get("input")
    if isinstance(out, tuple) and out:
        out = out[0]
    if not isinstance(source, Tensor) or not isinstance(out, Tensor) or out.dim() < 3:
        return
    origin = origins.get(source)
    spatial, before = tuple(out.shape[2:]), tuple(source.shape[2:])
    if origin is not None and origin.ids.shape[1] == 1 and spatial == before:
        origins.same(out, origin)
        return
    if origin is None:
        size = math.prod(spatial)
        grid = (spatial[-2], spatial[-1]) if len(spatial) >= 2 else None
        fresh = TokenSequence("", out.shape[0], size, grid)
        origins.put(out, fresh.ids(out.shape[0], 1, *spatial), fresh)
        return
    old = origin.sequence
    if spatial == before:  # patches unfolded into channels before
        merged = origins.coarser(old, origin.ids.narrow(1, 0, 1), in_order=False)
        if merged is not None:
            origins.put(out, merged[0].expand(out.shape[0], 1, *spatial), merged[1])
        return
    steps = None
    if len(spatial) >= 2:
        steps = (_step(before[-2], spatial[-2]), _step(before[-1], spatial[-1]))
        stride = args[3] if len(args) > 3 else kwargs.get("stride")
        if isinstance(stride, tuple | list) and len(stride) >= 2:
            steps = (int(stride[-2]), int(stride[-1]))
    fresh = origins.resampled(old, spatial, steps)
    # rows may be items, or items times heads: each row names its item
    known = origin.ids.reshape(origin.ids.shape[0], -1).amax(dim=1).expand(out.shape[0])
    if bool((known < 0).any()):
        return
    items = (known // old.size).view(-1, *[1] * (out.dim() - 1))
    ids = items * fresh.size + torch.arange(fresh.size, dtype=torch.int32).view(1, 1, *spatial)
    origins.put(out, ids, fresh)


def _step(before: int, after: int) -> int:
    return max(1, round(before / max(after, 1)))


def _cat(origins: Origins, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
    pieces = list(args[0] if args else kwargs.get("tensors", ()))
    axis = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
    known = [(one, origins.get(one)) for one in pieces if isinstance(one, Tensor)]
    found = [origin for _, origin in known if origin is not None]
    if not found or not isinstance(out, Tensor):
        return
    numbers = [
        (origin.ids if origin is not None else torch.full((1,) * one.dim(), -1, dtype=torch.int32)).expand(
            one.shape
        )
        for one, origin in known
    ]
    numbers = [one for one in numbers if one.dim() == out.dim()]
    ids = (
        torch.cat([one[..., :1] for one in numbers], axis)
        if _along_rows(axis, out, numbers)
        else torch.cat(numbers, axis)
    )
    sequences = {id(origin.sequence): origin.sequence for origin in found}
    if len(sequences) == 1 and (
        out.dim() != 3 or axis % out.dim() == out.dim() - 1 or not bool((ids < 0).any())
    ):
        origins.put(out, compact(ids), found[0].sequence)
    elif out.dim() == 3 and axis % 3 == 1 and out.shape[0] == found[0].sequence.batch:
        _joined(origins, out, known, found)
    elif out.dim() == 3 and axis % 3 == 0 and out.shape[1] == found[0].sequence.batch:
        turned = [
            (one.transpose(0, 1), None if o is None else Origin(o.ids.transpose(0, 1), o.sequence))
            for one, o in known
        ]
        flipped = out.transpose(0, 1)
        _joined(origins, flipped, turned, [o for _, o in turned if o is not None])
        new = origins.get(flipped)
        if new is not None:
            origins.put(out, new.ids.transpose(0, 1), new.sequence)
    elif len(sequences) > 1 and axis % out.dim() == out.dim() - 1:
        origins.put(out, compact(numbers[0][..., :1].expand(out.shape)), found[0].sequence)


def _along_rows(axis: int, out: Tensor, numbers: Sequence[Tensor]) -> bool:
    return axis % out.dim() != out.dim() - 1 and all(
        one.stride(-1) == 0 or one.shape[-1] == 1 for one in numbers
    )


def _joined(
    origins: Origins, out: Tensor, known: Sequence[tuple[Tensor, Origin | None]], found: Sequence[Origin]
) -> None:
    """Start a sequence of which some tokens come from another one: class token + patches, image + text."""
    batch, size, _ = out.shape
    best = max(found, key=lambda one: (one.sequence.grid is not None, one.ids.numel())).sequence
    parents = []
    for tensor, origin in known:
        mine = origin is not None and origin.sequence is best and tensor.dim() == 3
        rows = origin.rows(tensor.shape) if mine and origin is not None else None
        parents.append(
            torch.full((batch, tensor.shape[1]), -1, dtype=torch.int32)
            if rows is None
            else rows.to(torch.int32)
        )
    joined = torch.cat([one.expand(batch, one.shape[1]) for one in parents], 1)
    if joined.shape != (batch, size):
        return
    fresh = TokenSequence(best.root, batch, size, up=best, parents=joined)
    origins.put(out, fresh.ids(batch, size, 1), fresh)


def _stack(origins: Origins, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
    pieces = list(args[0] if args else kwargs.get("tensors", ()))
    axis = args[1] if len(args) > 1 else kwargs.get("dim", 0)
    found = [origins.get(one) for one in pieces]
    if any(one is None for one in found) or not isinstance(out, Tensor):
        return
    if len({id(one.sequence) for one in found if one is not None}) == 1 and found[0] is not None:
        ids = torch.stack(
            [o.ids.expand(p.shape) for o, p in zip(found, pieces, strict=True) if o is not None], axis
        )
        origins.put(out, compact(ids), found[0].sequence)


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


def _masked_scatter(origins: Origins, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
    """Image features put into a text sequence: a new sequence whose image tokens come from the image."""
    named = dict(zip(("input", "mask", "source"), args, strict=False)) | dict(kwargs)
    mask, source = named.get("mask"), named.get("source")
    origin = origins.get(source)
    text = origins.get(named.get("input"))
    if not isinstance(out, Tensor) or not isinstance(mask, Tensor):
        return
    if origin is None or out.dim() != 3 or not isinstance(source, Tensor):
        if text is not None:
            origins.same(out, text)
        return
    where = mask.expand(out.shape)[..., 0].cpu()
    rows = origin.rows(source.shape)
    if rows is None or rows.numel() < int(where.sum()):
        return
    parents = torch.full(where.shape, -1, dtype=torch.int32)
    parents[where] = rows.reshape(-1)[: int(where.sum())].to(torch.int32)
    root = text.sequence.root if text is not None else origin.sequence.root
    fresh = TokenSequence(root, out.shape[0], out.shape[1], up=origin.sequence, parents=parents)
    origins.put(out, fresh.ids(*out.shape[:2], 1), fresh)


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
    origins.put(target, ids, given.sequence)


def _einsum(origins: Origins, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:  # noqa: ARG001
    equation = args[0]
    operands = list(args[1] if len(args) == 2 and isinstance(args[1], list | tuple) else args[1:])
    if not isinstance(equation, str) or "..." in equation or not isinstance(out, Tensor) or not operands:
        return
    left, _, right = equation.replace(" ", "").partition("->")
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
    **dict.fromkeys(("matmul", "__matmul__", "bmm", "mm"), _matmul),
    **dict.fromkeys(("addmm", "baddbmm"), _addmm),
    **dict.fromkeys(_CONVOLUTIONS | _POOLS, _convolution),
    **dict.fromkeys(("cat", "concat", "concatenate"), _cat),
    **dict.fromkeys(("masked_scatter", "masked_scatter_"), _masked_scatter),
    "linear": _linear,
    "stack": _stack,
    **dict.fromkeys(("amax", "max", "mean", "amin", "sum"), _reduced),
    "pad": _pad,
    "embedding": _embedding,
    "__setitem__": _setitem,
    "einsum": _einsum,
    functional.scaled_dot_product_attention.__name__: _sdpa,
}
