"""Grad-CAM on the attention of one layer."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from attnlib.errors import InputError
from attnlib.methods.card import Option
from attnlib.methods.engine import active_rows, blocks_of
from attnlib.methods.papers import SELVARAJU
from attnlib.methods.registry import method
from attnlib.methods.request import Answer, Request
from attnlib.record import LayerAttention

__all__ = ["attention_grad_cam"]


@method(
    "attention_grad_cam",
    title="Attention Grad-CAM",
    summary="The last layer's attention, each head weighted by its mean gradient; what lowers the score "
    "is cut off.",
    formula=r"s = \Big(\tfrac1H\sum_h A_L^{(h)}[q,:]\cdot \operatorname{mean}_{ij} G_L^{(h)}[i,j]\Big)^{+}",
    family="gradient",
    paper="Chefer, Gur & Wolf, ICCV 2021 and CVPR 2021 (a baseline there), after Selvaraju et al., Grad-CAM, "
    "ICCV 2017",
    bibtex=SELVARAJU,
    reference="hila-chefer/Transformer-MM-Explainability, ExplanationGenerator.py::gradcam",
    options=(
        Option(
            "gradient_mean",
            "matrix",
            "Over what a head's gradient is averaged: the whole matrix (ICCV 2021 code), or the query's "
            "own row "
            "over the patches (CVPR 2021 code for ViT).",
            "choice",
            ("matrix", "row"),
        ),
    ),
    needs=("gradients",),
    cost="one backward pass, then one layer; memory linear in the number of tokens",
    deviations=(
        "Heads are averaged; some copies add them up. The map differs by the number of heads only.",
        "No min-max stretching: a flat map stays flat.",
        "Often published under other names, 'CheferCAM' among them.",
    ),
)
def attention_grad_cam(request: Request, *, gradient_mean: str) -> Answer:
    """Weight the heads of one layer by their mean gradient."""
    if request.reads_pool and request.pool is not None and request.layers is None:
        layer, words = request.pool, "the pooler's own row"
        probe = layer.weights(heads=None if layer.heads is None else list(layer.heads))
        start = probe.new_full((layer.batch_size, 1, layer.num_queries), 1.0 / layer.num_queries)
    else:
        layers = request.stack(default=-1)
        if len(layers) != 1:
            raise InputError(
                f"attention_grad_cam works on one layer, got {len(layers)}: name one with layers="
            )
        layer = layers[0]
        starts = request.starts(layer)
        start, words = starts.weights, starts.words
    means = _matrix_mean(layer) if gradient_mean == "matrix" else None
    columns = _patch_columns(layer)
    scores = start.new_zeros(*start.shape[:-1], layer.num_keys)
    for rows in blocks_of(layer, active_rows(start)):
        weights = layer.weights(queries=rows)
        if means is None:
            factor = layer.gradients(queries=rows)[..., columns].mean(dim=-1, keepdim=True)
        else:
            factor = means[:, :, None, None]
        scores += start[..., rows] @ (weights * factor).mean(dim=1).clamp(min=0)
    every = isinstance(request.query, str) and request.query == "all"
    return Answer(scores if every else scores.squeeze(1), query=words)


def _matrix_mean(layer: LayerAttention) -> Float[Tensor, "batch head"]:
    """Average each head's gradient over all queries and keys."""
    total = sum(layer.gradients(queries=rows).sum(dim=(-2, -1)) for rows in blocks_of(layer))
    return torch.as_tensor(total) / (layer.num_queries * layer.num_keys)


def _patch_columns(layer: LayerAttention) -> slice:
    layout = layer.key_layout
    if layout is None or layout.grid is None or layout.num_tokens != layer.num_keys:
        return slice(None)
    return layout.patch_slice
