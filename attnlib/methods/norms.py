"""Norm-based analysis (Kobayashi 2020, 2021): the size of what each token really sends."""

from __future__ import annotations

import torch

from attnlib.methods.card import Option
from attnlib.methods.decomposition import PRE_NORM_NOTE, Decomposed
from attnlib.methods.engine import blocks_of
from attnlib.methods.registry import method
from attnlib.methods.request import Answer, Request

__all__ = ["attention_norm"]


@method(
    "attention_norm",
    title="Norm-based attention analysis",
    summary="How long the vectors are that the tokens send to the query in one layer (the last, unless "
    "layers are named), instead of how large their weights are.",
    formula=r"s_j = \Big\lVert \sum_h A^h_{qj}\,(x_j W_V^h + b_V^h)\,W_O^h \Big\rVert_2, \qquad "
    r"\text{residual: } +\,\delta_{qj}\,x_q, \qquad "
    r"\text{norm: } \frac{v-\operatorname{mean}(v)}{s(y_q)}\odot\gamma",
    family="decomposition",
    paper="Kobayashi et al., Attention is Not Only a Weight, EMNLP 2020, arXiv:2004.10102; Kobayashi et al., "
    "Incorporating Residual and Normalization Layers into Analysis of Masked Language Models, EMNLP 2021, "
    "arXiv:2109.07152",
    bibtex="""@inproceedings{kobayashi2020attention,
  title = {Attention is Not Only a Weight: Analyzing Transformers with Vector Norms},
  author = {Kobayashi, Goro and Kuribayashi, Tatsuki and Yokoi, Sho and Inui, Kentaro},
  booktitle = {Proceedings of the 2020 Conference on Empirical Methods in Natural Language Processing},
  pages = {7057--7075},
  year = {2020}
}
@inproceedings{kobayashi2021incorporating,
  title = {Incorporating Residual and Normalization Layers into Analysis of Masked Language Models},
  author = {Kobayashi, Goro and Kuribayashi, Tatsuki and Yokoi, Sho and Inui, Kentaro},
  booktitle = {Proceedings of the 2021 Conference on Empirical Methods in Natural Language Processing},
  pages = {4547--4568},
  year = {2021}
}""",
    reference="gorokoba560/norm-analysis-of-transformer, emnlp2020 and emnlp2021",
    options=(
        Option(
            "include",
            "attention",
            "What is added up before the norm is taken: the heads (2020), the skip connection too, the layer "
            "norm too (2021).",
            "choice",
            ("attention", "residual", "norm"),
        ),
    ),
    needs=("values", "internals"),
    cost="a Gram matrix of the heads for each key; H times the cost of the attention rows",
    deviations=(
        "Norms come from the Gram matrix of the heads, in float64: the tensor [head, query, key, width] of "
        "the published code is never formed. The values are the same.",
        "The bias of the output map and the shift of the layer norm belong to no token, as published.",
        "In pre-norm models (ViT) the norm in front of the attention is inside the value vectors, so that "
        "'norm' equals 'residual'; a layer scale is counted as part of the output map.",
        "Several layers are averaged, and the map says so.",
    ),
)
def attention_norm(request: Request, *, include: str) -> Answer:
    """Return the norms of the vectors that the rows of the query receive."""
    layers = request.stack(default=-1)
    request.refuse_sizes(layers)
    notes = [] if len(layers) == 1 else [f"mean over {len(layers)} layers"]
    total, words = None, None
    for layer in layers:
        parts = Decomposed.of(layer, include, "attention_norm")
        if include == "norm" and parts.divisor is None:
            notes.append(PRE_NORM_NOTE)
        gram, starts = parts.gram, request.starts(layer)
        words = starts.words
        if starts.every:
            rows = torch.cat([parts.norms(block, gram) for block in blocks_of(layer)], dim=1)
        else:
            found = parts.norms(starts.rows, gram)
            rows = (starts.weights[..., starts.rows].to(found.dtype) @ found).squeeze(1)
        total = rows if total is None else total + rows
    assert total is not None
    return Answer(total / len(layers), query=words, notes=tuple(notes))
