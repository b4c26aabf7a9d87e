"""Grad-CAM on the tokens that an attention block reads, through pytorch-grad-cam."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attnlib.errors import InputError, MissingPackageError
from attnlib.methods.model_input import depends, handle_of, refuse_query
from attnlib.methods.options import TARGET
from attnlib.methods.papers import SELVARAJU
from attnlib.methods.registry import method
from attnlib.methods.request import Answer, Request
from attnlib.methods.windows import refuse_windows
from attnlib.record.internals import Rerun

__all__ = ["grad_cam"]

PUBLISHED_CODE = "pytorch-grad-cam"


class _Scored(nn.Module):
    """What pytorch-grad-cam takes for the model: it never holds the real one, so it cannot change it."""

    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._run = run
        self.device_of = nn.Parameter(torch.zeros(()), requires_grad=False)

    def forward(self, start: Tensor) -> Tensor:
        """Return one score per item."""
        return self._run(start)


@method(
    "grad_cam",
    title="Grad-CAM on tokens",
    summary="The hidden states that the last attention block reads, each channel weighted by its mean "
    "gradient over the patches; the positive part of the sum.",
    formula=r"s_i = \Big(\sum_k w_k\,x_{ik}\Big)^+,\qquad w_k = \frac1N\sum_{j} \frac{\partial f}"
    r"{\partial x_{jk}},\quad i, j \text{ over the patches}",
    family="input",
    paper="Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based "
    "Localization, ICCV 2017, arXiv:1610.02391",
    bibtex=SELVARAJU,
    reference="jacobgil/pytorch-grad-cam (the normalised input of the last block, as its ViT examples)",
    options=(TARGET,),
    needs=("model",),
    takes_query=False,
    cost="one forward and one backward pass",
    deviations=(
        "The hidden states are those the attention of a layer reads (after the norm in a pre-norm block), "
        "found by following the tensors; later ones have no gradient on patches when the head reads the "
        "class token.",
        "Prefix tokens take no part, and get 0; text counts as one row of tokens.",
        "Scores are the positive part, not stretched to [0, 1]: a flat map stays flat.",
        "Several layers are averaged.",
    ),
    variants={
        PUBLISHED_CODE: "each layer, and then their mean, stretched to [0, 1] per item (before any resizing)"
    },
    extra="attribution",
)
def grad_cam(request: Request, *, target: Any, variant: str | None) -> Answer:
    """Weight the channels of hidden states by their mean gradient."""
    refuse_query(request, "scores say which patches carry the channels that the target's score grows with")
    handle = handle_of(request, target)
    layers = request.stack(default=-1)
    refuse_windows(layers, "grad_cam")
    layout = request.layout
    grid = layout.grid or (1, layout.num_tokens)
    patches = layout.patch_slice if layout.grid is not None else slice(0, layout.num_tokens)
    taps = {layer.index: nn.Identity() for layer in layers}

    def as_picture(hidden: Tensor) -> Tensor:
        if hidden.shape[1] != layout.num_tokens:
            raise InputError(
                f"grad_cam: a block reads {list(hidden.shape)}, the layout has {layout.num_tokens} tokens"
            )
        return hidden[:, patches].unflatten(1, grid).permute(0, 3, 1, 2)

    with torch.enable_grad():
        maps = _raw_maps(request.stream, handle, taps, as_picture, target)
    maps = maps.clamp(min=0)
    real = torch.ones(maps.shape[1:], dtype=torch.bool)
    if request.seen is not None and request.seen.shape[-1] == layout.num_tokens:
        real = request.seen[:, patches].unflatten(1, grid).to(maps.device)
    shares = real.to(maps).mean(dim=(1, 2), keepdim=True)  # padding has no gradient: it only thins the mean
    maps = torch.where(real, maps / shares.clamp(min=torch.finfo(maps.dtype).tiny), 0.0)
    if variant == PUBLISHED_CODE:
        maps = _stretched(_stretched(maps, real).mean(dim=0), real)
    else:
        maps = maps.mean(dim=0)
    scores = torch.zeros(len(maps), layout.num_tokens, dtype=maps.dtype)
    scores[:, patches] = maps.flatten(1)
    empty = scores.sum(dim=1) == 0
    notes = ("nothing is positive: the map is empty",) if bool(empty.any()) else ()
    return Answer(scores.to(handle.start(request.stream).device), query="the output", notes=notes)


def _raw_maps(
    stream: str,
    handle: Rerun,
    taps: Mapping[int, nn.Module],
    as_picture: Callable[[Tensor], Tensor],
    target: Any,
) -> Tensor:
    """Return Grad-CAM's weighted sums, [layer, batch, row, column], signed."""
    try:
        package = import_module("pytorch_grad_cam")
    except ImportError as error:
        lacks = (error.name or "").partition(".")[0]
        what = "pytorch-grad-cam" if lacks in ("", "pytorch_grad_cam") else f"{lacks} (for pytorch-grad-cam)"
        raise MissingPackageError(
            f'Grad-CAM needs {what}: pip install "attnlib[attribution]" ({error})'
        ) from None
    start = handle.start(stream).requires_grad_()
    model = _Scored(lambda given: depends(handle.score(stream, given, target=target, taps=taps)))
    with package.GradCAM(model, list(taps.values()), as_picture) as cam:
        score = cam.activations_and_grads(start)
        score.sum().backward()
        seen = cam.activations_and_grads
        found = [
            cam.get_cam_image(start, tap, None, _array(hidden), _array(gradient))
            for tap, hidden, gradient in zip(taps.values(), seen.activations, seen.gradients, strict=True)
        ]
    return torch.stack([torch.as_tensor(one) for one in found])


def _array(tensor: Tensor) -> np.ndarray:
    """Return an array; numpy has no bfloat16, and sums over patches want more than 16 bits."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32)).numpy()


def _stretched(maps: Tensor, real: Tensor) -> Tensor:
    """Stretch each map to [0, 1], as pytorch-grad-cam does; padding gets 0."""
    low = maps.masked_fill(~real, torch.inf).amin(dim=(-2, -1), keepdim=True)
    raised = torch.where(real, maps - low, 0.0)
    return raised / (1e-7 + raised.amax(dim=(-2, -1), keepdim=True))
