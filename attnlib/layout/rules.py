"""Rules that find the layout of a stream from the model's config and the shapes it ran with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attnlib.errors import LayoutError
from attnlib.layout.token_layout import TokenLayout

__all__ = ["find_layouts", "vision_layout"]


def vision_layout(config: Any, input_size: tuple[int, int], num_tokens: int) -> TokenLayout:
    """Find the layout of a vision transformer.

    Parameters
    ----------
    config : the model's (vision) config; only ``patch_size`` and the counts of extra tokens are read.
    input_size : (height, width) of the pixels that went in.
    num_tokens : tokens that its self-attention saw.

    Raises
    ------
    LayoutError
        If the number of tokens does not fit the patch size.
    """
    patch = getattr(config, "patch_size", None)
    if patch is None:
        raise LayoutError("the config has no patch_size: give record.with_layout(TokenLayout(...))")
    patch_size = (patch, patch) if isinstance(patch, int) else tuple(patch)
    grid = (input_size[0] // patch_size[0], input_size[1] // patch_size[1])
    extra = num_tokens - grid[0] * grid[1]
    registers = int(getattr(config, "num_register_tokens", 0) or 0)
    if extra < registers:
        raise LayoutError(
            f"{num_tokens} tokens do not fit a grid of {grid[0]}x{grid[1]} patches and {registers} registers: "
            "give record.with_layout(TokenLayout(...))"
        )
    names = {0: (), 1: ("class",), 2: ("class", "distillation")}.get(extra - registers)
    if names is None:
        raise LayoutError(
            f"{num_tokens} tokens do not fit a grid of {grid[0]}x{grid[1]} patches: {extra} are left over; "
            "give record.with_layout(TokenLayout(...))"
        )
    prefix = (*names, *(f"register {i + 1}" for i in range(registers)))
    return TokenLayout(grid, patch_size, prefix, readout=(0,) if names else "patches")


def find_layouts(model: Any, record: Any, inputs: Sequence[Any]) -> None:
    """Put the layouts of the streams of ``record`` into it, where they can be known."""
    if not inputs:
        raise LayoutError("no forward pass was seen")
    given = inputs[-1]
    tensors = [*given.args, *given.kwargs.values()]
    images = [t for t in tensors if getattr(t, "ndim", 0) == 4 and t.is_floating_point()]
    config = getattr(model, "config", None)
    layouts = {}
    for stream in record.streams:
        layers = [x for x in record.layers if x.stream == stream and x.kind == "self"]
        if not layers:
            continue
        num_tokens = layers[0].num_keys
        if stream == "vision" and images:
            own = getattr(config, "vision_config", None) or config
            layouts[stream] = vision_layout(own, tuple(images[0].shape[-2:]), num_tokens)
        elif stream in ("text", "encoder", "decoder"):
            layouts[stream] = TokenLayout(
                None, tokens=[f"token {i}" for i in range(num_tokens)], readout=(0,)
            )
    for layer in record.layers:
        layer.key_layout = layouts.get(layer.stream)
        layer.query_layout = layouts.get(layer.stream)
    record.layouts = {**record.layouts, **layouts}
