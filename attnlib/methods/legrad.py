"""LeGrad (Bousselham et al., ICCV 2025)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attnlib.errors import InputError
from attnlib.methods.card import Option
from attnlib.methods.engine import blocks_of
from attnlib.methods.registry import method
from attnlib.methods.request import Answer, Request
from attnlib.methods.windows import merge_spread
from attnlib.record import LayerAttention

__all__ = ["layer_scores", "legrad"]


def layer_scores(
    score: Callable[[Tensor], Tensor], *, stream: str = "vision"
) -> Callable[[Any], Mapping[str, Sequence[Tensor]]]:
    """Return a target for ``capture`` that gives every layer its own score.

    Parameters
    ----------
    score : tokens after a layer, [batch, token, dim] -> one score per item; usually the model's own head,
        such as ``lambda tokens: model.classifier(model.norm(tokens[:, 0]))[:, label]``.
    stream : whose layers are meant.

    Returns
    -------
    A function of the model's output. The model must return its hidden states: add
    ``output_hidden_states=True`` to the inputs.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> target = layer_scores(lambda tokens: tokens.sum(dim=(1, 2)))
    >>> states = (torch.zeros(1, 2, 3), torch.ones(1, 2, 3))
    >>> target(SimpleNamespace(hidden_states=states))
    {'vision': [tensor([6.])]}
    """

    def target(output: Any) -> Mapping[str, Sequence[Tensor]]:
        states = getattr(output, "hidden_states", None)
        if states is None:
            states = getattr(getattr(output, f"{stream}_model_output", None), "hidden_states", None)
        if not states:
            raise InputError(
                "the model returned no hidden states: add output_hidden_states=True to the inputs of capture"
            )
        return {stream: [score(one) for one in states[1:]]}

    return target


@method(
    "legrad",
    title="LeGrad",
    summary="How much each token would raise the score if it were attended to more, over all queries and "
    "layers.",
    formula=r"E_l = \tfrac{1}{HN}\sum_{h,i} \Big(\frac{\partial s_l}{\partial A_l^{(h)}}\Big)^{+}_{i,:},"
    r"\quad s = \tfrac1L \sum_l E_l",
    family="gradient",
    paper="Bousselham, Boggust, Chaybouti, Strobelt & Kuehne, LeGrad: An Explainability Method for Vision "
    "Transformers via Feature Formation Sensitivity, ICCV 2025, arXiv:2404.03214",
    bibtex="""@inproceedings{bousselham2025legrad,
  title = {{LeGrad}: An Explainability Method for Vision Transformers via Feature Formation Sensitivity},
  author = {Bousselham, Walid and Boggust, Angie and Chaybouti, Sofian and Strobelt, Hendrik
            and Kuehne, Hilde},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision},
  pages = {20336--20345},
  year = {2025}
}""",
    reference="WalBouss/LeGrad, legrad/wrapper.py",
    options=(
        Option(
            "through",
            "self",
            "Whose attention: that of the layers, or that of the pooler at the end, which must have read "
            "every layer's tokens (inside capturing(model, gradients=True), before "
            "record.differentiate(sum of the scores)).",
            "choice",
            ("self", "pooler"),
        ),
    ),
    needs=("gradients",),
    takes_query=False,
    cost="one short backward pass per layer, then one pass over the gradients; memory linear in the number "
    "of tokens",
    deviations=(
        "The score of each layer is the caller's: target=layer_scores(...) gives every layer its own, as in "
        "the paper. With an ordinary target the gradients are those of the final score, and the map says so.",
        "All layers unless some are named; the published wrapper takes the last two (layers=[-2, -1]).",
        "N counts real tokens: rows of padding take no part in the mean, and columns of padding get 0, so "
        "that an item does not depend on how much it was padded.",
        "For models that end in an attention pooler (SigLIP, CoCa) the published code lets the pooler read "
        "every layer's tokens, and takes the gradient of the pooler's row: that is through='pooler'. Of a "
        "record with the model's own call only, it is the map of the last layer.",
        "No min-max stretching, and layers are averaged at the resolution of the tokens (published: enlarged "
        "first, then added).",
    ),
)
def legrad(request: Request, *, through: str) -> Answer:
    """Average the positive gradients of the attention over heads, queries and layers."""
    if request.query is not None:
        raise InputError("legrad averages over all query rows: it takes no query=")
    if through == "pooler":
        return _of_pooler(request)
    layers = request.stack(apart=True)
    total, above = None, None
    for layer in reversed(layers):
        if total is not None and above is not None and layer.num_keys != above.num_keys:
            total = merge_spread(above, layer)(total)
        own = _layer_map(layer, *request.even_weights(layer))
        total, above = own if total is None else total + own, layer
    assert total is not None
    scores = total / len(layers)
    notes: tuple[str, ...] = ()
    if request.record.on_differentiate is not None and not request.record.layer_scores:
        notes = ("gradients of the final score; LeGrad takes those of each layer's own score",)
    if request.class_attention:
        notes += ("the class token's own attention, behind these layers, takes no part",)
    elif request.pool is not None:
        notes += (
            "the pooler's attention takes no part; the published code takes the pooler's alone "
            "(through='pooler')",
        )
    if request.record.gaps:
        notes += (
            f"what passes without attention weights takes no part: {request.record.gaps[0]}"
            + (f" (and {len(request.record.gaps) - 1} more)" if request.record.gaps[1:] else ""),
        )
    lowest = layers[0].key_layout
    layout = lowest if lowest is not None and lowest.num_tokens == scores.shape[-1] else None
    return Answer(scores, query="all rows, averaged", layout=layout, notes=notes)


def _of_pooler(request: Request) -> Answer:
    """Average the positive gradients of the calls in which the pooler read the tokens of a layer."""
    if request.pool is None or request.class_attention:
        raise InputError("legrad: through='pooler' needs a model that ends in an attention pooler")
    every = request.record.select(kind="pool")
    calls = every.select(layers=request.layers).layers
    request.refuse_sizes(calls)
    found = torch.stack([_layer_map(call, *request.even_weights(call)) for call in calls]).mean(dim=0)
    notes = (f"of {len(calls)} calls of the pooler, averaged",) if len(calls) > 1 else ("of one layer only",)
    known = every.layers[0].key_layout
    layout = known if known is not None and known.num_tokens == found.shape[-1] else None
    return Answer(found, query=request.pool_words, layout=layout, notes=notes)


def _layer_map(
    layer: LayerAttention, over_rows: Float[Tensor, "batch query"], over_keys: Float[Tensor, "batch key"]
) -> Float[Tensor, "batch key"]:
    """Average the positive gradient of one layer over heads and over the rows of real tokens."""
    total = torch.zeros_like(over_keys)
    for rows in blocks_of(layer):
        slope = layer.gradients(queries=rows).to(over_rows).clamp(min=0).mean(dim=1)
        total += torch.einsum("br,brk->bk", over_rows[:, rows], slope)
    return torch.where(over_keys > 0, total, 0.0)
