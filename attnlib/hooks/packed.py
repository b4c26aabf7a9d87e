"""Pictures that go into a model as one packed list of patches, with their grids beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attnlib.hooks.origins import TokenSequence

__all__ = ["packed_patches"]


def packed_patches(
    model: nn.Module, given: Sequence[tuple[str, Any]], name: str, value: Tensor
) -> tuple[Tensor, TokenSequence] | None:
    """Give numbers to the rows of a packed list of patches by their places on the pictures' grids.

    Patches that are merged later by blocks stand in the list block by block; were they in another order, the
    merged tokens would not form a grid and no layout would be given.

    Parameters
    ----------
    model : its config says how many patches are merged, and their size.
    given : names and values of the arguments; one called ``...grid_thw`` holds (frames, height, width).
    name, value : the argument that may be such a list, [patch, value].

    Returns
    -------
    One number for each row, and the sequence; None if it is no such list, holds films, or pictures of
    different sizes.
    """
    grids = [
        one for key, one in given if key.endswith("grid_thw") and isinstance(one, Tensor) and one.dim() == 2
    ]
    if not grids or value.dim() != 2 or not value.is_floating_point() or grids[0].shape[-1] != 3:
        return None
    sizes = [tuple(int(i) for i in row) for row in grids[0].tolist()]
    frames, height, width = sizes[0]
    if len(set(sizes)) != 1 or frames != 1 or value.shape[0] != len(sizes) * height * width:
        return None
    block = _number(model, ("spatial_merge_size", "merge_size")) or 1
    if height % block or width % block:
        return None
    places = torch.arange(height * width).view(height // block, block, width // block, block)
    places = places.transpose(1, 2).reshape(-1)
    items = torch.arange(len(sizes))[:, None] * height * width
    side = _number(model, ("patch_size",))
    sequence = TokenSequence(
        name,
        len(sizes),
        height * width,
        (height, width),
        None if side is None else (side, side),
        modality="pixels",
    )
    return (items + places).view(-1, 1).to(torch.int32), sequence


def _number(model: nn.Module, words: Sequence[str]) -> int | None:
    config = getattr(model, "config", None)
    for holder in (getattr(config, "vision_config", None), config):
        for word in words:
            found = getattr(holder, word, None)
            if isinstance(found, int) and found > 0:
                return found
    return None
