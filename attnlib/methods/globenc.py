"""GlobEnc (Modarressi 2022): norms of whole encoder blocks, multiplied through the layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from attnlib.methods.card import Option
from attnlib.methods.decomposed_rollout import decomposed_rollout, row_normalised
from attnlib.methods.decomposition import PARTS, PRE_NORM_NOTE, Decomposed
from attnlib.methods.options import START_LAYER
from attnlib.methods.registry import method
from attnlib.methods.request import Answer, Request

__all__ = ["globenc"]


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
  booktitle = {Proceedings of the 2022 Conference of the North American Chapter of the Association for
               Computational Linguistics: Human Language Technologies},
  pages = {258--271},
  year = {2022}
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
            "normalise",
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
        "Padded query rows keep their values; the aggregate that the published model returns sets them to "
        "zero (the published demo does not).",
    ),
)
def globenc(request: Request, *, include: str, normalise: bool, start_layer: int) -> Answer:
    """Multiply the norms of the layers' decomposed vectors."""

    def make_rows(parts: Decomposed) -> Callable[[slice | list[int]], Tensor]:
        gram = parts.gram

        def rows_of(rows: slice | list[int]) -> Tensor:
            norms = parts.norms(rows, gram)
            return row_normalised(norms) if normalise else norms

        return rows_of

    answer, post_norm = decomposed_rollout(
        request,
        lambda layer: Decomposed.of(layer, include, "globenc"),
        make_rows,
        start_layer=start_layer,
    )
    notes = answer.notes if post_norm or include in PARTS[:2] else (*answer.notes, PRE_NORM_NOTE)
    return replace(answer, notes=notes)
