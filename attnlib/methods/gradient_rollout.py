"""Gradient rollout (vit-explain) and attention x gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attnlib.errors import InputError
from attnlib.methods.card import Option
from attnlib.methods.engine import Block, blocks_of
from attnlib.methods.options import DISCARD, HEADS, RESIDUAL, START_LAYER
from attnlib.methods.propagation import propagated
from attnlib.methods.registry import method
from attnlib.methods.request import Answer, Request
from attnlib.methods.transitions import column_divided, demand_whole, gradient_rows, kept_entries, mixed
from attnlib.record import LayerAttention

__all__ = ["attention_gradient", "gradient_rollout"]

_VIT_EXPLAIN = """@misc{gildenblat2020exploring,
  title = {Exploring Explainability for Vision Transformers},
  author = {Gildenblat, Jacob},
  year = {2020},
  howpublished = {\\url{https://github.com/jacobgil/vit-explain}}
}"""


@method(
    "gradient_rollout",
    title="Gradient attention rollout",
    summary="Rollout in which each layer's attention is first weighted by the gradient of the target's "
    "score.",
    formula=r"F_l = \Big(\tfrac1H\sum_h G_l^{(h)} \odot A_l^{(h)}\Big)^{+},\quad "
    r"\tilde F_l = \operatorname{rownorm}\big((1-w) F_l + w I\big),\quad s = (\tilde F_L \cdots \tilde "
    r"F_1)[q,:]",
    family="gradient",
    paper="Gildenblat, Exploring Explainability for Vision Transformers, 2020 (code and article, no paper)",
    bibtex=_VIT_EXPLAIN,
    reference="jacobgil/vit-explain, vit_grad_rollout.py",
    options=(RESIDUAL, DISCARD, START_LAYER, HEADS),
    needs=("gradients",),
    cost="one backward pass, then one pass over attention and gradients; memory linear in the number of "
    "tokens; with discard_ratio one N x N matrix at a time",
    deviations=(
        "Each layer's attention meets its own gradient, taken after the soft-max; the published class pairs "
        "the first layer with the last layer's gradient and takes it before the soft-max in evaluation mode.",
        "Rows, not columns, are divided by their sums.",
        "The positive part is taken after the head mean, as published (Chefer's rule takes it before).",
    ),
    variants={
        "vit-explain": "the class VITAttentionGradRollout: gradients in backward order (the first layer "
        "meets the last layer's), taken before the soft-max, columns divided by row sums. Its default is "
        "discard_ratio=0.9.",
        "vit-explain-function": "the function grad_rollout alone, fed with the right gradients: columns "
        "divided by row sums.",
    },
)
def gradient_rollout(
    request: Request,
    *,
    residual_weight: float,
    discard_ratio: float,
    start_layer: int,
    heads: int | Sequence[int] | None,
    variant: str | None,
) -> Answer:
    """Multiply the layers' gradient-weighted attention, each mixed with the identity."""
    stack = request.stack(start_layer=start_layer)
    sizes = {layer.source.shape for layer in stack}
    if variant == "vit-explain" and len(sizes) > 1:
        raise InputError(
            "gradient_rollout: variant='vit-explain' pairs the first layer with the last one's gradient, "
            f"which {len(sizes)} different sizes of layers do not allow; take layers of one size"
        )
    partner = dict(zip((id(layer) for layer in stack), reversed(stack), strict=True))

    def transition(layer: LayerAttention, rows: slice | list[int]) -> Block:
        return mixed(gradient_rows(layer, rows, heads=heads).clamp(min=0), residual_weight)

    def whole_layer(layer: LayerAttention) -> Block:
        other = partner.get(id(layer)) if variant == "vit-explain" else None
        parts = [_weighted(layer, rows, heads, other).clamp(min=0) for rows in blocks_of(layer)]
        fused = torch.cat(parts, dim=1)
        fused = kept_entries(fused, discard_ratio, protect_first=False, seen=request.seen)
        return column_divided(fused, residual_weight) if variant else mixed(fused, residual_weight)

    needs_whole = discard_ratio > 0 or variant is not None
    if needs_whole:
        demand_whole(request, stack)
    return propagated(
        request,
        whole_layer if needs_whole else transition,
        start_layer=start_layer,
        needs_whole=needs_whole,
        pool_rows=lambda pool: gradient_rows(pool, None, heads=heads).clamp(min=0),
        late_class=True,
    )


def _weighted(
    layer: LayerAttention,
    rows: slice | list[int],
    heads: int | Sequence[int] | None,
    partner: LayerAttention | None,
) -> Tensor:
    """Return gradient x attention, with the pre-soft-max gradient of another layer if one is given."""
    if partner is None:
        return gradient_rows(layer, rows, heads=heads)
    before = partner.weights(heads=heads, queries=rows)
    slope = partner.gradients(heads=heads, queries=rows)
    before_softmax = before * (slope - (before * slope).sum(dim=-1, keepdim=True))
    return (layer.weights(heads=heads, queries=rows) * before_softmax).mean(dim=1)


@method(
    "attention_gradient",
    title="Attention x gradient",
    summary="The attention of a layer (the last, unless layers are named) times the gradient of the "
    "target's score.",
    formula=r"s = \tfrac1H\sum_h \big(G_l^{(h)} \odot A_l^{(h)}\big)[q,:]",
    family="gradient",
    paper="Barkan et al., Grad-SAM, CIKM 2021, arXiv:2204.11073 (its positive form, averaged over heads and "
    "layers); the product itself is gradient x input at the attention weights",
    bibtex="""@inproceedings{barkan2021gradsam,
  title = {{Grad-SAM}: Explaining Transformers via Gradient Self-Attention Maps},
  author = {Barkan, Oren and Hauon, Edan and Caciularu, Avi and Katz, Ori and Malkiel, Itzik
            and Armstrong, Omri and Koenigstein, Noam},
  booktitle = {Proceedings of the 30th ACM International Conference on Information and Knowledge Management},
  year = {2021},
  doi = {10.1145/3459637.3482126}
}""",
    reference="none needed: the product of two tensors",
    options=(
        Option("positive", False, "Take the positive part of each head before the mean.", "bool"),
        HEADS,
    ),
    needs=("gradients",),
    signed=True,
    cost="one backward pass, then the rows of the layers named",
    deviations=("Several layers are averaged, and the map says so.",),
)
def attention_gradient(request: Request, *, positive: bool, heads: int | Sequence[int] | None) -> Answer:
    """Return the rows of gradient x attention that the query names."""
    if request.reads_pool and request.pool is not None and request.layers is None:
        rows = gradient_rows(request.pool, None, heads=heads, positive=positive)
        return Answer(rows.mean(dim=1), query=request.pool_words, layout=request.pool.key_layout)
    layers = request.stack(default=-1)
    request.refuse_sizes(layers)
    starts = request.starts(layers[-1])
    scores = torch.stack([_rows_of(layer, starts.weights, heads, positive) for layer in layers]).mean(dim=0)
    notes = () if len(layers) == 1 else (f"mean over {len(layers)} layers",)
    return Answer(scores if starts.every else scores.squeeze(1), query=starts.words, notes=notes)


def _rows_of(
    layer: LayerAttention, start: Tensor, heads: int | Sequence[int] | None, positive: bool
) -> Tensor:
    total = start.new_zeros(*start.shape[:-1], layer.num_keys)
    for rows in blocks_of(layer):
        total += start[..., rows] @ gradient_rows(layer, rows, heads=heads, positive=positive)
    return total
