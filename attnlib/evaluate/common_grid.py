"""Maps on different grids, or over different cut-outs of a picture, brought to one grid."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from attnlib.errors import InputError
from attnlib.picture import Box
from attnlib.record import Relevance

__all__ = ["on_common_grid"]


def on_common_grid(
    given: Mapping[str, Relevance], *, without_identity: bool = False
) -> tuple[Float[Tensor, "map batch height width"], Float[Tensor, "map batch height width"], tuple[str, ...]]:
    """Return shares and values of all maps on one grid.

    Parameters
    ----------
    given : name -> relevance, all with the same batch size.
    without_identity : leave out what stands there only because the method starts from the query.

    Returns
    -------
    Shares that sum to 1 per map, values (signed) that sum up what fell into each cell, and notes.

    Raises
    ------
    InputError
        If text and pictures are mixed, texts differ in length, or cut-outs do not overlap.
    """
    if without_identity:
        given = {name: relevance.without_identity() for name, relevance in given.items()}
    one = next(iter(given.values()))
    if all(r.layout.grid is None for r in given.values()):
        sizes = {name: r.layout.num_tokens for name, r in given.items()}
        if len(set(sizes.values())) > 1:
            raise InputError(f"texts of different lengths cannot be compared: {sizes}")
        values = torch.stack([_tokens(r) for r in given.values()])[:, :, None, :]
        return _shares(values), values, ()
    if any(r.layout.grid is None for r in given.values()):
        raise InputError("maps over text and over pictures cannot be compared with each other")
    grids = {r.layout.grid for r in given.values()}
    windows = {name: [_window(r, item) for item in range(r.batch_size)] for name, r in given.items()}
    height, width = (min(grid[axis] for grid in grids if grid is not None) for axis in (0, 1))
    same = len(grids) == 1 and all(windows[name] == windows[next(iter(given))] for name in given)
    values = []
    for name, relevance in given.items():
        heat = _signed(relevance).double()
        if not same:
            heat = torch.stack(
                [
                    _resampled(heat[item], windows[name][item], _shared(windows, item), (height, width))
                    for item in range(one.batch_size)
                ]
            )
        values.append(heat)
    stacked = torch.stack(values)
    notes = () if same else (f"brought to a grid of {height}x{width} over what all maps show",)
    return _shares(stacked), stacked, notes


def _signed(relevance: Relevance) -> Tensor:
    return torch.where(relevance.patches_seen(), relevance.heatmap(), 0.0)


def _tokens(relevance: Relevance) -> Tensor:
    scores = relevance.scores
    return (scores if relevance.seen is None else torch.where(relevance.seen, scores, 0.0)).double()


def _shares(values: Tensor) -> Tensor:
    positive = values.clamp(min=0)
    total = positive.sum(dim=(-2, -1), keepdim=True)
    return torch.where(total > 0, positive / torch.where(total > 0, total, 1.0), 0.0)


def _window(relevance: Relevance, item: int) -> Box | None:
    if item >= len(relevance.views) or relevance.layout.grid is None:
        return None
    return relevance.views[item].grid_window(relevance.layout.grid, relevance.layout.patch_size)


def _shared(windows: Mapping[str, list[Box | None]], item: int) -> Box | None:
    """Return the box that all maps show; None if no map says what it shows."""
    boxes = [own[item] for own in windows.values()]
    known = [box for box in boxes if box is not None]
    if not known:
        return None
    if len(known) < len(boxes):
        raise InputError("some maps say which part of the picture they show and others do not")
    left, top = max(b[0] for b in known), max(b[1] for b in known)
    right, bottom = min(b[2] for b in known), min(b[3] for b in known)
    if right <= left or bottom <= top:
        raise InputError("the maps show parts of the picture that do not overlap")
    return left, top, right, bottom


def _resampled(heat: Tensor, window: Box | None, shared: Box | None, grid: tuple[int, int]) -> Tensor:
    """Sum what of each cell falls into the cells of the new grid."""
    old = window or (0.0, 0.0, 1.0, 1.0)
    new = shared or (0.0, 0.0, 1.0, 1.0)
    down = _overlaps(old[1], old[3], heat.shape[0], new[1], new[3], grid[0])
    across = _overlaps(old[0], old[2], heat.shape[1], new[0], new[2], grid[1])
    return down.to(heat) @ heat @ across.to(heat).t()


def _overlaps(start: float, stop: float, cells: int, new_start: float, new_stop: float, new: int) -> Tensor:
    """Return [new cell, old cell]: the share of each old cell that lies in each new one."""
    old = torch.linspace(start, stop, cells + 1, dtype=torch.float64)
    fresh = torch.linspace(new_start, new_stop, new + 1, dtype=torch.float64)
    upper = torch.minimum(fresh[1:, None], old[None, 1:])
    lower = torch.maximum(fresh[:-1, None], old[None, :-1])
    return (upper - lower).clamp(min=0) / (old[1:] - old[:-1])[None, :]
