"""Raw attention: the rows of the attention matrix itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attnlib.methods.engine import blocks_of, fused_rows
from attnlib.methods.options import HEAD_FUSION, HEADS
from attnlib.methods.registry import method
from attnlib.methods.request import Answer, Request
from attnlib.record import LayerAttention

__all__ = ["raw"]


@method(
    "raw",
    title="Raw attention",
    summary="The attention weights of one layer (the last, unless layers are named): where the query looks.",
    formula=r"s = \operatorname{fuse}_h A_L^{(h)}[q,:]",
    family="attention",
    paper="Vaswani et al., Attention Is All You Need, NeurIPS 2017; as a picture: Caron et al., ICCV 2021",
    bibtex="""@inproceedings{caron2021emerging,
  title = {Emerging Properties in Self-Supervised Vision Transformers},
  author = {Caron, Mathilde and Touvron, Hugo and Misra, Ishan and J{\\'e}gou, Herv{\\'e} and Mairal, Julien
            and Bojanowski, Piotr and Joulin, Armand},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision},
  pages = {9650--9660},
  year = {2021}
}""",
    reference="facebookresearch/dino, visualize_attention.py",
    options=(HEAD_FUSION, HEADS),
    cost="one row of one layer; linear in the number of tokens",
    deviations=(
        "Columns of prefix tokens are kept in the scores and left out of the heatmap by the layout, never by "
        "a constant 1.",
        "Several layers are averaged, and the map says so.",
    ),
)
def raw(request: Request, *, head_fusion: str, heads: int | Sequence[int] | None) -> Answer:
    """Return the fused attention rows that the query names."""
    layers = _chosen(request)
    notes = () if len(layers) == 1 else (f"mean of the raw attention of {len(layers)} layers",)
    total, words = None, None
    for layer in layers:
        rows, words = _rows(request, layer, head_fusion, heads)
        total = rows if total is None else total + rows
    assert total is not None
    layout = layers[-1].key_layout
    if layout is not None and layout.num_tokens != total.shape[-1]:
        layout = None
    return Answer(total / len(layers), query=words, notes=notes, layout=layout)


def _chosen(request: Request) -> tuple[LayerAttention, ...]:
    _ = request.stream  # there must be one only
    if request.layers is not None:
        chosen = request.record.select(layers=request.layers).layers
        request.refuse_sizes(chosen)
        return chosen
    if request.pool is not None and not request.reads_pool:  # the pooler has no row of a token
        return request.stack(default=-1)
    return (request.record.layers[-1],)


def _rows(
    request: Request, layer: LayerAttention, head_fusion: str, heads: int | Sequence[int] | None
) -> tuple[Tensor, str]:
    if layer.kind == "pool" and request.reads_pool:
        fused = fused_rows(layer, None, head_fusion=head_fusion, heads=heads)
        return fused.mean(dim=1), request.pool_words
    starts = request.starts(layer)
    if starts.every:
        parts = [fused_rows(layer, rows, head_fusion=head_fusion, heads=heads) for rows in blocks_of(layer)]
        return torch.cat(parts, dim=1), starts.words
    rows = starts.rows
    fused = fused_rows(layer, rows, head_fusion=head_fusion, heads=heads)
    return (starts.weights[..., rows].to(fused.dtype) @ fused).squeeze(1), starts.words
