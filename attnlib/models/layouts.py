"""The layout of a default input: found by running the model once on a grey picture."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import nn

from attnlib.errors import AttnlibError
from attnlib.layout import TokenLayout
from attnlib.layout.rules import vision_layout
from attnlib.models.loaded import Preparer

__all__ = ["default_layout"]


def default_layout(model: nn.Module, preparer: Preparer) -> TokenLayout | None:
    """Return the layout of a square picture of the default size; None where shapes do not tell."""
    config: Any = getattr(model, "config", None)
    config = getattr(config, "vision_config", None) or getattr(config, "encoder", None) or config
    size = getattr(config, "image_size", None)
    if not isinstance(size, int) or getattr(config, "patch_size", None) is None:
        return None
    part = _vision_part(model)
    try:
        grey = Image.new("RGB", (size, size), (128, 128, 128))
        values = preparer([grey], size=None, texts=None).inputs["pixel_values"]
    except AttnlibError:
        values = torch.zeros(1, int(getattr(config, "num_channels", 3)), size, size)
    try:
        dtype = next(p.dtype for p in part.parameters() if p.is_floating_point())
        with torch.no_grad():
            tokens = part(pixel_values=values.to(dtype)).last_hidden_state
        if tokens.dim() != 3:
            return None
        return vision_layout(config, (values.shape[-2], values.shape[-1]), tokens.shape[1])
    except (AttnlibError, AttributeError, TypeError, ValueError, RuntimeError, IndexError):
        return None


def _vision_part(model: nn.Module) -> nn.Module:
    for name in ("vision_model", "encoder"):
        part = getattr(model, name, None)
        if isinstance(part, nn.Module) and getattr(part, "config", None) is not None:
            return part
    return getattr(model, "base_model", model)
