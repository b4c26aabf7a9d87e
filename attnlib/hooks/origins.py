"""Where tokens come from: which position of which input stands at each place of a tensor.

A tensor's origin is a tensor of the same shape with a token number at every place, held in broadcast
form (size 1 along axes where it is constant). It is followed through the forward pass by applying to
it whatever moves the real tensor about: windows, shifts, shuffles and merged sequences are found this
way, for any model, without knowing what the model is called. What cannot be followed has no origin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import ref

import torch
from torch import Tensor

__all__ = ["PADDING", "Origin", "Origins", "TokenSequence", "compact", "shrink"]

PADDING = -2  # number of a place that was padded: no token stands there; -1 is a place of unknown origin


@dataclass(eq=False)
class TokenSequence:
    """A sequence of tokens, one per batch item, numbered ``item * size + position``.

    Parameters
    ----------
    root : argument of the model it comes from, such as "pixel_values"; "" for learned tokens.
    modality : "pixels", "ids", "states", or "" where it is not known.
    batch, size : items, and tokens per item.
    grid : (height, width) if the tokens stand on a grid, row by row.
    patch_size : pixels of the input that one token covers.
    up : the sequence it was made from.
    members : for a pooled token, the numbers of all tokens of ``up`` in it.
    coarse : whether each token stands for a group of tokens of ``up``; ``parents`` name one of each.
    parents : for each token the number of its token in ``up``, -1 where it has none; [batch, size].
    """

    root: str
    batch: int
    size: int
    grid: tuple[int, int] | None = None
    patch_size: tuple[int, int] | None = None
    up: TokenSequence | None = None
    parents: Tensor | None = None
    modality: str = ""
    members: Tensor | None = None
    coarse: bool = False

    def ids(self, *shape: int) -> Tensor:
        """Return all token numbers in the given shape."""
        return torch.arange(self.batch * self.size, dtype=torch.int32).view(*shape)

    @property
    def ancestors(self) -> list[TokenSequence]:
        """The sequence itself and what it was made from, nearest first."""
        found: list[TokenSequence] = [self]
        while found[-1].up is not None:
            found.append(found[-1].up)
        return found


@dataclass(eq=False)
class Origin:
    """Token numbers at the places of a tensor, in broadcast form.

    ``columns`` holds those of the other operand, where a tensor is a product of two tensors of tokens:
    transposed scores are scores of its tokens.
    """

    ids: Tensor
    sequence: TokenSequence
    columns: Origin | None = None

    def rows(self, shape: torch.Size | tuple[int, ...]) -> Tensor | None:
        """Return the token of each row, [*shape[:-1]], or None if a row mixes tokens."""
        ids = self.ids
        if ids.shape[-1] != 1:
            top = ids.amax(dim=-1, keepdim=True)
            if not bool(((ids == top) | (ids < 0)).all()):
                return None
            ids = top
        return ids[..., 0].expand(tuple(shape[:-1]))


def shrink(ids: Tensor) -> Tensor:
    """Drop repetition along broadcast axes."""
    for axis, (size, stride) in enumerate(zip(ids.shape, ids.stride(), strict=True)):
        if size > 1 and stride == 0:
            ids = ids.narrow(axis, 0, 1)
    return ids


def compact(ids: Tensor) -> Tensor:
    """Drop every axis along which copied numbers are constant, last axis first."""
    ids = shrink(ids)
    for axis in reversed(range(ids.dim())):
        if ids.shape[axis] > 1:
            head = ids.narrow(axis, 0, 1)
            if bool((ids.narrow(axis, 1, 1) == head).all()) and bool((ids == head).all()):
                ids = head.contiguous()
    return ids


class Origins:
    """The origins of the tensors that are alive."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[ref[Tensor], Origin]] = {}
        self._coarser: dict[tuple[int, bytes], TokenSequence] = {}
        self.batches: set[int] = set()

    def get(self, tensor: Any) -> Origin | None:
        """Return the origin of a tensor, if it is known."""
        known = self._known.get(id(tensor))
        return known[1] if known is not None and known[0]() is tensor else None

    def put(self, tensor: Tensor, ids: Tensor, sequence: TokenSequence) -> None:
        """Remember the origin of a tensor."""
        self.same(tensor, Origin(shrink(ids), sequence))

    def put_columns(self, scores: Tensor, columns: Origin) -> None:
        """Remember which tokens the columns of scores belong to."""
        self._known[id(scores)][1].columns = columns

    def same(self, tensor: Tensor, origin: Origin) -> None:
        """Give a tensor the origin of another one."""
        key, known = id(tensor), self._known
        known[key] = ref(tensor, lambda _: known.pop(key, None)), origin

    def forget(self, tensor: Tensor) -> None:
        """Drop what was known about a tensor."""
        self._known.pop(id(tensor), None)

    def clear(self, keep: Sequence[Tensor] = ()) -> None:
        """Drop everything but the origins of some tensors."""
        kept = [(one, self.get(one)) for one in keep]
        self._known.clear()
        for tensor, origin in kept:
            if origin is not None:
                self.same(tensor, origin)
        self._coarser.clear()
        self.batches.clear()

    def resampled(
        self, old: TokenSequence, spatial: tuple[int, ...], steps: tuple[int, int] | None
    ) -> TokenSequence:
        """Return the sequence of places that a convolution or pooling makes of ``old``; one for each size."""
        name = (id(old), repr((spatial, steps)).encode())
        if name not in self._coarser:
            size, grid, patch = 1, None, None
            for one in spatial:
                size *= one
            if len(spatial) >= 2:
                grid = (spatial[-2], spatial[-1])
                if old.patch_size is not None and steps is not None:
                    patch = (old.patch_size[0] * steps[0], old.patch_size[1] * steps[1])
            self._coarser[name] = TokenSequence(
                old.root, old.batch, size, grid, patch, old, modality=old.modality
            )
        return self._coarser[name]

    def coarser(
        self, old: TokenSequence, ids: Tensor, *, in_order: bool = True, members: Tensor | None = None
    ) -> tuple[Tensor, TokenSequence] | None:
        """Give numbers to tokens that each stand for a group of tokens, named by one member of the group.

        Parameters
        ----------
        old : the sequence of the members.
        ids : one member of each group, in broadcast form.
        in_order : number the groups by their members instead of by their places in ``ids``.

        Returns
        -------
        Numbers in the shape of ``ids``, and the new sequence; None if items would mix.
        """
        if 0 in ids.shape or bool((ids < 0).any()):
            return None
        flat = ids.reshape(-1).to(torch.int64)
        kept = flat.unique() if in_order else flat
        if len(kept) % old.batch or len(kept) == old.batch * old.size:
            return (ids, old) if in_order else None
        size = len(kept) // old.batch
        by_item = kept.view(old.batch, size)
        if not bool((by_item // old.size == torch.arange(old.batch).unsqueeze(1)).all()):
            return None
        pooled = None if members is None or size > 1 else members.unique()
        name = (id(old), by_item.numpy().tobytes() + (b"" if pooled is None else pooled.numpy().tobytes()))
        if name not in self._coarser:
            grid = patch = None
            if old.grid is not None:
                grid, patch = _coarser_grid(by_item[0] % old.size, old.grid, old.patch_size)
            self._coarser[name] = TokenSequence(
                old.root, old.batch, size, grid, patch, old, by_item.to(torch.int32), old.modality
            )
            self._coarser[name].members = pooled
            self._coarser[name].coarse = True
        numbers = torch.searchsorted(kept, flat) if in_order else torch.arange(len(flat))
        return numbers.view(ids.shape).to(torch.int32), self._coarser[name]

    def thinned(self, origin: Origin) -> Origin | None:
        """Return the origin of every n-th row and column of a grid as tokens of a grid of their own.

        None if the tokens are all there, or others than these.
        """
        old, ids = origin.sequence, origin.ids
        count = ids.numel()
        if (
            old.grid is None
            or 0 in ids.shape
            or min(old.grid) < 2
            or count % old.batch
            or not 3 < count // old.batch < old.size
        ):
            return None
        if bool((ids < 0).any()):
            return None
        kept = ids.reshape(-1).to(torch.int64)
        if len(kept.unique()) != count:
            return None
        here = kept.sort().values.view(old.batch, -1)[0]
        rows, columns = (here // old.grid[1]).unique(), (here % old.grid[1]).unique()
        if min(len(rows), len(columns)) < 2 or len(rows) * len(columns) != len(here):
            return None
        for places, size in ((rows, old.grid[0]), (columns, old.grid[1])):
            steps = places.diff().unique()
            if len(steps) != 1 or len(places) != -(-(size - int(places[0])) // int(steps)):
                return None
            if int(places[0]) >= int(steps):
                return None
        found = self.coarser(old, ids)
        return None if found is None or found[1] is old else Origin(*found)

    def seed(self, name: str, tensor: Tensor, *, batch_first: bool = True) -> None:
        """Give numbers to the tokens, or pixels, of an input of the model."""
        shape: tuple[int, ...] = tuple(tensor.shape)
        self.batches.add(shape[0] if batch_first or len(shape) != 3 else shape[1])
        if 0 in shape or tensor.numel() >= 2**31:
            return
        if tensor.is_floating_point() and len(shape) in (4, 5):
            items, (height, width) = (shape[0] * (shape[1] if len(shape) == 5 else 1)), shape[-2:]
            pixels = TokenSequence(name, items, height * width, (height, width), (1, 1), modality="pixels")
            lead = shape[:2] if len(shape) == 5 else shape[:1]
            self.put(tensor, pixels.ids(*lead, 1, height, width), pixels)
        elif not tensor.is_floating_point() and len(shape) == 2:
            tokens = TokenSequence(name, *shape, modality="ids")
            self.put(tensor, tokens.ids(*shape), tokens)
        elif tensor.is_floating_point() and len(shape) == 3:
            self.start(tensor, name, batch_first=batch_first).sequence.modality = "states"
        elif tensor.is_floating_point() and len(shape) == 2:
            tokens = TokenSequence(name, 1, shape[0], modality="states")
            self.put(tensor, tokens.ids(shape[0], 1), tokens)

    def positions_first(self, query: Tensor) -> None:
        """Learn that a tensor is [position, item, channel]: its input may be numbered the other way."""
        origin = self.get(query)
        if origin is None or query.dim() != 3:
            return
        length, items, _ = query.shape
        wrong = origin.sequence
        if wrong.modality not in ("states", "") or wrong.up is not None:
            return
        if (wrong.batch, wrong.size) != (length, items):
            return
        rows = origin.rows(query.shape)
        if rows is None or not torch.equal(rows, wrong.ids(length, items)):
            return
        for one in {id(one): one for _, one in self._known.values()}.values():  # several tensors share one
            if one.sequence is wrong:
                right = one.ids % items * length + one.ids // items
                one.ids = torch.where(one.ids < 0, one.ids, right)
        wrong.batch, wrong.size = items, length
        self._coarser.clear()
        self.batches.discard(length)
        self.batches.add(items)

    def start(self, tensor: Tensor, root: str = "", *, batch_first: bool = True) -> Origin:
        """Give numbers to the rows of a tensor [batch, ..., channel] whose origin is not known."""
        shape: tuple[int, ...] = tuple(tensor.shape)
        if len(shape) == 3 and shape[0] not in self.batches and shape[1] in self.batches:
            batch_first = False
        if len(shape) < 3:
            count = tensor.shape[0]
            fresh = TokenSequence(root, 1, count)
            self.put(tensor, fresh.ids(count, *([1] * (tensor.dim() - 1))), fresh)
        elif batch_first:
            size = 1
            for one in shape[1:-1]:
                size *= one
            grid = (shape[1], shape[2]) if len(shape) == 4 and shape[1] > 1 else None
            fresh = TokenSequence(root, shape[0], size, grid)
            self.put(tensor, fresh.ids(*shape[:-1], 1), fresh)
        else:
            fresh = TokenSequence(root, shape[1], shape[0])
            self.put(tensor, fresh.ids(shape[1], shape[0], 1).transpose(0, 1), fresh)
        return self._known[id(tensor)][1]


def _coarser_grid(
    positions: Tensor, grid: tuple[int, int], patch: tuple[int, int] | None
) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """Return the grid of tokens that stand for the old tokens at ``positions``, if they form one."""
    rows, columns = positions // grid[1], positions % grid[1]
    tall, wide = rows.unique(), columns.unique()
    raster = (tall[:, None] * grid[1] + wide[None, :]).reshape(-1)
    if raster.shape != positions.shape or not bool((raster == positions).all()):
        return None, None
    steps = [
        int(one[1] - one[0]) if len(one) > 1 else size for one, size in zip((tall, wide), grid, strict=True)
    ]
    new = None if patch is None else (patch[0] * steps[0], patch[1] * steps[1])
    return (len(tall), len(wide)), new
