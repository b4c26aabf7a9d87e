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
            "Over what a head's gradient is averaged: the whole matrix (ICCV 2021 code, and CVPR 2021 code "
            "for BERT), or the query's own row over the patches (CVPR 2021 code for ViT).",
            "choice",
            ("matrix", "row"),
        ),
    ),
    needs=("gradients",),
    cost="one backward pass, then one layer; memory linear in the number of tokens",
    deviations=(
        "Heads are averaged; some copies add them up. The map differs by the number of heads only.",
        "A head's gradient is averaged over real tokens: rows and columns of padding take no part, so that "
        "an item does not depend on how much it was padded.",
        "No min-max stretching: a flat map stays flat.",
        "Often published under other names, 'CheferCAM' among them.",
    ),
)
def attention_grad_cam(request: Request, *, gradient_mean: str) -> Answer:
    """Weight the heads of one layer by their mean gradient."""
    if request.reads_pool and request.pool is not None and request.layers is None:
        layer = request.pool
        start, words, every = request.even_weights(layer)[0][:, None], request.pool_words, False
    else:
        layers = request.stack(default=-1)
        if len(layers) != 1:
            raise InputError(
                f"attention_grad_cam works on one layer, got {len(layers)}: name one with layers="
            )
        layer = layers[0]
        starts = request.starts(layer)
        start, words, every = starts.weights, starts.words, starts.every
    over_rows, over_keys = request.even_weights(layer)
    means = _matrix_mean(layer, over_rows, over_keys) if gradient_mean == "matrix" else None
    over_patches = _over_patches(layer, over_keys)
    scores = start.new_zeros(*start.shape[:-1], layer.num_keys)
    for rows in blocks_of(layer, active_rows(start)):
        weights = layer.weights(queries=rows)
        if means is None:
            factor = _row_means(layer, rows, over_patches)[..., None]
        else:
            factor = means[:, :, None, None]
        scores += start[..., rows] @ (weights * factor).mean(dim=1).clamp(min=0)
    layout = layer.key_layout if layer.kind == "pool" else None
    return Answer(scores if every else scores.squeeze(1), query=words, layout=layout)


def _matrix_mean(
    layer: LayerAttention, over_rows: Float[Tensor, "batch query"], over_keys: Float[Tensor, "batch key"]
) -> Float[Tensor, "batch head"]:
    """Average each head's gradient over the queries and keys that are real tokens."""
    total = over_rows.new_zeros(layer.batch_size, layer.source.shape[1])
    for rows in blocks_of(layer):
        total += torch.einsum("bhr,br->bh", _row_means(layer, rows, over_keys), over_rows[:, rows])
    return total


def _row_means(
    layer: LayerAttention, rows: slice | list[int], over_keys: Float[Tensor, "batch key"]
) -> Float[Tensor, "batch head row"]:
    """Average the gradients of some rows over keys."""
    return torch.einsum("bhrk,bk->bhr", layer.gradients(queries=rows).to(over_keys), over_keys)


def _over_patches(layer: LayerAttention, over_keys: Float[Tensor, "batch key"]) -> Float[Tensor, "batch key"]:
    """Leave the prefix tokens out of an average over keys, where the layout knows them."""
    layout = layer.key_layout
    if layout is None or layout.grid is None or layout.num_tokens != layer.num_keys:
        return over_keys
    patches = torch.zeros_like(over_keys)
    patches[:, layout.patch_slice] = over_keys[:, layout.patch_slice]
    return patches / patches.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(patches.dtype).tiny)
