"""The layout of a default input: found by running the picture part of a model once, on grey."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import nn

from attnlib.errors import AttnlibError
from attnlib.layout import TokenLayout
from attnlib.layout.rules import prefix_names
from attnlib.models.loaded import Preparer

__all__ = ["default_layout"]


def default_layout(model: nn.Module, preparer: Preparer) -> TokenLayout | None:
    """Return the layout of a square picture of the default size.

    Which tokens the head reads is left open: a capture finds that out by gradient.

    Returns
    -------
    The layout, or None where the shapes do not tell: no single grid of patches, or more tokens than
    the model has learned prefixes.
    """
    config: Any = getattr(model, "config", None)
    config = getattr(config, "vision_config", None) or getattr(config, "encoder", None) or config
    size, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    if not isinstance(size, int) or not isinstance(patch, int):
        return None
    part = _vision_part(model)
    try:
        grey = Image.new("RGB", (size, size), (128, 128, 128))
        values = preparer([grey], size=None, texts=None).inputs["pixel_values"]
    except AttnlibError:
        values = torch.zeros(1, int(getattr(config, "num_channels", 3)), size, size)
    try:
        first = next(p for p in part.parameters() if p.is_floating_point())
        with torch.no_grad():
            tokens = part(pixel_values=values.to(first)).last_hidden_state
    except (AttributeError, TypeError, ValueError, RuntimeError, IndexError, StopIteration):
        return None
    grid = (values.shape[-2] // patch, values.shape[-1] // patch)
    names = prefix_names([(name, list(p.shape)) for name, p in part.named_parameters()], config)
    if tokens.dim() != 3 or tokens.shape[1] != len(names) + grid[0] * grid[1]:
        return None
    return TokenLayout(grid, patch, names, None)


def _vision_part(model: nn.Module) -> nn.Module:
    for name in ("vision_model", "encoder"):
        part = getattr(model, name, None)
        if isinstance(part, nn.Module) and getattr(part, "config", None) is not None:
            return part
    return getattr(model, "base_model", model)
