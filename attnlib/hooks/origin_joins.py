"""How origins pass through functions that make other sequences: pooling, convolution, joining."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attnlib.hooks.origins import Origin, Origins, TokenSequence, compact
from attnlib.hooks.torch_names import CONVOLUTIONS, POOLS

__all__ = ["JOINING", "merge"]


def merge(origins: Origins, origin: Origin, out: Tensor) -> None:
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


def _convolution(
    origins: Origins, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any, *, stride_at: int = 3
) -> None:
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
    if origin is not None and origin.ids.shape[0] > 1 and set(origin.ids.shape[1:]) == {1}:
        one_each = origin.sequence.batch * origin.sequence.size == source.shape[0] > origin.sequence.batch
        if one_each and math.prod(spatial) == 1:  # each item is one token: patches cut out before
            origins.put(out, origin.ids.expand(out.shape), origin.sequence)
            return
    if origin is None:
        size = math.prod(spatial)
        grid = (spatial[-2], spatial[-1]) if len(spatial) >= 2 else None
        fresh = TokenSequence("", out.shape[0], size, grid)
        origins.put(out, fresh.ids(out.shape[0], 1, *spatial), fresh)
        return
    old = _items_not_tokens(origin, source, spatial) or origin.sequence
    if spatial == before:  # patches unfolded into channels before
        merged = origins.coarser(old, origin.ids.narrow(1, 0, 1), in_order=False)
        if merged is not None:
            origins.put(out, merged[0].expand(out.shape[0], 1, *spatial), merged[1])
        return
    steps = None
    if len(spatial) >= 2:
        steps = (_step(before[-2], spatial[-2]), _step(before[-1], spatial[-1]))
        stride = args[stride_at] if len(args) > stride_at else kwargs.get("stride")
        if isinstance(stride, tuple | list) and len(stride) >= 2 and min(stride) > 0:
            steps = (int(stride[-2]), int(stride[-1]))
    tiles = _tiles(origins, origin, source, spatial, steps) if old is origin.sequence else None
    if tiles is not None:
        origins.put(out, tiles[0].expand(out.shape[0], 1, *spatial), tiles[1])
        return
    fresh = origins.resampled(old, spatial, steps)
    if fresh.size == 1 and fresh.members is None:  # pooled over everything
        fresh.members = torch.arange(old.size)
    # rows may be items, or items times heads: each row names its item
    numbers = origin.ids.reshape(origin.ids.shape[0], -1)
    known = numbers.amax(dim=1).expand(out.shape[0])
    if bool((known < 0).any()):
        return
    if len(spatial) == 3 and bool((numbers.amin(dim=1) // old.size != numbers.amax(dim=1) // old.size).any()):
        film = TokenSequence(old.root, out.shape[0], fresh.size, modality=old.modality)
        origins.put(out, film.ids(out.shape[0], 1, *spatial), film)  # its frames are no items of their own
        return
    items = (known // old.size).view(-1, *[1] * (out.dim() - 1))
    ids = items * fresh.size + torch.arange(fresh.size, dtype=torch.int32).view(1, 1, *spatial)
    origins.put(out, ids, fresh)


def _tiles(
    origins: Origins,
    origin: Origin,
    source: Tensor,
    spatial: tuple[int, ...],
    steps: tuple[int, int] | None,
) -> tuple[Tensor, TokenSequence] | None:
    """Follow a convolution inside tiles that were cut out of the image before: each row is one tile."""
    before = tuple(source.shape[2:])
    if (
        steps is None
        or len(spatial) != 2
        or source.shape[0] <= origin.sequence.batch
        or math.prod(spatial) < 2
    ):
        return None
    if any(n * step != size for n, step, size in zip(spatial, steps, before, strict=True)):
        return None
    ids = origin.ids.narrow(1, 0, 1).expand(source.shape[0], 1, *before)[:, :, :: steps[0], :: steps[1]]
    if len(ids.unique()) != ids.numel():
        return None
    found = origins.coarser(origin.sequence, ids)
    return None if found is None or found[1] is origin.sequence else found


def _items_not_tokens(origin: Origin, source: Tensor, spatial: tuple[int, ...]) -> TokenSequence | None:
    """Return the samples of a sound: rows taken for tokens are items if a convolution runs along them."""
    old = origin.sequence
    rows = source.shape[0]
    alone = old.batch == 1 and old.size == rows == origin.ids.numel() and old.up is None
    if not alone or math.prod(spatial) <= 1 or len(spatial) != 1:
        return None
    return TokenSequence(old.root, rows, 1, up=None, modality=old.modality)


def _step(before: int, after: int) -> int:
    return max(1, round(before / max(after, 1)))


def _cat(origins: Origins, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
    pieces = list(args[0] if args else kwargs.get("tensors", ()))
    axis = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
    known = [(one, origins.get(one)) for one in pieces if isinstance(one, Tensor)]
    found = [origin for _, origin in known if origin is not None]
    if not found or not isinstance(out, Tensor):
        return
    if out.dim() == 2 and axis % 2 == 1 and _side_by_side(origins, out, known):
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
    elif out.dim() == 4 and axis % 4 == 2 and all(one.shape[1] == 1 for one in _shrunk(found)):
        heads = [(one[:, 0], None if o is None else Origin(o.ids[:, 0], o.sequence)) for one, o in known]
        first = out[:, 0]  # the tokens are the same for every head
        _joined(origins, first, heads, [o for _, o in heads if o is not None])
        new = origins.get(first)
        if new is not None:
            origins.put(out, new.ids.unsqueeze(1).expand(*out.shape[:3], 1), new.sequence)
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
    elif len(sequences) > 1 and out.dim() > 2 and axis % out.dim() == out.dim() - 1:
        origins.put(out, compact(numbers[0][..., :1].expand(out.shape)), found[0].sequence)


def _side_by_side(origins: Origins, out: Tensor, known: Sequence[tuple[Tensor, Origin | None]]) -> bool:
    """Pool what a head reads side by side, such as the class token and the mean of the patches."""
    batch = out.shape[0]
    bases, members = [], []
    for tensor, origin in known:
        rows = None if origin is None else origin.rows(tensor.shape)
        if origin is None or rows is None or bool((rows < 0).any()):
            return False
        one = origin.sequence
        if one.batch != batch or bool((rows // one.size != torch.arange(batch)).any()):
            return False
        bases.append(one if one.members is None or one.up is None else one.up)
        members.append((rows if one.members is None else one.members).reshape(-1).to(torch.int64))
    base = bases[0]
    if any(one is not base for one in bases):
        return False
    fresh = TokenSequence(base.root, batch, 1, up=base, coarse=True, modality=base.modality)
    fresh.members = torch.cat(members).unique()
    origins.put(out, fresh.ids(batch, 1), fresh)
    return True


def _shrunk(found: Sequence[Origin]) -> list[Tensor]:
    """Return the numbers with the second axis as one, where it is constant."""
    return [
        one.ids[:, :1] if one.ids.dim() == 4 and bool((one.ids == one.ids[:, :1]).all()) else one.ids
        for one in found
    ]


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
    kinds = {next((up.modality for up in one.sequence.ancestors if up.modality), "") for one in found}
    both = "mixed" if {"ids", "pixels"} <= kinds else ""
    fresh = TokenSequence(best.root, batch, size, up=best, parents=joined, modality=both)
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
    fresh = TokenSequence(
        root, out.shape[0], out.shape[1], up=origin.sequence, parents=parents, modality="ids"
    )
    origins.put(out, fresh.ids(*out.shape[:2], 1), fresh)


JOINING = {
    **dict.fromkeys(("cat", "concat", "concatenate"), _cat),
    **dict.fromkeys(("masked_scatter", "masked_scatter_"), _masked_scatter),
    **dict.fromkeys(("amax", "max", "mean", "amin", "sum"), _reduced),
    **dict.fromkeys(CONVOLUTIONS, _convolution),
    **dict.fromkeys(POOLS, partial(_convolution, stride_at=2)),
    "stack": _stack,
}
