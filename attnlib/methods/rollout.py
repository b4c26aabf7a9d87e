"""Attention rollout (Abnar & Zuidema 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attnlib.methods.card import Option
from attnlib.methods.engine import Block, Propagated, Transition, fused_rows, propagate
from attnlib.methods.raw import HEAD_FUSION, HEADS
from attnlib.methods.registry import method
from attnlib.methods.request import Answer, Request
from attnlib.record import LayerAttention

__all__ = ["START_LAYER", "answer_of", "propagated", "rollout"]

START_LAYER = Option(
    "start_layer",
    0,
    "First layer that takes part; layers below are left out. Negative counts from the end.",
    "int",
)
RESIDUAL = Option(
    "residual_weight", 0.5, "Share of the skip connection in each layer.", "float", low=0.0, high=1.0
)


@method(
    "rollout",
    title="Attention rollout",
    summary="Multiplies the attention of all layers, with the skip connections as half of each layer.",
    formula=r"\tilde A_l = \operatorname{rownorm}\big((1-w)\,\bar A_l + w I\big),\quad "
    r"R = \tilde A_L \cdots \tilde A_1,\quad s = R[q,:]",
    family="attention",
    paper="Abnar & Zuidema, Quantifying Attention Flow in Transformers, ACL 2020, arXiv:2005.00928",
    bibtex="""@inproceedings{abnar2020quantifying,
  title = {Quantifying Attention Flow in Transformers},
  author = {Abnar, Samira and Zuidema, Willem},
  booktitle = {Proceedings of the 58th Annual Meeting of the Association for Computational Linguistics},
  pages = {4190--4197},
  year = {2020}
}""",
    reference="samiraabnar/attention_flow, attention_graph_util.py::compute_joint_attention",
    options=(HEAD_FUSION, RESIDUAL, START_LAYER, HEADS),
    cost="one pass over the attention of the layers, memory linear in the number of tokens",
)
def rollout(
    request: Request,
    *,
    head_fusion: str,
    residual_weight: float,
    start_layer: int,
    heads: int | Sequence[int] | None,
) -> Answer:
    """Multiply the layers' attention, each mixed with the identity."""

    def transition(layer: LayerAttention, rows: slice | list[int]) -> Block:
        fused = fused_rows(layer, rows, head_fusion=head_fusion, heads=heads)
        return mixed(fused, residual_weight)

    return propagated(request, transition, start_layer=start_layer, head_fusion=head_fusion, heads=heads)


def mixed(fused: Tensor, residual_weight: float) -> Block:
    """Mix rows with the identity and divide each by its sum; rows that sum to 0 stay 0."""
    total = (1.0 - residual_weight) * fused.sum(dim=-1) + residual_weight
    notes = ()
    if bool((total == 0).any()):
        notes = ("some rows have no attention at all (0/0): they count as 0",)
    scale = torch.where(total > 0, 1.0 / torch.where(total > 0, total, 1.0), 0.0)
    return Block(fused * ((1.0 - residual_weight) * scale)[..., None], residual_weight * scale, notes)


def propagated(
    request: Request,
    transition: Transition,
    *,
    start_layer: int = 0,
    head_fusion: str = "mean",
    heads: int | Sequence[int] | None = None,
) -> Answer:
    """Run the engine for a request: from the pooler's row or the rows the query names."""
    layers = request.stack(start_layer=start_layer)
    if request.reads_pool and request.pool is not None:
        start = fused_rows(request.pool, None, head_fusion=head_fusion, heads=heads).mean(dim=1, keepdim=True)
        result, words, every = propagate(layers, start, transition), "the pooler's own row", False
        result.identity = None
    else:
        starts = request.starts(layers[-1])
        result, words, every = propagate(layers, starts.weights, transition), starts.words, starts.every
    return answer_of(result, words, every)


def answer_of(result: Propagated, words: str, every: bool) -> Answer:
    """Return the answer of a propagation: one row, or all."""
    if every:
        return Answer(result.scores, result.identity, words, notes=result.notes)
    identity = None if result.identity is None else result.identity.squeeze(1)
    return Answer(result.scores.squeeze(1), identity, words, notes=result.notes)
