"""Attention rollout (Abnar & Zuidema 2020)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from attnlib.errors import InputError
from attnlib.methods.engine import Block, LinearTransition, fused_rows
from attnlib.methods.options import DISCARD, HEAD_FUSION, HEADS, RESIDUAL, START_LAYER
from attnlib.methods.papers import ABNAR
from attnlib.methods.propagation import propagated
from attnlib.methods.registry import method
from attnlib.methods.request import Answer, Request
from attnlib.methods.streaming import carry
from attnlib.methods.transitions import column_divided, demand_whole, kept_entries, mixed, whole
from attnlib.record import LayerAttention

__all__ = ["rollout"]


@method(
    "rollout",
    title="Attention rollout",
    summary="Multiplies the attention of all layers, with the skip connections as half of each layer.",
    formula=r"\tilde A_l = \operatorname{rownorm}\big((1-w)\,\bar A_l + w I\big),\quad "
    r"R = \tilde A_L \cdots \tilde A_1,\quad s = R[q,:]",
    family="attention",
    paper="Abnar & Zuidema, Quantifying Attention Flow in Transformers, ACL 2020, arXiv:2005.00928",
    bibtex=ABNAR,
    reference="samiraabnar/attention_flow, attention_graph_util.py::compute_joint_attention",
    options=(HEAD_FUSION, RESIDUAL, DISCARD, START_LAYER, HEADS),
    cost="one pass over the attention of the layers, memory linear in the number of tokens; "
    "with discard_ratio one layer's N x N matrix, about 10 x N^2 numbers an item (1 GB at 5,000 tokens), "
    "refused before the work if that is not free (or above max_memory)",
    deviations=(
        "The paper writes 0.5 A + 0.5 I; rows are divided by their sum as in its code, which is the same "
        "unless rows do not sum to 1 (masked rows, sinks, max or min fusion).",
        "discard_ratio and max or min fusion are not in the paper; they come from vit-explain. What is "
        "discarded is counted among the real tokens of each item, padding left out.",
        "Where a class token joins behind the patch layers (CaiT, VOLO), the patches stay as they are in the "
        "calls that make its row; its own share stays on it through the patch layers.",
    ),
    variants={
        "vit-explain": "jacobgil/vit-explain vit_rollout.py: column j is divided by the sum of row j "
        "(keepdim is missing). Its class defaults are head_fusion='mean', discard_ratio=0.9. It divides the "
        "map by its maximum afterwards; shares are not changed by that.",
        "rollout-matrix-literal": "0.5 A + 0.5 I as printed in the paper, rows not divided by their sum.",
        "chefer-vit": "hila-chefer/Transformer-Explainability, compute_rollout_attention of ViT_LRP.py: "
        "A + I, rows not divided (the line is commented out), so values grow with depth. That file applies "
        "it to relevance; the rollout of the same repository (ViT_explanation_generator.py) divides, like "
        "the default.",
    },
)
def rollout(
    request: Request,
    *,
    head_fusion: str,
    residual_weight: float,
    discard_ratio: float,
    start_layer: int,
    heads: int | Sequence[int] | None,
    variant: str | None,
) -> Answer:
    """Multiply the layers' attention, each mixed with the identity."""
    if variant and variant != "vit-explain" and (discard_ratio or residual_weight != 0.5):
        raise InputError(f"rollout: variant={variant!r} has no discard_ratio and no residual_weight")

    def transition(layer: LayerAttention, rows: slice | list[int]) -> Block:
        fused = fused_rows(layer, rows, head_fusion=head_fusion, heads=heads)
        if variant == "rollout-matrix-literal":
            return Block(0.5 * fused, fused.new_full(fused.shape[:-1], 0.5))
        if variant == "chefer-vit":
            return Block(fused, fused.new_ones(fused.shape[:-1]))
        return mixed(fused, residual_weight)

    def streamed(layer: LayerAttention, vector: Tensor) -> tuple[Tensor, float] | None:
        moved = carry(layer, vector, heads=heads) if variant is None and head_fusion == "mean" else None
        return None if moved is None else ((1.0 - residual_weight) * moved, residual_weight)

    def whole_layer(layer: LayerAttention) -> Block:
        fused = whole(layer, head_fusion=head_fusion, heads=heads)
        fused = kept_entries(fused, discard_ratio, seen=request.seen)
        return column_divided(fused, residual_weight) if variant else mixed(fused, residual_weight)

    needs_whole = discard_ratio > 0 or variant == "vit-explain"
    if needs_whole:
        demand_whole(request, request.stack(start_layer=start_layer))
    return propagated(
        request,
        whole_layer if needs_whole else LinearTransition(transition, streamed),
        start_layer=start_layer,
        needs_whole=needs_whole,
        pool_rows=lambda pool: fused_rows(pool, None, head_fusion=head_fusion, heads=heads),
        late_class=True,
    )
