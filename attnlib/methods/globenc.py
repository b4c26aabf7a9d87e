"""GlobEnc (Modarressi 2022): norms of whole encoder blocks, multiplied through the layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from attnlib.methods.card import Option
from attnlib.methods.decomposition import PARTS, Decomposed
from attnlib.methods.engine import Block
from attnlib.methods.norms import PRE_NORM_NOTE
from attnlib.methods.registry import method
from attnlib.methods.request import Answer, Request
from attnlib.methods.rollout import START_LAYER, propagated
from attnlib.methods.transitions import inverse
from attnlib.methods.windows import refuse_windows
from attnlib.record import LayerAttention

__all__ = ["decomposed_rollout", "globenc", "row_normalised"]

Rows = Callable[[Decomposed, slice | list[int]], Tensor]


def row_normalised(rows: Tensor) -> Tensor:
    """Divide each row by its sum; a row of zeros stays zero."""
    return rows * inverse(rows.sum(dim=-1, keepdim=True))[0]


def decomposed_rollout(
    request: Request,
    take_apart: Callable[[LayerAttention], Decomposed],
    make_rows: Callable[[Decomposed], Callable[[slice | list[int]], Tensor]],
    *,
    start_layer: int,
) -> tuple[Answer, bool]:
    """Multiply matrices that are made of decomposed vectors, each block taken apart once.

    Parameters
    ----------
    request : what was asked.
    take_apart : a layer into its vectors.
    make_rows : vectors into a function from query rows to a row of numbers a key.
    start_layer : first layer that takes part.

    Returns
    -------
    The answer, and whether any block had a norm after the skip connection.
    """
    refuse_windows(request.stack(start_layer=start_layer), request.method)
    at_hand: dict[int, Callable[[slice | list[int]], Tensor]] = {}
    post_norm = False

    def transition(layer: LayerAttention, rows: slice | list[int]) -> Block:
        nonlocal post_norm
        if id(layer) not in at_hand:
            at_hand.clear()
            parts = take_apart(layer)
            post_norm = post_norm or parts.divisor is not None
            at_hand[id(layer)] = make_rows(parts)
        return Block(at_hand[id(layer)](rows))

    answer = propagated(request, transition, start_layer=start_layer)
    return replace(answer, identity=None), post_norm


@method(
    "globenc",
    title="GlobEnc",
    summary="Sizes of the vectors that tokens exchange in each whole block (attention, skip connections, "
    "both layer norms), multiplied through the layers.",
    formula=r"N_{ij} = \Big\lVert \operatorname{LN}_2'\operatorname{LN}_1'\Big(\sum_h A^h_{ij} W_O^h v^h_j + "
    r"\delta_{ij} x_i\Big) \Big\rVert_2,\quad s = (N_L \cdots N_1)[q,:]",
    family="decomposition",
    paper="Modarressi et al., GlobEnc: Quantifying Global Token Attribution by Incorporating the Whole "
    "Encoder Layer in Transformers, NAACL 2022, arXiv:2205.03286",
    bibtex="""@inproceedings{modarressi2022globenc,
  title = {{GlobEnc}: Quantifying Global Token Attribution by Incorporating the Whole Encoder
           Layer in Transformers},
  author = {Modarressi, Ali and Fayyaz, Mohsen and Yaghoobzadeh, Yadollah and Pilehvar, Mohammad Taher},
  booktitle = {Proceedings of NAACL}, pages = {258--271}, year = {2022}
}""",
    reference="mohsenfayyaz/GlobEnc, src/modeling/modeling_bert.py and src/attention_rollout.py",
    options=(
        Option(
            "include",
            "encoder",
            "What is added up before the norm is taken; 'encoder' is the method, the others are the paper's "
            "ablations.",
            "choice",
            PARTS,
        ),
        Option(
            "normalize",
            False,
            "Divide each row by its sum before multiplying (a variant: the paper multiplies the norms "
            "themselves, whose magnitudes grow with depth).",
            "bool",
        ),
        START_LAYER,
    ),
    needs=("values", "internals"),
    cost="H times the cost of the attention rows of all layers; memory linear in the number of tokens for "
    "one query",
    deviations=(
        "Written for post-norm encoders (BERT). In pre-norm models (ViT) no norm follows the skip "
        "connections, and the feed-forward is left out: the matrix is the norm with both skip connections.",
        "The feed-forward's output counts only in the deviation of the second norm, as published.",
        "Padded query rows keep their values; the published model output sets them to zero.",
    ),
)
def globenc(request: Request, *, include: str, normalize: bool, start_layer: int) -> Answer:
    """Multiply the norms of the layers' decomposed vectors."""

    def make_rows(parts: Decomposed) -> Callable[[slice | list[int]], Tensor]:
        gram = parts.gram

        def rows_of(rows: slice | list[int]) -> Tensor:
            norms = parts.norms(rows, gram)
            return row_normalised(norms) if normalize else norms

        return rows_of

    answer, post_norm = decomposed_rollout(
        request,
        lambda layer: Decomposed.of(layer, include, "globenc"),
        make_rows,
        start_layer=start_layer,
    )
    notes = answer.notes if post_norm or include in PARTS[:2] else (*answer.notes, PRE_NORM_NOTE)
    return replace(answer, notes=notes)
