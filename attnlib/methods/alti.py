"""ALTI (Ferrando 2022): how much closer each token's vector brings the output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from attnlib.methods.card import Option
from attnlib.methods.decomposed_rollout import decomposed_rollout, row_normalised
from attnlib.methods.decomposition import PRE_NORM_NOTE, Decomposed, block_of
from attnlib.methods.options import START_LAYER
from attnlib.methods.registry import method
from attnlib.methods.request import Answer, Request

__all__ = ["alti"]

PUBLISHED_CODE = "transformer-contributions"


@method(
    "alti",
    title="ALTI: aggregation of layer-wise token-to-token interactions",
    summary="In each layer, a token counts by how much closer its vector alone comes to the block's "
    "output than nothing does; rows are normalised and multiplied through the layers.",
    formula=r"c_{ij} \propto \max\big(0,\ \lVert y_i\rVert_1 - \lVert y_i - T_i(x_j)\rVert_1\big),\quad "
    r"\sum_j c_{ij} = 1,\quad s = (C_L \cdots C_1)[q,:]",
    family="decomposition",
    paper="Ferrando, Gállego & Costa-jussà, Measuring the Mixing of Contextual Information in the "
    "Transformer, EMNLP 2022, arXiv:2203.04212",
    bibtex="""@inproceedings{ferrando2022measuring,
  title = {Measuring the Mixing of Contextual Information in the Transformer},
  author = {Ferrando, Javier and G{\\'a}llego, Gerard I. and Costa-juss{\\`a}, Marta R.},
  booktitle = {Proceedings of the 2022 Conference on Empirical Methods in Natural Language Processing},
  pages = {8698--8714},
  year = {2022}
}""",
    reference="mt-upc/transformer-contributions, src/contributions.py",
    options=(
        Option("norm", "l1", "Distance between vectors; the paper's choice is l1.", "choice", ("l1", "l2")),
        Option(
            "include",
            "norm",
            "Up to where the block is followed: the norm after the attention (the paper), or the second norm "
            "too, the feed-forward left out (the published code computes both).",
            "choice",
            ("norm", "encoder"),
        ),
        START_LAYER,
    ),
    needs=("values", "internals"),
    cost="the vectors themselves, a few query rows at a time: N x N x width operations a layer (minutes "
    "above some 5,000 tokens), memory linear in the number of tokens for one query",
    deviations=(
        "The output y is the real one, so that what belongs to no token (bias, shift) is in it, as "
        "published.",
        "In pre-norm models (ViT) the vectors carry no norm: T is heads and skip connection, as in the "
        "published code for such models.",
        "A row in which no token comes closer counts as 0.",
    ),
    variants={
        PUBLISHED_CODE: "linearises the layer norm without eps and adds 1e-6 to every component of a distance"
    },
)
def alti(request: Request, *, norm: str, include: str, start_layer: int, variant: str | None) -> Answer:
    """Multiply the row-normalised contributions of the layers."""
    published_code = variant == PUBLISHED_CODE
    order = 1 if norm == "l1" else 2

    def make_rows(parts: Decomposed) -> Callable[[slice | list[int]], Tensor]:
        block = block_of(parts.layer, "alti")
        out = block.out() if include == "norm" else block.whole_out()
        return lambda rows: contributions(
            parts, out, rows, order=order, distance_eps=1e-6 if published_code else 0.0
        )

    answer, post_norm = decomposed_rollout(
        request,
        lambda layer: Decomposed.of(layer, include, "alti", with_eps=not published_code),
        make_rows,
        start_layer=start_layer,
    )
    return replace(answer, notes=answer.notes if post_norm else (*answer.notes, PRE_NORM_NOTE))


def contributions(
    parts: Decomposed,
    out: Tensor,
    rows: slice | list[int],
    *,
    order: int = 1,
    distance_eps: float = 0.0,
) -> Tensor:
    """Return the contributions of all tokens to some rows; each row sums to 1.

    Parameters
    ----------
    parts : the block's vectors.
    out : the block's output.
    rows : query rows.
    order : of the norm, 1 or 2.
    distance_eps : added to each component of a difference.
    """
    apart = parts.distances(rows, out, order=order, eps=distance_eps)
    whole = torch.linalg.vector_norm(out[:, parts.numbers(rows)], ord=order, dim=-1)
    return row_normalised((whole[..., None] - apart).clamp(min=0))
