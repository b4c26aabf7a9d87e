"""Methods that run the model again: its handle, and from what it starts from to one score per token."""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from attnlib.errors import CaptureError, InputError, LayoutError, NeedsError
from attnlib.methods.request import Request
from attnlib.record.internals import Rerun

__all__ = ["depends", "handle_of", "per_token", "refuse_layers", "refuse_query"]


def handle_of(request: Request, target: Any) -> Rerun:
    """Return the handle to run the model again.

    Raises
    ------
    NeedsError
        If the record cannot run its model, or nothing says what to explain.
    """
    handle = request.record.on_rerun
    if handle is None or not hasattr(handle, "score"):
        raise NeedsError(f"{request.method} runs the model again: use capture(model, inputs, target=...)")
    if target is None and cast(Rerun, handle).target is None:
        raise NeedsError(
            f"{request.method} explains one number of the output: name it with target=..., here or in capture"
        )
    return cast(Rerun, handle)


def refuse_query(request: Request, instead: str) -> None:
    """Refuse a query in a method that explains the output, not a row.

    Raises
    ------
    InputError
        If a query was given.
    """
    if request.query is not None:
        raise InputError(
            f"{request.method} explains the model's output, not a row: leave query out; {instead}"
        )


def refuse_layers(request: Request) -> None:
    """Refuse a choice of layers in a method that goes from the input to the output.

    Raises
    ------
    InputError
        If layers were named.
    """
    if request.layers is not None:
        raise InputError(
            f"{request.method} goes through the whole model, whatever layers are named: leave layers out, or "
            "take a method of single layers, such as raw, attention_gradient or grad_cam"
        )


def depends(score: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Return a score that was computed with its graph.

    Raises
    ------
    CaptureError
        If it does not depend on what it is to be explained by (a constant target, or detached numbers).
    """
    if torch.is_grad_enabled() and not score.requires_grad:
        raise CaptureError("the score of the target does not depend on what it is to be explained by")
    return score


def per_token(request: Request, attribution: Tensor) -> Float[Tensor, "batch key"]:
    """Sum an attribution of pixels over each patch, one of embeddings over their width.

    Parameters
    ----------
    request : whose layout says which patch is where; its record can run the model again.
    attribution : shaped as the model's start.

    Returns
    -------
    One number per token; 0 for tokens that do not stand for a part of the input (class, registers).

    Raises
    ------
    LayoutError
        If the patches do not tile the pixels, or it is not known which numbers belong to which token.
    """
    layout = request.layout
    name = cast(Rerun, request.record.on_rerun).start_name(request.stream)
    if attribution.dim() == 3 and name == "embeddings":
        scores = attribution.sum(dim=-1)
        if scores.shape[1] != layout.num_tokens:
            raise LayoutError(
                f"the model starts from {scores.shape[1]} embeddings, the layout has {layout.num_tokens} "
                "tokens"
            )
        return scores
    if attribution.dim() != 4 or layout.grid is None or layout.patch_size is None:
        raise LayoutError(
            f"{request.method}: the model starts from {name} {list(attribution.shape)}, and the layout does "
            "not say which of these numbers belong to which token; generic_relevance and attention_gradient "
            "need no such layout"
        )
    (rows, columns), (height, width) = layout.grid, layout.patch_size
    pixels = attribution.sum(dim=1)
    if not (0 <= pixels.shape[1] - rows * height < height and 0 <= pixels.shape[2] - columns * width < width):
        raise LayoutError(
            f"{rows}x{columns} patches of {height}x{width} pixels do not tile a picture of "
            f"{pixels.shape[1]}x{pixels.shape[2]}"
        )
    pixels = pixels[:, : rows * height, : columns * width]
    sums = pixels.unflatten(2, (columns, width)).unflatten(1, (rows, height)).sum(dim=(2, 4))
    scores = torch.zeros(len(sums), layout.num_tokens, dtype=sums.dtype, device=sums.device)
    scores[:, layout.patch_slice] = sums.flatten(1)
    return scores
